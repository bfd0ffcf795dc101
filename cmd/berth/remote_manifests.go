// SPDX-License-Identifier: Apache-2.0

// The manifests, tags and lists of a running registry.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berth-oci/registry"
)

// maxManifest is the size of the largest manifest, and of a page of a list, that is
// read.
const maxManifest = 16 << 20

// maxCachedManifests bounds the bytes of manifests that a remote keeps.
const maxCachedManifests = 32 << 20

// manifestTypes are the types of manifests that are asked for.
var manifestTypes = []string{
	ocispec.MediaTypeImageIndex + ", " + ocispec.MediaTypeImageManifest + ", " + typeDockerList + ", " + typeDockerManifest +
		", application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, application/vnd.docker.distribution.manifest.v1+json, */*",
}

func (s *remote) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	key := repo + "@" + d.String()
	s.mu.Lock()
	m, ok := s.manifests[key]
	s.mu.Unlock()
	if ok {
		return m, nil
	}
	return s.manifest(ctx, repo, d.String())
}

func (s *remote) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	return s.manifest(ctx, repo, tag)
}

// manifest gets a manifest by its tag or digest.
func (s *remote) manifest(ctx context.Context, repo, reference string) (registry.Manifest, error) {
	resp, err := s.do(ctx, request{method: "GET", repo: repo, path: "manifests/" + reference, header: http.Header{"Accept": manifestTypes}, want: *registry.ErrManifestUnknown})
	if err != nil {
		return registry.Manifest{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	switch {
	case err != nil:
		return registry.Manifest{}, fmt.Errorf("%s:%s: %w", repo, reference, requestError(ctx, unreachable{err}))
	case len(content) > maxManifest:
		return registry.Manifest{}, fmt.Errorf("%s:%s has more than %d bytes", repo, reference, maxManifest)
	}
	m := registry.Manifest{Content: content}
	if m.MediaType, _, err = mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil {
		return registry.Manifest{}, fmt.Errorf("the Content-Type of %s:%s: %w", repo, reference, err)
	}
	want := digest.Digest(reference)
	if want.Validate() != nil {
		want = digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	}
	if m.Digest, err = digestOf(m, want); err != nil {
		return registry.Manifest{}, fmt.Errorf("%s:%s: %w", repo, reference, err)
	}
	s.remember(repo, registry.Info{Digest: m.Digest, Size: int64(len(content))})
	s.cache(repo, m)
	return m, nil
}

// digestOf returns the digest of a manifest, and an error if it is not want, unless
// that is "".
func digestOf(m registry.Manifest, want digest.Digest) (digest.Digest, error) {
	algorithm := digest.Canonical
	if want != "" {
		if err := want.Validate(); err != nil {
			return "", fmt.Errorf("digest %q: %w", clean(want.String()), err)
		}
		algorithm = want.Algorithm()
	}
	d := algorithm.FromBytes(m.Content)
	if d != want && algorithm == digest.Canonical {
		if parsed, err := registry.ParseManifest(m.MediaType, m.Content); err == nil {
			d = parsed.Digest // of the payload of a signed manifest
		}
	}
	if want != "" && d != want {
		return "", fmt.Errorf("corrupt: the content has the digest %s instead of %s", d, want)
	}
	return d, nil
}

// cache keeps a manifest.
func (s *remote) cache(repo string, m registry.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := repo + "@" + m.Digest.String()
	if _, ok := s.manifests[key]; ok {
		return
	}
	if s.cached+len(m.Content) > maxCachedManifests {
		clear(s.manifests)
		s.cached = 0
	}
	s.manifests[key] = m
	s.cached += len(m.Content)
}

func (s *remote) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	return s.stat(ctx, repo, "manifests/", d, *registry.ErrManifestUnknown)
}

// stat asks whether content exists.
func (s *remote) stat(ctx context.Context, repo, path string, d digest.Digest, unknown registry.Error) (registry.Info, error) {
	if info, ok := s.recall(repo, d); ok {
		return info, nil
	}
	resp, err := s.do(ctx, request{method: "HEAD", repo: repo, path: path + d.String(), header: http.Header{"Accept": manifestTypes}, want: unknown})
	if err != nil {
		return registry.Info{}, err
	}
	resp.Body.Close()
	info := registry.Info{Digest: d, Size: resp.ContentLength}
	s.remember(repo, info)
	return info, nil
}

// PutManifest pushes a manifest with each of its tags. To a registry without the
// referrers API, oras also pushes the list of referrers as a tag.
func (s *remote) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	if allow != nil {
		return registry.ErrUnsupported
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Content))}
	manifests := s.repository(repo).Manifests()
	var err error
	switch {
	case m.Digest.Algorithm() != digest.Canonical && len(tags) > 0:
		err = s.putWithTags(ctx, repo, m, tags)
	case len(tags) == 0:
		err = manifests.Push(ctx, desc, bytes.NewReader(m.Content))
	}
	if m.Digest.Algorithm() == digest.Canonical {
		for _, tag := range tags {
			if err == nil {
				err = manifests.PushReference(ctx, desc, bytes.NewReader(m.Content), tag)
			}
		}
	}
	if err != nil {
		return orasError(ctx, err, *registry.ErrManifestUnknown)
	}
	s.remember(repo, registry.Info{Digest: m.Digest, Size: desc.Size})
	return nil
}

// putWithTags pushes a manifest by its digest, with tags: a push by a tag would give it
// a SHA-256 digest.
func (s *remote) putWithTags(ctx context.Context, repo string, m registry.Manifest, tags []string) error {
	resp, err := s.do(ctx, request{
		method: "PUT", repo: repo, path: "manifests/" + m.Digest.String(), query: url.Values{"tag": tags},
		header: http.Header{"Content-Type": {m.MediaType}}, body: bytes.NewReader(m.Content),
	})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if len(resp.Header.Values("OCI-Tag")) < len(tags) {
		return fmt.Errorf("%w: the registry can't tag a manifest with a %s digest", registry.ErrManifestInvalid, m.Digest.Algorithm())
	}
	return nil
}

// orasError returns an error of oras as one of package registry.
func orasError(ctx context.Context, err error, notFound registry.Error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errdef.ErrNotFound) {
		return fmt.Errorf("%w: %w", &notFound, err)
	}
	var e *errcode.ErrorResponse
	if errors.As(err, &e) {
		return orasResponseError(e, notFound)
	}
	return requestError(ctx, err)
}

// orasResponseError returns the error in a response that oras has read.
func orasResponseError(e *errcode.ErrorResponse, notFound registry.Error) error {
	resp := &http.Response{StatusCode: e.StatusCode, Status: fmt.Sprint(e.StatusCode, " ", http.StatusText(e.StatusCode)), Request: &http.Request{Method: e.Method, URL: e.URL}}
	body, _ := json.Marshal(map[string]any{"errors": e.Errors})
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return responseError(resp, notFound)
}

func (s *remote) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	m, err := s.GetManifest(ctx, repo, d)
	if err != nil {
		return err
	}
	s.forget(repo, d)
	err = s.repository(repo).Manifests().Delete(ctx, ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(m.Content))})
	if err != nil {
		return orasError(ctx, err, *registry.ErrManifestUnknown)
	}
	return nil
}

func (s *remote) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	if allow != nil {
		return registry.ErrUnsupported
	}
	return s.drop(ctx, request{method: "DELETE", repo: repo, path: "manifests/" + tag, want: *registry.ErrManifestUnknown})
}

// errStopped ends a list early.
var errStopped = errors.New("stopped")

// maxPages is the number of pages of a list that are read.
const maxPages = 10_000

// pages yields what a list of oras passes to a function, page by page. A list whose
// pages link to each other is an error.
func pages[T comparable](ctx context.Context, notFound registry.Error, list func(func([]T) error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n, begins := 0, make(map[T]bool) // the first elements of pages
		err := list(func(page []T) error {
			if n++; n > maxPages {
				return fmt.Errorf("the registry's list has more than %d pages", maxPages)
			}
			if len(page) > 0 {
				if begins[page[0]] {
					return errors.New("the registry's list repeats itself")
				}
				begins[page[0]] = true
			}
			for _, v := range page {
				if !yield(v, nil) {
					return errStopped
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			var zero T
			yield(zero, orasError(ctx, err, notFound))
		}
	}
}

func (s *remote) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	list := pages(ctx, *registry.ErrNameUnknown, func(f func([]string) error) error { return s.repository(repo).Tags(ctx, after, f) })
	return only(list, func(tag string) (string, bool) { return tag, tag > after && validTag(tag) })
}

// only yields the elements that keep accepts, as it changes them.
func only(list iter.Seq2[string, error], keep func(string) (string, bool)) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for v, err := range list {
			ok := true
			if err == nil {
				v, ok = keep(v)
			}
			if ok && !yield(v, err) {
				return
			}
		}
	}
}

func (s *remote) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	last := s.prefix + after
	if after == "" {
		last = strings.TrimSuffix(s.prefix, "/")
	}
	list := pages(ctx, registry.Error{Status: 404, Code: registry.ErrUnsupported.Code, Message: "the registry has no list of repositories: name them"},
		func(f func([]string) error) error { return s.reg.Repositories(ctx, last, f) })
	return only(list, func(name string) (string, bool) {
		name, ok := strings.CutPrefix(name, s.prefix)
		return name, ok && name > after && validRepo(name)
	})
}

func (s *remote) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		var all []ocispec.Descriptor
		err := s.repository(repo).Referrers(ctx, ocispec.Descriptor{Digest: subject}, "", func(page []ocispec.Descriptor) error {
			all = append(all, page...)
			return nil
		})
		if err != nil {
			if err = orasError(ctx, err, *registry.ErrNameUnknown); !isUnknown(err) {
				yield(registry.Referrer{}, err)
			}
			return
		}
		slices.SortFunc(all, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
		for _, d := range all {
			if d.Digest <= after || d.Digest.Validate() != nil {
				continue
			}
			entry, err := json.Marshal(d)
			if !yield(registry.Referrer{Digest: d.Digest, ArtifactType: d.ArtifactType, Descriptor: entry}, err) {
				return
			}
		}
	}
}

// walkTags finds the content of a repository that tags lead to.
func (s *remote) walkTags(ctx context.Context, repo string) (*closure, error) {
	var roots []reference
	for tag, err := range s.Tags(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		m, err := s.GetTag(ctx, repo, tag)
		if isUnknown(err) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		roots = append(roots, reference{MediaType: m.MediaType, Digest: m.Digest})
	}
	return walk(ctx, repoSource{s, repo}, roots, true)
}

func (s *remote) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		c, err := s.walkTags(ctx, repo)
		if err != nil {
			yield(registry.Info{}, err)
			return
		}
		for _, d := range sortedKeys(c.manifests) {
			if d > after && !yield(registry.Info{Digest: d, Size: c.manifests[d].Size}, nil) {
				return
			}
		}
	}
}

func (s *remote) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		c, err := s.walkTags(ctx, repo)
		if err != nil {
			yield(registry.Info{}, err)
			return
		}
		for _, d := range sortedKeys(c.blobs) {
			if d > after && !yield(registry.Info{Digest: d, Size: max(0, c.blobs[d].size)}, nil) {
				return
			}
		}
	}
}
