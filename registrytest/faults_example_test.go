// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// The registry is unavailable for the first request of a tag list. The other rule
// has no effect, since the client pulls no blob.
func ExampleFaults() {
	faults := registrytest.NewFaults(
		registrytest.Rule{Op: registry.OpTags, Nth: 1, Fault: registrytest.Respond(503, "unavailable")},
		registrytest.Rule{Op: registry.OpBlobGet, Fault: registrytest.Disconnect(100)},
	)
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(registry.New()))}
	for range 2 {
		resp, err := client.Get("http://registry.example/v2/repo/tags/list")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	for _, rule := range faults.Unfired() {
		fmt.Println("unfired:", rule.Op)
	}
	// Output:
	// 503 Service Unavailable
	// 404 Not Found
	// unfired: blob-get
}
