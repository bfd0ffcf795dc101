// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// TestMemory checks that --memory bounds requests in progress with every store:
// the registry derives the limit from a MemStore, the command from the flag.
func TestMemory(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags serveCmd
		want  int64
	}{
		{"unlimited", serveCmd{store: new(ocidir.Store)}, 0},
		{"mem", serveCmd{Memory: 1 << 30, store: new(registry.MemStore)}, 0},
		{"dir", serveCmd{Memory: 1 << 30, store: new(ocidir.Store)}, 128 << 20},
		{"dir_at_least_one_manifest", serveCmd{Memory: 64 << 20, store: new(ocidir.Store)}, 16<<20 + 16<<10},
		{"dir_small_manifests", serveCmd{Memory: 64 << 20, MaxManifest: 1 << 20, store: new(ocidir.Store)}, 8 << 20},
		{"dir_less_than_one_manifest", serveCmd{Memory: 1 << 20, store: new(ocidir.Store)}, 4<<20 + 16<<10},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.flags.limits().InFlightBytes; got != test.want {
				t.Errorf("%d bytes, want %d", got, test.want)
			}
		})
	}
	l := (&serveCmd{Memory: 1 << 20, Disk: 1 << 30, MaxUploads: 3}).memLimits()
	if l.TotalBytes != 1<<20+1<<30 || l.MemoryBytes != 1<<20 || l.Uploads != 3 {
		t.Errorf("%+v", l)
	}
}
