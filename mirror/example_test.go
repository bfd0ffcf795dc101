// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/seed"
)

func Example() {
	// A registry to mirror, which stops after the first pull.
	content := &registry.MemStore{}
	if _, err := seed.PushRandomImage(context.Background(), content, "library/app", "v1", 1, 3, 1000); err != nil {
		fmt.Println(err)
		return
	}
	upstream := httptest.NewServer(registry.New(registry.WithStore(content)))

	m, err := mirror.New(&registry.MemStore{}, mirror.Options{
		Upstreams: []mirror.Upstream{{Name: "docker.io", URL: upstream.URL, TTL: -1}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	server := httptest.NewServer(m.Handler(registry.New(registry.WithStore(m))))
	defer server.Close()

	pull := func() {
		resp, err := http.Get(server.URL + "/v2/app/manifests/v1?ns=docker.io")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Printf("%s, warnings: %s\n", resp.Status, resp.Header["Warning"])
	}
	pull()
	upstream.Close()
	pull()
	// Output:
	// 200 OK, warnings: []
	// 200 OK, warnings: [299 berth "the upstream docker.io can't be reached"]
}
