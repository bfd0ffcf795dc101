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

// public are the parameters of queries that are no secrets: those of the distribution-spec
// and of requests for tokens.
var public = []string{
	"account", "artifactType", "client_id", "digest", "digest-algorithm", "from", "last", "mount", "n", "ns",
	"offline_token", "scope", "service", "tag",
}

// URI returns the path and query of a URL, without the values of parameters that may be
// secrets.
func URI(u *url.URL) string {
	if u.RawQuery == "" {
		return u.EscapedPath()
	}
	return u.EscapedPath() + "?" + query(u.RawQuery)
}

// query hides the values of parameters that are not public. The rest is unchanged.
func query(raw string) string {
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, _, hasValue := strings.Cut(part, "=")
		if hasValue && !slices.Contains(public, name) {
			parts[i] = name + "=" + url.QueryEscape(Redacted)
		}
	}
	return strings.Join(parts, "&")
}

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

// Header returns a copy of a header without secrets, and the number of its bytes, which is
// at most limit: further headers are left out.
func Header(h http.Header, limit int) (_ http.Header, size int) {
	if len(h) == 0 {
		return nil, 0
	}
	safe := make(http.Header, min(len(h), 32))
	for name, values := range h {
		n := len(name)
		for _, value := range values {
			n += len(value)
		}
		if size += n; size > limit {
			size -= n
			continue
		}
		safe[name] = headerValues(name, values)
	}
	return safe, size
}

// headerValues returns the values of a header without secrets.
func headerValues(name string, values []string) []string {
	if shown[name] {
		return values // net/http does not change them
	}
	safe := make([]string, len(values))
	for i, value := range values {
		safe[i] = headerValue(name, value)
	}
	return safe
}

func headerValue(name, value string) string {
	switch name {
	case "Authorization", "Proxy-Authorization":
		return AuthScheme(value) + " " + Redacted
	case "Location", "Referer", "Content-Location":
		if u, err := url.Parse(value); err == nil {
			u.User, u.RawQuery, u.Fragment = nil, query(u.RawQuery), ""
			return u.String()
		}
	case "Link":
		if target, rest, ok := strings.Cut(strings.TrimPrefix(value, "<"), ">"); ok {
			return "<" + headerValue("Location", target) + ">" + rest
		}
	}
	return Redacted
}
