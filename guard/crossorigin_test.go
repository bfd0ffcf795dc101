// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package guard_test

import (
	"net/http/httptest"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/guard"
)

// TestCrossOriginPushesAreRejected sends the requests of web pages and of other
// clients.
func TestCrossOriginPushesAreRejected(t *testing.T) {
	h := guard.CrossOrigin()(registry.New())
	for _, c := range []struct {
		name, method string
		header       map[string]string
		status       int
	}{
		{"no_browser", "POST", nil, 202},
		{"same_origin", "POST", map[string]string{"Sec-Fetch-Site": "same-origin"}, 202},
		{"user_initiated", "POST", map[string]string{"Sec-Fetch-Site": "none"}, 202},
		{"old_browser_same_origin", "POST", map[string]string{"Origin": "http://example.com"}, 202},
		{"cross_site", "POST", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{"same_site", "POST", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"old_browser_cross_site", "POST", map[string]string{"Origin": "http://attacker.example"}, 403},
		{"link", "HEAD", map[string]string{"Sec-Fetch-Site": "cross-site"}, 405},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "http://example.com/v2/a/blobs/uploads/", nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, c.status), qt.Commentf("%s", w.Body))
			if w.Code == 403 {
				qt.Check(t, qt.StringContains(w.Body.String(), `"code":"DENIED"`))
			}
		})
	}
}
