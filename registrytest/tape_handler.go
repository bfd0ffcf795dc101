// SPDX-License-Identifier: Apache-2.0

// A Tape as a handler: a proxy in front of RoundTrip.

package registrytest

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/berth-oci/registry"
)

// foreignPrefix is the path below which a Tape's handler serves other hosts. A
// request that follows a redirect is sent without credentials, as a client does
// that is redirected to another host.
const (
	foreignPrefix  = "/_tape/"
	redirectPrefix = foreignPrefix + "redirect/"
)

// hopByHop are headers of a connection, not of a request.
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// ServeHTTP serves a request as the registry, by [Tape.RoundTrip].
func (t *Tape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, redirected, err := t.target(r.URL)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := r.Clone(r.Context())
	out.URL, out.Host, out.RequestURI, out.Close = target, target.Host, "", false
	out.TransferEncoding = nil
	for _, name := range hopByHop {
		out.Header.Del(name)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // not that of Go
	}
	if redirected {
		out.Header.Del("Authorization")
		out.Header.Del("Cookie")
	}
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	resp, err := t.RoundTrip(out)
	if e := new(errNotOnTape); errors.As(err, &e) {
		registry.WriteError(w, r, &registry.Error{Status: http.StatusNotImplemented, Code: "UNSUPPORTED", Message: e.Error()})
		return
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client sees a broken connection too
	}
	defer resp.Body.Close()
	header := w.Header()
	for name, values := range resp.Header {
		header[name] = values
	}
	for _, name := range hopByHop {
		header.Del(name)
	}
	t.localize(header, r, target, resp.StatusCode)
	if resp.ContentLength >= 0 && header.Get("Content-Length") == "" && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotModified {
		header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// target returns the URL that a request to the handler is for, and whether it follows
// a redirect to another host.
func (t *Tape) target(u *url.URL) (target *url.URL, redirected bool, err error) {
	path := u.EscapedPath()
	base := t.registry.String()
	rest, foreign := strings.CutPrefix(path, foreignPrefix)
	if foreign {
		if r, ok := strings.CutPrefix(path, redirectPrefix); ok {
			rest, redirected = r, true
		}
		scheme, hostPath, _ := strings.Cut(rest, "/")
		host, p, _ := strings.Cut(hostPath, "/")
		if scheme != "http" && scheme != "https" || host == "" {
			return nil, false, errors.New("registrytest: a path below " + foreignPrefix + " names no URL")
		}
		base, path = scheme+"://"+host, "/"+p
	}
	target, err = url.Parse(base + path)
	if err != nil {
		return nil, false, errors.New("registrytest: malformed path")
	}
	target.RawQuery = u.RawQuery
	return target, redirected, nil
}

var (
	// linkTarget is the URL in a Link header, and realmParameter the one in a
	// challenge.
	linkTarget     = regexp.MustCompile(`<([^>]*)>`)
	realmParameter = regexp.MustCompile(`(?i)(\brealm=")([^":]+://[^"]*)(")`)
)

// editURLs calls edit for each URL in the headers that have one.
func editURLs(header http.Header, edit func(string) string) {
	for _, name := range []string{"Location", "Content-Location"} {
		for i, value := range header[name] {
			header[name][i] = edit(value)
		}
	}
	for i, value := range header["Link"] {
		header["Link"][i] = linkTarget.ReplaceAllStringFunc(value, func(s string) string { return "<" + edit(s[1:len(s)-1]) + ">" })
	}
	for i, value := range header["Www-Authenticate"] {
		header["Www-Authenticate"][i] = realmParameter.ReplaceAllStringFunc(value, func(s string) string {
			parts := realmParameter.FindStringSubmatch(s)
			return parts[1] + edit(parts[2]) + parts[3]
		})
	}
}

// localize replaces the URLs of other hosts, in the header of a response of target,
// by URLs of the handler.
func (t *Tape) localize(header http.Header, r *http.Request, target *url.URL, status int) {
	local := "http://" + r.Host
	if r.TLS != nil {
		local = "https://" + r.Host
	}
	editURLs(header, func(s string) string {
		u, err := url.Parse(s)
		if err == nil && u.Scheme == "" && strings.HasPrefix(s, "/") {
			u = target.ResolveReference(u)
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return s
		}
		path := u.EscapedPath()
		if (tapeOrigin{u.Scheme, u.Host}) == t.registry {
			if !strings.Contains(s, "://") {
				return s
			}
		} else {
			prefix := foreignPrefix
			if status/100 == 3 {
				prefix = redirectPrefix
			}
			path = prefix + u.Scheme + "/" + u.Host + "/" + strings.TrimPrefix(path, "/")
		}
		if u.RawQuery != "" {
			path += "?" + u.RawQuery
		}
		return local + path
	})
}
