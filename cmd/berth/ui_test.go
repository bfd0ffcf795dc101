// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// TestWebPagesCannotUseThePage sends the requests of web pages to the page of a server on
// loopback, also of pages whose name the browser resolves to a loopback address.
func TestWebPagesCannotUseThePage(t *testing.T) {
	s := serveHandler(t, serveCmd{loopback: true, UI: "auto", Host: []string{"Registry.Example"}})
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	navigation := http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	frame := http.Header{"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}}
	for _, c := range []struct {
		name, method, path, host string
		header                   http.Header
		want                     int
	}{
		{"address", "GET", "", "127.0.0.1:" + port, nil, 200},
		{"localhost", "GET", "api/requests", "localhost:" + port, nil, 200},
		{"IPv6", "GET", "", "[::1]:" + port, nil, 200},
		{"name_without_a_dot", "GET", "", "berth:5000", nil, 200},
		{"flag", "GET", "", "registry.example:" + port, nil, 200},
		{"own_origin", "GET", "api/requests", "localhost", http.Header{"Origin": {"http://localhost"}, "Sec-Fetch-Site": {"same-origin"}}, 200},
		{"link", "GET", "", "localhost", navigation, 200},

		{"rebound_name", "GET", "", "attacker.example:" + port, nil, 421},
		{"rebound_data", "GET", "api/requests", "attacker.example", http.Header{"Sec-Fetch-Site": {"same-origin"}}, 421},
		{"rebound_events", "GET", "events", "attacker.example", http.Header{"Origin": {"http://attacker.example"}}, 421},
		{"rebound_script", "GET", "script.js", "attacker.example", nil, 421},
		{"rebound_deletion", "DELETE", "api/manifest?repo=a&ref=v1", "attacker.example", nil, 421},
		{"name_below_an_allowed_one", "GET", "", "localhost.attacker.example", nil, 421},
		{"other_address", "GET", "", "192.168.1.5", nil, 421},
		{"unspecified_address", "GET", "", "0.0.0.0:" + port, nil, 421},
		{"cross_site_data", "GET", "api/requests", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"other_port", "GET", "api/requests", "localhost:" + port, http.Header{"Sec-Fetch-Site": {"same-site"}}, 403},
		{"cross_origin_data", "GET", "api/requests", "localhost", http.Header{"Origin": {"https://attacker.example"}}, 403},
		{"cross_site_events", "GET", "events", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"cross_site_deletion", "DELETE", "api/manifest?repo=a&ref=v1", "localhost", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"link_to_data", "GET", "api/requests", "localhost", navigation, 403},
		{"frame", "GET", "", "localhost", frame, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, s.URL+"/inspect/"+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			if c.header != nil {
				req.Header = c.header.Clone()
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.want {
				body, _ := io.ReadAll(resp.Body)
				t.Errorf("%s, want %d: %s", resp.Status, c.want, body)
			}
		})
	}
}

// TestStreamsEndWithAReload checks that a user who has been removed does not see what happens
// after that.
func TestStreamsEndWithAReload(t *testing.T) {
	c := serveCmd{loopback: true, UI: "auto", User: []string{"alice:wonderland"}, store: new(registry.MemStore)}
	s, err := c.newServer((&serveCmd{}).openLog(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	server := httptest.NewServer(s.handler(t.Context()))
	defer server.Close()
	get := func() *http.Response {
		req, _ := http.NewRequest("GET", server.URL+"/inspect/events", nil)
		req.SetBasicAuth("alice", "wonderland")
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := get()
	defer resp.Body.Close()
	stream := bufio.NewReader(resp.Body)
	if line, err := stream.ReadString('\n'); err != nil || !strings.HasPrefix(line, "id: ") {
		t.Fatal(line, err)
	}
	changed := c
	changed.User = []string{"bob:builder"}
	if err := s.configure(&changed); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(stream); err != nil { // it ends
		t.Error(err)
	}
	again := get()
	again.Body.Close()
	if again.StatusCode != 401 {
		t.Error(again.Status)
	}
}
