// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkClone forks a store with 1,000 manifests, and makes a first change
// to the fork.
func BenchmarkClone(b *testing.B) {
	ctx := context.Background()
	seed := new(MemStore)
	for i := range 1000 {
		content := fmt.Append(nil, i)
		m := Manifest{MediaType: "x/y", Digest: digest.FromBytes(content), Content: content}
		if err := seed.PutManifest(ctx, "a", m, []string{fmt.Sprint(i)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	for _, forks := range []int{1, 1000} {
		b.Run(fmt.Sprint(forks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				all := make([]*MemStore, forks) // a test suite's, all at once
				for i := range all {
					all[i] = seed.Clone()
					if err := all[i].DeleteTag(ctx, "a", "500", nil); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkNew makes an empty registry.
func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		New()
	}
}
