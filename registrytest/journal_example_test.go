// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// This client pushes a blob twice, and never checks whether the registry has it.
func ExampleJournal() {
	journal := new(registrytest.Journal) // in a test: registrytest.NewJournal(t)
	client := &http.Client{Transport: registrytest.Transport(journal.Handler(registry.New()))}

	d := digest.FromString("data")
	for range 2 {
		resp, err := client.Post("http://registry.example/v2/repo/blobs/uploads/?digest="+d.String(), "application/octet-stream", strings.NewReader("data"))
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
	}
	fmt.Println("requests:", journal.Count())
	fmt.Println("blobs pushed:", len(journal.BlobsPushed()))
	fmt.Println("of which unchecked:", len(journal.BlobsPushedUnchecked()))
	// Output:
	// requests: 2
	// blobs pushed: 2
	// of which unchecked: 2
}
