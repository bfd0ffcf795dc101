// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// TestCopyReportsFailures checks that broken content is reported, and all else
// copied.
func TestCopyReportsFailures(t *testing.T) {
	good := new(registry.MemStore)
	fillAllKinds(t, good)
	work := t.TempDir()
	dir, err := ocidir.Open(work, nil)
	if err != nil {
		t.Fatal(err)
	}
	copyAll(t, good, dir)
	pushBlob(t, dir, "broken/list", "x")
	blob := pushBlob(t, dir, "broken/blob", "a blob")
	pushBlob(t, dir, "broken/blob", "another blob")
	manifest := pushManifest(t, dir, "broken/manifest", "text/plain", "a manifest", "", "tag")
	untagged := pushManifest(t, dir, "broken/manifest", "text/plain", "untagged", "")
	lost := pushManifest(t, dir, "broken/entry", "text/plain", "lost", "", "lost")
	dir.Close()
	corrupt := func(name, content string) {
		t.Helper()
		name = filepath.Join(work, filepath.FromSlash(name))
		os.Remove(name) // it has other links
		if err := os.WriteFile(name, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	corrupt("broken/list/index.json", "{")
	corrupt("broken/blob/blobs/sha256/"+blob.Encoded(), "a blob?")
	corrupt("broken/manifest/blobs/sha256/"+manifest.Encoded(), "a manifest?")

	corrupt("broken/manifest/blobs/sha256/"+untagged.Encoded(), "untagged?")
	corrupt("broken/entry/blobs/sha256/"+lost.Encoded(), "lost?")
	corrupt("broken/entry/.index.cache", "")

	to := filepath.Join(t.TempDir(), "to")
	var stdout, stderr bytes.Buffer
	if status := run([]string{"copy", "dir:" + work, "dir:" + to}, &stdout, &stderr); status != 1 {
		t.Error("exit status", status)
	}
	for _, want := range []string{"broken/list: ", "broken/blob: blob " + blob.String() + ": corrupt in the source", "broken/manifest: tag tag: its manifest is missing or damaged in the source", "broken/manifest: manifest " + untagged.String() + ": it is missing or damaged in the source", `broken/entry: an entry of index.json can't be read: {"mediaType":"text/plain","digest":"` + lost.String(), "the copy is incomplete: see the failures above (7)"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in the output:\n%s", want, &stderr)
		}
	}
	pushBlob(t, good, "broken/blob", "another blob") // which is intact
	checkSame(t, good, ocidir.FS(os.DirFS(to)))
}

// partlyBroken fails to open some manifests and blobs.
type partlyBroken struct {
	registry.Store
	broken map[digest.Digest]error
}

func (s partlyBroken) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	m, err := s.Store.GetManifest(ctx, repo, d)
	return m, errors.Join(err, s.broken[d])
}

func (s partlyBroken) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if err := s.broken[d]; err != nil {
		return nil, err
	}
	return s.Store.OpenBlob(ctx, repo, d)
}

func TestCopyContinuesAfterFailures(t *testing.T) {
	from := new(registry.MemStore)
	blob := pushBlob(t, from, "a", "blob")
	pushBlob(t, from, "a", "good blob")
	manifest := pushManifest(t, from, "a", "text/plain", "manifest", "")
	pushManifest(t, from, "a", "text/plain", "good manifest", "")
	pushBlob(t, from, "b", "good blob")
	to := new(registry.MemStore)
	job := copyAll(t, partlyBroken{from, map[digest.Digest]error{blob: registry.ErrUnavailable, manifest: fs.ErrPermission}}, to)
	if got := strings.Join(job.failures.list, "\n"); !strings.Contains(got, "a: blob "+blob.String()) || !strings.Contains(got, "a: manifest "+manifest.String()) || len(job.failures.list) != 2 {
		t.Errorf("failures:\n%s", got)
	}
	copyAll(t, from, to)
	checkSame(t, from, to)
}

// fullStore is a destination without space.
type fullStore struct{ registry.Store }

func (s fullStore) CreateUpload(context.Context, string, registry.UploadOptions) (registry.Upload, error) {
	return nil, registry.ErrTooLarge
}

func TestCopyEndsIfTheDestinationIsFull(t *testing.T) {
	from := new(registry.MemStore)
	pushBlob(t, from, "a", "blob")
	c := newCopier(2)
	c.from, c.to = from, fullStore{new(registry.MemStore)}
	if err := c.list(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.run(t.Context(), newScreen(io.Discard)); !errors.Is(err, registry.ErrTooLarge) {
		t.Error(err)
	}
}

// killedStore is a destination like a bucket after pushes were killed: it lacks
// entries of referrers, and the name of a repository.
type killedStore struct {
	*registry.MemStore
	mu       sync.Mutex               // guards the fields below
	referrer map[digest.Digest]string // repositories whose lists lack the referrer
	repo     string                   // not listed
}

func (s *killedStore) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		for r, err := range s.MemStore.Referrers(ctx, repo, subject, after) {
			s.mu.Lock()
			hidden := s.referrer[r.Digest] == repo
			s.mu.Unlock()
			if !hidden && !yield(r, err) {
				return
			}
		}
	}
}

func (s *killedStore) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.MemStore.Repositories(ctx, after) {
			s.mu.Lock()
			hidden := s.repo == name
			s.mu.Unlock()
			if !hidden && !yield(name, err) {
				return
			}
		}
	}
}

func (s *killedStore) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.referrer[m.Digest] == repo {
		delete(s.referrer, m.Digest)
	}
	if s.repo == repo {
		s.repo = ""
	}
	return s.MemStore.PutManifest(ctx, repo, m, tags, allow)
}

func TestCopyCompletesKilledPushes(t *testing.T) {
	from := new(registry.MemStore)
	fillAllKinds(t, from)
	to := &killedStore{MemStore: new(registry.MemStore), repo: "no/tags", referrer: make(map[digest.Digest]string)}
	copyAll(t, from, to.MemStore)
	subject := digest.FromString("nowhere")
	for r := range from.Referrers(t.Context(), "images/multi", subject, "") {
		to.referrer[r.Digest] = "images/multi"
	}
	copyAll(t, from, to)
	checkSame(t, from, to)
	if len(to.referrer) > 0 || to.repo != "" {
		t.Errorf("not completed: %v, %q", to.referrer, to.repo)
	}
}
