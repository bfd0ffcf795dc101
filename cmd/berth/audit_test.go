// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAudit sends requests and checks their lines in the audit log, in particular that
// nobody can guess passwords without leaving any.
func TestAudit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit")
	s := serveHandler(t, serveCmd{
		User: []string{"alice:a", "bob:b"}, Token: true, AuditLog: name, AllowSparse: true,
		Rules: rulesFile(t, "rules: [{users: [alice], repositories: [a], actions: [pull, push]}]"),
	})
	const form = "application/x-www-form-urlencoded"
	for _, test := range []struct {
		user, method, path, body, contentType string
		want                                  string // part of the line, "" for none
	}{
		{"alice:a", "PUT", "/v2/a/manifests/t", "1", "text/plain", `"user":"alice",`},
		{"alice:a", "GET", "/v2/a/manifests/t", "", "", `"op":"manifest-get"`},
		{"alice:a", "HEAD", "/v2/a/manifests/t", "", "", ""},
		{"bob:b", "HEAD", "/v2/a/manifests/t", "", "", `"user":"bob",`},
		// What clients send to find out how to log in.
		{"", "GET", "/v2/", "", "", ""},
		{"", "GET", "/v2/a/manifests/t", "", "", ""},
		{"alice:a", "GET", "/v2/", "", "", ""},
		// Logins.
		{"alice:a", "GET", "/token", "", "", `"op":"login","result":"ok"`},
		{"alice:wrong", "GET", "/token", "", "", `"op":"login","result":"rejected"`},
		{"", "POST", "/token", "grant_type=password&username=alice&password=a", form, `"op":"login","result":"ok"`},
		{"", "POST", "/token", "grant_type=password&username=alice&password=wrong", form, `"op":"login","result":"rejected"`},
		{"", "POST", "/token", "grant_type=refresh_token&refresh_token=x", form, `"op":"login","result":"rejected"`},
		// Wrong passwords elsewhere.
		{"alice:wrong", "GET", "/v2/", "", "", `"op":"ping","result":"rejected"`},
		{"alice:wrong", "HEAD", "/v2/", "", "", `"op":"ping","result":"rejected"`},
		{"alice:wrong", "GET", "/v2/zzz", "", "", `"user":"alice",`},
		{"alice:wrong", "HEAD", "/", "", "", `"user":"alice",`},
		{"alice:a", "GET", "/v2/zzz", "", "", ""},
		// Nothing in a request ends a line, or a string in it.
		{"al\"\n{}:a", "GET", "/v2/", "", "", `"user":"al\"\n{}"`},
	} {
		before, _ := os.ReadFile(name)
		r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		if user, password, ok := strings.Cut(test.user, ":"); ok {
			r.SetBasicAuth(user, password)
		}
		r.Header.Set("Content-Type", test.contentType)
		w := httptest.NewRecorder()
		s.Config.Handler.ServeHTTP(w, r)
		after, _ := os.ReadFile(name)
		line := strings.TrimPrefix(string(after), string(before))
		if test.want == "" && line != "" || test.want != "" && strings.Count(line, "\n") != 1 || !strings.Contains(line, test.want) {
			t.Errorf("%s %s by %q, %d: %swant %s", test.method, test.path, test.user, w.Code, line, test.want)
		}
	}
}
