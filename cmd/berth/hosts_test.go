// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// TestWebPagesCannotUseALoopbackRegistry checks that a page whose name the browser
// resolves to a loopback address can neither pull nor push, nor a page that sends
// forms across origins, and that local clients can.
func TestWebPagesCannotUseALoopbackRegistry(t *testing.T) {
	s := serveHandler(t, serveCmd{loopback: true, Host: []string{"Registry.Example:5000"}})
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	for _, test := range []struct {
		name, method, host string
		header             http.Header
		want               int
	}{
		{"address", "POST", "127.0.0.1:" + port, nil, 202},
		{"localhost", "POST", "localhost:" + port, nil, 202},
		{"subdomain_of_localhost", "POST", "registry.localhost", nil, 202},
		{"name_without_a_dot", "POST", "kind-registry:5000", nil, 202},
		{"docker", "POST", "host.docker.internal:5000", nil, 202},
		{"podman", "POST", "host.containers.internal:5000", nil, 202},
		{"flag", "POST", "registry.example:" + port, nil, 202},
		{"rebound_name", "POST", "attacker.example:" + port, nil, 421},
		{"rebound_name_GET", "GET", "attacker.example", nil, 421},
		{"rebound_name_same_origin", "POST", "attacker.example", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 421},
		{"other_address", "POST", "192.168.1.5:5000", nil, 421},
		{"cross_site_form", "POST", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"cross_origin_form", "POST", "localhost", http.Header{"Origin": {"https://attacker.example"}}, 403},
		{"cross_site_GET", "GET", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 404},
		{"same_origin_form", "POST", "localhost", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 202},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := "/v2/a/blobs/uploads/"
			if test.method == "GET" {
				path = "/v2/a/tags/list"
			}
			req, err := http.NewRequest(test.method, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = test.host
			if test.header != nil {
				req.Header = test.header
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != test.want {
				t.Errorf("%s, want %d: %s", resp.Status, test.want, body)
			}
			if test.want == 421 && !strings.Contains(string(body), "--host=") {
				t.Errorf("%s does not name the flag", body)
			}
		})
	}
}

// TestHostFlag checks that --host is not ignored where it has no effect.
func TestHostFlag(t *testing.T) {
	for _, c := range []serveCmd{
		{Host: []string{"registry.example"}},
		{Host: []string{""}, loopback: true},
	} {
		c.store = new(registry.MemStore)
		if _, err := newHandler(t, &c, (&serveCmd{}).openLog(io.Discard)); err == nil || !strings.Contains(err.Error(), "--host requires") {
			t.Errorf("%v: %v", c.Host, err)
		}
	}
	s := serveHandler(t, serveCmd{})
	req, err := http.NewRequest("GET", s.URL+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "registry.example"
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}
