// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/berth-oci/registry"
)

var (
	scaleTags = flag.Int("copy-tags", 200, "number of tags that TestCopyScale copies")
	scaleTo   = flag.String("copy-to", "dir:", "kind of store that TestCopyScale copies to: dir:, file:// or mem:")
)

// TestCopyScale copies a repository, and prints how long it takes with half of its
// tags, with all, and when there is nothing to copy. With many tags:
//
//	go test -v -timeout 20m -run TestCopyScale ./cmd/berth -copy-tags=10000
func TestCopyScale(t *testing.T) {
	half := timeCopies(t, *scaleTags/2)
	all := timeCopies(t, *scaleTags)
	t.Logf("%d tags take %.2f times as long as %d", *scaleTags, all.Seconds()/half.Seconds(), *scaleTags/2)
}

func timeCopies(t *testing.T, tags int) (first time.Duration) {
	t.Helper()
	from := new(registry.MemStore)
	for n := range tags {
		layer := pushBlob(t, from, "big", fmt.Sprint("layer ", n))
		image := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"digest":%q}]}`, pushBlob(t, from, "big", "{}"), layer)
		pushManifest(t, from, "big", "application/vnd.oci.image.manifest.v1+json", image, "", fmt.Sprint("t", n))
	}
	name := *scaleTo
	if name != "mem:" {
		name += filepath.Join(t.TempDir(), "to")
	}
	if *scaleTo == "file://" {
		name += "?create_dir=1"
	}
	to, closer, err := openStore(t.Context(), name, storeOptions{warn: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	var took [2]time.Duration
	for i := range took {
		began := time.Now()
		job := copyAll(t, from, to)
		took[i] = time.Since(began)
		if err := job.failures.err(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d tags: %v; when there is nothing to copy: %v, %.1f times as fast", tags, took[0], took[1], took[0].Seconds()/took[1].Seconds())
	return took[0]
}
