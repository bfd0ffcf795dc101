// SPDX-License-Identifier: Apache-2.0

// What repositories share.

package inspect

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

const (
	maxRepos = 50   // that are compared
	maxBlobs = 5000 // of each
	maxDrawn = 40   // blobs in the picture
)

// shared is what some repositories have in common.
type shared struct {
	Repos []sharing    `json:"repos"`
	Blobs []sharedBlob `json:"blobs"` // those of most bytes
	More  bool         `json:"more,omitempty"`
}

// sharing is what a repository has alone, and what others have too.
type sharing struct {
	Name   string `json:"name"`
	Alone  int64  `json:"alone"`
	Shared int64  `json:"shared"`
}

// sharedBlob is a blob in several repositories.
type sharedBlob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Repos  []int         `json:"repos"` // their numbers in Repos
}

// getShared compares the blobs of the first repositories, after a name.
func (i *Inspector) getShared(r *http.Request) (any, error) {
	ctx := r.Context()
	if err := i.allowCatalog(ctx); err != nil {
		return nil, err
	}
	result := shared{Repos: []sharing{}, Blobs: []sharedBlob{}}
	scanned := 0
	for name, err := range i.store.Repositories(ctx, r.URL.Query().Get("after")) {
		if err != nil {
			return nil, err
		}
		if scanned++; len(result.Repos) == maxRepos || scanned > maxScanned {
			result.More = true
			break
		}
		if i.mayPull(ctx, name) {
			result.Repos = append(result.Repos, sharing{Name: name})
		}
	}
	blobs := make([][]registry.Info, len(result.Repos))
	errs := make([]error, len(result.Repos))
	each(len(result.Repos), func(n int) {
		for info, err := range i.store.Blobs(ctx, result.Repos[n].Name, "") {
			if err != nil || len(blobs[n]) == maxBlobs {
				errs[n] = err
				break
			}
			blobs[n] = append(blobs[n], info)
		}
	})
	all := make(map[digest.Digest]*sharedBlob)
	for n := range blobs {
		if errs[n] != nil {
			result.More = true // it has been deleted meanwhile, or can't be read
		}
		for _, info := range blobs[n] {
			b := all[info.Digest]
			if b == nil {
				b = &sharedBlob{Digest: info.Digest, Size: info.Size}
				all[info.Digest] = b
			}
			b.Repos = append(b.Repos, n)
		}
	}
	for _, b := range all {
		if len(b.Repos) == 1 {
			result.Repos[b.Repos[0]].Alone += b.Size
			continue
		}
		for _, n := range b.Repos {
			result.Repos[n].Shared += b.Size
		}
		result.Blobs = append(result.Blobs, *b)
	}
	slices.SortFunc(result.Blobs, func(a, b sharedBlob) int {
		return cmp.Or(cmp.Compare(b.Size*int64(len(b.Repos)), a.Size*int64(len(a.Repos))), cmp.Compare(a.Digest, b.Digest))
	})
	result.Blobs = result.Blobs[:min(len(result.Blobs), maxDrawn)]
	return result, nil
}
