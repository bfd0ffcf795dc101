// SPDX-License-Identifier: Apache-2.0

// Repositories, and what is in one.

package inspect

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

const (
	pageNames  = 100   // of repositories
	pageTags   = 50    // whose manifests are read
	maxScanned = 20000 // names that are searched
	maxItems   = 2000  // manifests of a repository that are looked at
	maxCounted = 100000
	maxRead    = 32 << 20 // bytes of manifests that a list reads
)

// list is a page of a list.
type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"` // the parameter after of the next page
	More  bool   `json:"more,omitempty"` // there are more items that the page can't get
}

// getRepositories returns a page of the repositories whose names contain q.
func (i *Inspector) getRepositories(r *http.Request) (any, error) {
	result, scanned := list[string]{Items: []string{}}, 0
	all := i.allowCatalog(r.Context()) == nil
	q := strings.ToLower(r.URL.Query().Get("q"))
	for name, err := range i.store.Repositories(r.Context(), r.URL.Query().Get("after")) {
		if err != nil {
			return nil, err
		}
		scanned++
		if strings.Contains(name, q) && (all || i.mayPull(r.Context(), name)) {
			result.Items = append(result.Items, name)
		}
		if len(result.Items) == pageNames || scanned == maxScanned {
			result.Next = name
			break
		}
	}
	return result, nil
}

// image is what the page shows of a manifest in a list.
type image struct {
	Tag       string        `json:"tag,omitempty"`
	Digest    digest.Digest `json:"digest,omitempty"`
	MediaType string        `json:"mediaType,omitempty"`
	Size      int64         `json:"size"` // of the manifest, its config and its layers; 0 for an index
	Platforms []string      `json:"platforms,omitempty"`
	Artifact  string        `json:"artifact,omitempty"` // its artifact type
	Subject   digest.Digest `json:"subject,omitempty"`
	Error     string        `json:"error,omitempty"`
}

// getRepository returns a page of the tags of a repository.
func (i *Inspector) getRepository(r *http.Request) (any, error) {
	ctx, query := r.Context(), r.URL.Query()
	repo, err := i.repo(r)
	if err != nil {
		return nil, err
	}
	result := list[image]{Items: []image{}}
	q, scanned := strings.ToLower(query.Get("q")), 0
	for tag, err := range i.store.Tags(ctx, repo, query.Get("after")) {
		if err != nil {
			return nil, err
		}
		scanned++
		if strings.Contains(strings.ToLower(tag), q) {
			result.Items = append(result.Items, image{Tag: tag})
		}
		if len(result.Items) == pageTags || scanned == maxScanned {
			result.Next = tag
			break
		}
	}
	i.describeTags(ctx, repo, result.Items)
	return result, nil
}

// describeTags fills in what tags point at.
func (i *Inspector) describeTags(ctx context.Context, repo string, tags []image) {
	for n := range tags {
		tags[n].Error = errTooMuch.Error() // until it has been read
	}
	readEach(len(tags), func(n int) registry.Manifest {
		m, err := i.store.GetTag(ctx, repo, tags[n].Tag)
		tags[n] = describe(m, err, tags[n].Tag)
		return m
	})
}

// firstTags returns the first tags of a repository, and whether there are more.
func (i *Inspector) firstTags(ctx context.Context, repo string, most int) (tags []image, more bool, err error) {
	for tag, err := range i.store.Tags(ctx, repo, "") {
		if err != nil {
			return nil, false, err
		}
		if len(tags) == most {
			return tags, true, nil
		}
		tags = append(tags, image{Tag: tag})
	}
	return tags, false, nil
}

// readEach calls read for each number below n, for some at once, until it has returned more
// than maxRead bytes in all. It reports whether it has.
func readEach(n int, read func(int) registry.Manifest) (tooMuch bool) {
	var bytes atomic.Int64
	each(n, func(k int) {
		if bytes.Load() <= maxRead {
			bytes.Add(int64(len(read(k).Content)))
		}
	})
	return bytes.Load() > maxRead
}

var errTooMuch = &registry.Error{Status: http.StatusRequestEntityTooLarge, Message: "the manifests of this list are too large for the page"}

// each calls do for each number below n, for some at once.
func each(n int, do func(int)) {
	var wait sync.WaitGroup
	next := make(chan int)
	for range min(n, 8) {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for k := range next {
				do(k)
			}
		}()
	}
	for k := range n {
		next <- k
	}
	close(next)
	wait.Wait()
}

// describe returns what the page shows of a manifest in a list.
func describe(m registry.Manifest, err error, tag string) image {
	if err != nil {
		return image{Tag: tag, Error: publicText(err)}
	}
	doc := parse(m)
	described := image{
		Tag:       tag,
		Digest:    m.Digest,
		MediaType: m.MediaType,
		Size:      int64(len(m.Content)),
		Artifact:  clip(doc.artifactType()),
	}
	if len(doc.Manifests) > 0 {
		described.Size = 0 // that of its platforms is not known without reading them
	}
	if doc.Subject != nil && doc.Subject.Digest.Validate() == nil {
		described.Subject = doc.Subject.Digest
	}
	for _, d := range doc.Manifests {
		if p := platform(d.Platform); p != "" && len(described.Platforms) < 20 {
			described.Platforms = append(described.Platforms, p)
		}
	}
	for _, d := range doc.blobs() {
		if d.Size > 0 && d.Size < 1<<50 {
			described.Size += d.Size
		}
	}
	return described
}

// platform returns a platform as clients write it, such as linux/arm64/v8, "" for none.
func platform(p *ocispec.Platform) string {
	if p == nil || p.OS == "unknown" { // as BuildKit marks attestations
		return ""
	}
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return clip(name)
}

// getUntagged returns the manifests of a repository that have no tags, unless they belong to
// an index: they may be referrers, or garbage.
func (i *Inspector) getUntagged(r *http.Request) (any, error) {
	ctx := r.Context()
	repo, err := i.repo(r)
	if err != nil {
		return nil, err
	}
	result := list[image]{Items: []image{}}
	tags, more, err := i.firstTags(ctx, repo, maxItems)
	if err != nil {
		return nil, err
	}
	result.More = more
	i.describeTags(ctx, repo, tags)
	tagged := make(map[digest.Digest]bool)
	for _, tag := range tags {
		tagged[tag.Digest] = true
	}

	var found []digest.Digest
	for info, err := range i.store.Manifests(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if len(found) == maxItems {
			result.More = true
			break
		}
		found = append(found, info.Digest)
	}
	images := make([]image, len(found))
	children := make([][]digest.Digest, len(found))
	tooMuch := readEach(len(found), func(n int) registry.Manifest {
		m, err := i.store.GetManifest(ctx, repo, found[n])
		images[n] = describe(m, err, "")
		for _, child := range parse(m).Manifests {
			children[n] = append(children[n], child.Digest)
		}
		return m
	})
	parents := make(map[digest.Digest]int)
	for _, child := range slices.Concat(children...) {
		parents[child]++
	}
	result.More = result.More || tooMuch
	for n, d := range found {
		if images[n].Digest == d && !tagged[d] && parents[d] == 0 {
			result.Items = append(result.Items, images[n])
		}
	}
	return result, nil
}

// usage counts what a repository holds.
type usage struct {
	Blobs     int   `json:"blobs"`
	Manifests int   `json:"manifests"`
	Bytes     int64 `json:"bytes"`
	More      bool  `json:"more,omitempty"` // only a part was counted
}

// getUsage counts the content of a repository.
func (i *Inspector) getUsage(r *http.Request) (any, error) {
	repo, err := i.repo(r)
	if err != nil {
		return nil, err
	}
	var u usage
	for info, err := range i.store.Blobs(r.Context(), repo, "") {
		if err != nil {
			return nil, err
		}
		if u.More = u.Blobs == maxCounted; u.More {
			break
		}
		u.Blobs++
		u.Bytes += info.Size
	}
	for info, err := range i.store.Manifests(r.Context(), repo, "") {
		if err != nil {
			return nil, err
		}
		if u.Manifests == maxCounted {
			u.More = true
			break
		}
		u.Manifests++
		u.Bytes += info.Size
	}
	return u, nil
}

// repo returns the parameter repo, if it is a name and the user may pull from it.
func (i *Inspector) repo(r *http.Request) (string, error) {
	req, err := request(registry.OpTags, http.MethodGet, r.URL.Query().Get("repo"), "/tags/list")
	if err != nil {
		return "", err
	}
	return req.Repo, i.allow(r.Context(), auth.Pull, req)
}
