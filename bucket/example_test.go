// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// A registry in a bucket. Any number of processes may serve the same bucket.
func Example() {
	store, err := bucket.Open(context.Background(), "mem://", nil) // or "s3://name?region=eu-central-1"
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	for _, warning := range store.Warnings() {
		fmt.Println(warning)
	}
	if err := store.Check(context.Background()); err != nil {
		log.Fatal(err)
	}
	handler := registry.New(registry.WithStore(store))
	handler = store.Redirect(handler) // let clients pull blobs from the bucket itself, if it can sign URLs

	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/v2/_catalog", nil))
	fmt.Println(w.Body)
	// Output:
	// this kind of bucket has no conditional writes: only one process may use it at a time
	// {"repositories":[]}
}
