// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// Redacted replaces a secret.
const Redacted = "(hidden)"

// PublicParameters are the parameters of queries and forms whose values are no secrets: those
// of the distribution-spec and of requests for tokens.
var PublicParameters = []string{
	"n", "last", "digest", "mount", "from", "artifactType", "tag", "digest-algorithm", "ns",
	"service", "scope", "account", "client_id", "offline_token", "access_type", "grant_type", "username",
}

// AppendURI appends the path and query of a URL to b, without the values of parameters that
// may be secrets. Of a long one it appends the beginning, of about limit bytes.
func AppendURI(b []byte, u *url.URL, limit int) []byte {
	path := u.EscapedPath()
	if len(path) > limit {
		return append(append(b, path[:limit]...), "\u2026"...)
	}
	b = append(b, path...)
	if u.RawQuery == "" {
		return b
	}
	return append(append(b, '?'), Query(clip(u.RawQuery, limit))...)
}

// clip returns s, or its beginning. The end is not hidden by what is left out: a value
// belongs to the name before it.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "\u2026"
}

// Query hides what is not the value of a public parameter: other values, and parameters
// without a name. The rest is unchanged.
func Query(raw string) string {
	if raw == "" {
		return ""
	}
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, value, hasValue := strings.Cut(part, "=")
		switch {
		case part == "" || slices.Contains(PublicParameters, name) && !strings.Contains(value, ";"): // which separates parameters, for some
		case hasValue:
			parts[i] = name + "=" + hiddenValue
		default:
			parts[i] = hiddenValue
		}
	}
	return strings.Join(parts, "&")
}

var hiddenValue = url.QueryEscape(Redacted)

// shown are the headers whose values are no secrets. Others, such as a header for
// credentials that only one proxy knows, are shown without their values.
var shown = func() map[string]bool {
	all := make(map[string]bool)
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Age", "Allow", "Cache-Control", "Connection",
		"Content-Disposition", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Date",
		"Docker-Content-Digest", "Docker-Distribution-Api-Version", "Etag", "Expect", "Host", "If-Match",
		"If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Last-Modified", "Oci-Chunk-Min-Length",
		"Oci-Filters-Applied", "Oci-Subject", "Oci-Tag", "Origin", "Pragma", "Range", "Ratelimit-Limit", "Ratelimit-Remaining",
		"Retry-After", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Server", "Te", "Traceparent", "Trailer",
		"Transfer-Encoding", "Upgrade", "User-Agent", "Vary", "Via", "Warning", "Www-Authenticate",
		"X-Content-Type-Options", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Meta-Source-Client", "X-Request-Id",
	} {
		all[textproto.CanonicalMIMEHeaderKey(name)] = true
	}
	return all
}()

const (
	maxLines = 100     // values of headers
	maxValue = 1 << 10 // bytes of a value
)

// AppendHeader appends the values of a header to b, without secrets, for [ParseHeader]. It
// appends about limit bytes: further values are left out. It does not keep h, which shares
// its memory with all headers of a request, and is the client's to fill.
func AppendHeader(b []byte, h http.Header, limit int) []byte {
	lines, end := 0, len(b)+limit
	for name, values := range h {
		for _, value := range values {
			if lines++; lines > maxLines || len(b)+min(len(name)+len(value), maxValue) > end {
				return b
			}
			b = append(appendLine(b, name), '\n')
			if !shown[name] {
				value = headerValue(name, value)
			}
			b = append(appendLine(b, value), '\n')
		}
	}
	return b
}

// appendLine appends s, or its beginning, without the ends of lines.
func appendLine(b []byte, s string) []byte {
	s = clip(s, maxValue)
	if strings.IndexByte(s, '\n') >= 0 {
		s = strings.ReplaceAll(s, "\n", " ")
	}
	return append(b, s...)
}

// ParseHeader returns the header that AppendHeader has appended.
func ParseHeader(s string) http.Header {
	h := make(http.Header)
	for s != "" {
		var name, value string
		name, s, _ = strings.Cut(s, "\n")
		value, s, _ = strings.Cut(s, "\n")
		h[name] = append(h[name], value)
	}
	return h
}

// headerValue returns a value without secrets.
func headerValue(name, value string) string {
	value = clip(value, maxValue)
	switch name {
	case "Authorization", "Proxy-Authorization":
		return AuthScheme(value) + " " + Redacted
	case "Location", "Referer", "Content-Location":
		if u, err := url.Parse(value); err == nil && u.Opaque == "" {
			u.User, u.RawQuery, u.Fragment = nil, Query(u.RawQuery), ""
			return u.String()
		}
	case "Link":
		if target, rest, ok := strings.Cut(strings.TrimPrefix(value, "<"), ">"); ok && !strings.Contains(rest, "<") {
			return "<" + headerValue("Location", target) + ">" + rest
		}
	}
	return Redacted
}
