// SPDX-License-Identifier: Apache-2.0

// Package redact makes requests fit to be shown: without secrets, and without characters that
// change a display.
package redact

import (
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// authSchemes are the schemes of credentials that may be shown: those that clients
// of registries and their storage use.
var authSchemes = []string{"Basic", "Bearer", "Digest", "Negotiate", "NTLM", "Token", "AWS4-HMAC-SHA256"}

// AuthScheme returns the scheme of an Authorization header: "" without one, and
// "unknown" if it is none of authSchemes, since it may be part of a secret.
func AuthScheme(authorization string) string {
	words := strings.Fields(authorization)
	switch {
	case len(words) == 0:
		return ""
	case slices.ContainsFunc(authSchemes, func(s string) bool { return strings.EqualFold(s, words[0]) }):
		return words[0]
	}
	return "unknown"
}

// Printable replaces control characters, which could change what a terminal shows.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// queries are those of URLs in a text.
var queries = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(https?://)([^\s"'/@?#]*@)?([^\s"'?#]*)(\?[^\s"']*)?`)
})

// Text returns a text without the passwords and queries of the URLs in it, as errors of HTTP
// clients contain them.
func Text(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return queries().ReplaceAllStringFunc(s, func(u string) string {
		m := queries().FindStringSubmatch(u)
		if m[4] != "" {
			m[4] = "?" + Query(m[4][1:])
		}
		return m[1] + m[3] + m[4]
	})
}
