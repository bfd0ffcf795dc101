// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// A registry that is out of order the first time it is asked for a list of
// tags.
func ExampleFaults() {
	faults := registrytest.NewFaults(
		registrytest.Rule{Op: registry.OpTags, Nth: 1, Fault: registrytest.Answer(503, "out of order")},
		registrytest.Rule{Op: registry.OpBlobGet, Fault: registrytest.Cut(100, false)},
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
		fmt.Println("nobody did:", rule.Op)
	}
	// Output:
	// 503 Service Unavailable
	// 404 Not Found
	// nobody did: blob-get
}
