// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// A client looks for a manifest with a password. The tape has the conversation, without
// the password, and replays it without the registry.
func ExampleRecord() {
	look := func(client *http.Client, host string) string {
		req, err := http.NewRequest("GET", "https://"+host+"/v2/app/manifests/v1", nil)
		if err != nil {
			return err.Error()
		}
		req.SetBasicAuth("alice", "correct horse")
		resp, err := client.Do(req)
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		return resp.Status
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	dir = filepath.Join(dir, "tape") // in a test: testdata/tape

	var recorded, replayed string
	inTest(func(t *testing.T) {
		tape := registrytest.Record(t, "https://registry.example", dir, &registrytest.TapeOptions{
			Transport: registrytest.Transport(registry.New()), // by default, the network
		})
		recorded = look(&http.Client{Transport: tape}, tape.Host)
	})
	text, err := os.ReadFile(filepath.Join(dir, "tape.txt"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s\n", text)
	inTest(func(t *testing.T) {
		tape := registrytest.Replay(t, os.DirFS(dir), nil)
		replayed = look(&http.Client{Transport: tape}, tape.Host)
	})
	fmt.Println("recorded:", recorded)
	fmt.Println("replayed:", replayed)
	// Output:
	// registrytest tape 1
	// registry https://registry.example
	//
	// > GET https://registry.example/v2/app/manifests/v1
	// > Authorization: Basic
	// < 404
	// < Content-Type: application/json
	// < Docker-Distribution-Api-Version: registry/2.0
	// <| {"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}
	//
	// recorded: 404 Not Found
	// replayed: 404 Not Found
}
