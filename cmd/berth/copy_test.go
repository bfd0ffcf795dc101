// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/seed"
)

// copyAll copies all of a store with a copier, and returns it.
func copyAll(t *testing.T, from, to registry.Store) *copier {
	t.Helper()
	c := newCopier(4)
	c.from, c.to = from, to
	if err := c.list(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := c.run(t.Context(), newScreen(io.Discard)); err != nil {
		t.Fatal(err)
	}
	return c
}

// contents returns all content of a store: a line for each tag, manifest, blob and
// referrer, and errors.
func contents(t *testing.T, s registry.Store) map[string]string {
	t.Helper()
	all := make(map[string]string)
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for repo, err := range s.Repositories(ctx, "") {
		check(err)
		all[repo] = "repository"
		for tag, err := range s.Tags(ctx, repo, "") {
			check(err)
			m, err := s.GetTag(ctx, repo, tag)
			check(err)
			all[repo+":"+tag] = m.Digest.String()
		}
		subjects := make(map[digest.Digest]bool)
		for info, err := range s.Manifests(ctx, repo, "") {
			check(err)
			m, err := s.GetManifest(ctx, repo, info.Digest)
			check(err)
			all[fmt.Sprint(repo, " manifest ", m.Digest)] = fmt.Sprint(m.MediaType, digest.FromBytes(m.Content), info.Size)
			subjects[m.Digest] = true
			subjects[namedBy(m.Content).Subject.Digest] = true
		}
		for info, err := range s.Blobs(ctx, repo, "") {
			check(err)
			content, err := s.OpenBlob(ctx, repo, info.Digest)
			check(err)
			d, err := info.Digest.Algorithm().FromReader(content)
			check(err)
			content.Close()
			all[fmt.Sprint(repo, " blob ", info.Digest)] = d.String()
		}
		for subject := range subjects {
			for referrer, err := range s.Referrers(ctx, repo, subject, "") {
				check(err)
				all[fmt.Sprint(repo, " referrer ", subject, referrer.Digest)] = referrer.ArtifactType + string(referrer.Descriptor)
			}
		}
	}
	return all
}

// checkSame checks that two stores have the same content.
func checkSame(t *testing.T, from, to registry.Store) {
	t.Helper()
	a, b := contents(t, from), contents(t, to)
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if a[k] != b[k] {
			t.Errorf("%s: %q in the source, %q in the copy", k, a[k], b[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(b)) {
		if _, ok := a[k]; !ok {
			t.Errorf("%s: only in the copy", k)
		}
	}
}

func pushBlob(t *testing.T, s registry.Store, repo, content string) digest.Digest {
	t.Helper()
	d := digest.FromString(content)
	if err := registry.PushBlob(t.Context(), s, repo, d, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return d
}

func pushManifest(t *testing.T, s registry.Store, repo, mediaType, content string, d digest.Digest, tags ...string) digest.Digest {
	t.Helper()
	m, err := registry.PushManifest(t.Context(), s, repo, registry.ManifestPush{MediaType: mediaType, Content: []byte(content), Digest: d, Tags: tags, Sparse: true})
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

// signedSchema1 is a Docker schema 1 manifest with a signature.
func signedSchema1(layer digest.Digest) string {
	payload := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"fsLayers\": [{\"blobSum\": %q}]", layer)
	header := fmt.Sprintf(`{"formatLength":%d,"formatTail":%q}`, len(payload), base64.RawURLEncoding.EncodeToString([]byte("\n}")))
	return payload + fmt.Sprintf(",\n   \"signatures\": [{\"protected\": %q}]\n}", base64.RawURLEncoding.EncodeToString([]byte(header)))
}

// fillAllKinds fills a store with content of all kinds.
func fillAllKinds(t *testing.T, s registry.Store) {
	t.Helper()
	_, err := seed.PushContent(t.Context(), s, "images/multi", seed.Content{
		Blobs: map[string]string{"layer": "layer of an image", "config": "{}", "bom": "an SBOM"},
		Manifests: map[string]seed.Manifest{
			"amd64":     {Config: "config", Layers: []string{"layer"}, Platform: "linux/amd64"},
			"arm64":     {Config: "config", Platform: "linux/arm64"},
			"index":     {Manifests: []string{"amd64", "arm64"}},
			"outer":     {Manifests: []string{"index"}},
			"untagged":  {Manifests: []string{"outer", "arm64"}},
			"alone":     {Layers: []string{"layer"}},
			"sbom":      {ArtifactType: "example/sbom", Layers: []string{"bom"}, Subject: "index"},
			"signature": {ArtifactType: "example/signature", Subject: "sbom"},
			"orphan":    {ArtifactType: "example/orphan", Subject: digest.FromString("nowhere").String()},
		},
		Tags: map[string]string{"latest": "index", "1.0": "index", "arm": "arm64", "outer": "outer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	pushBlob(t, s, "images/multi", "a blob that no manifest names")
	pushBlob(t, s, "blobs/only", "layer of an image")
	d512 := digest.SHA512.FromString("another algorithm")
	if err := registry.PushBlob(t.Context(), s, "blobs/only", d512, strings.NewReader("another algorithm")); err != nil {
		t.Fatal(err)
	}
	pushManifest(t, s, "no/tags", "text/plain", "any content", "")
	pushManifest(t, s, "no/tags", "text/plain", "any content", digest.SHA512.FromString("any content"))
	layer := pushBlob(t, s, "old", "old layer")
	pushManifest(t, s, "old", "application/vnd.docker.distribution.manifest.v1+prettyjws", signedSchema1(layer), "", "signed")
	sparse := `{"schemaVersion":2,"config":{"digest":"` + digest.FromString("x").String() + `"},"layers":[]}`
	pushManifest(t, s, "sparse", ocispec.MediaTypeImageManifest, sparse, "", "sparse")
	// A document that no push would store now.
	invalid := []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`)
	m := registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(invalid), Content: invalid}
	if err := s.PutManifest(t.Context(), "sparse", m, []string{"invalid"}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCopyCopiesEverything(t *testing.T) {
	from := new(registry.MemStore)
	fillAllKinds(t, from)
	to := new(registry.MemStore)
	first := copyAll(t, from, to)
	if err := first.failures.err(); err != nil {
		t.Error(err, first.failures.list)
	}
	checkSame(t, from, to)

	again := copyAll(t, from, to)
	if got := again.copied.String(); got != "0 tags, 0 manifests, 0 blobs" {
		t.Error("a second copy:", again)
	}
	if got, want := again.exists.String(), first.copied.String(); got != want {
		t.Errorf("existing after the first copy: %s, want %s", got, want)
	}
}

// TestCopyBetweenStores copies content of all kinds through each kind of store.
func TestCopyBetweenStores(t *testing.T) {
	from := new(registry.MemStore)
	fillAllKinds(t, from)
	work := t.TempDir()
	dir, err := ocidir.Open(filepath.Join(work, "dir"), nil)
	if err != nil {
		t.Fatal(err)
	}
	copyAll(t, from, dir)
	checkSame(t, from, dir)
	// The directory stays open: a source may be in use.
	bucketURL := "file://" + filepath.ToSlash(work) + "/bucket"
	if runtime.GOOS == "windows" {
		bucketURL = "file:///" + filepath.ToSlash(work) + "/bucket"
	}
	mustCopy(t, "dir:"+filepath.Join(work, "dir"), bucketURL+"?create_dir=1")
	mustCopy(t, bucketURL, "dir:"+filepath.Join(work, "back"))
	back := ocidir.FS(os.DirFS(filepath.Join(work, "back")))
	checkSame(t, from, back)
	dir.Close()
}

// mustCopy runs berth copy in this process, and returns its output.
func mustCopy(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"copy"}, args...), &stdout, &stderr); status != 0 {
		t.Fatalf("copy %q: exit status %d: %s", args, status, &stderr)
	}
	return stdout.String()
}

func TestCopyChanges(t *testing.T) {
	from, to := new(registry.MemStore), new(registry.MemStore)
	one := pushManifest(t, from, "a", "text/plain", "one", "", "moves", "stays")
	copyAll(t, from, to)
	pushManifest(t, to, "a", "text/plain", "other", "", "other")
	two := pushManifest(t, from, "a", "text/plain", "two", "", "moves")
	if err := from.DeleteTag(t.Context(), "a", "stays", nil); err != nil {
		t.Fatal(err)
	}
	copyAll(t, from, to)
	for tag, want := range map[string]digest.Digest{"moves": two, "stays": one, "other": digest.FromString("other")} {
		if m, err := to.GetTag(t.Context(), "a", tag); err != nil || m.Digest != want {
			t.Errorf("%s is %s (%v), want %s", tag, m.Digest, err, want)
		}
	}
}

// TestCopyWhileClientsPush checks that each image in the copy is complete, although
// clients push images and move a tag while the copy runs.
func TestCopyWhileClientsPush(t *testing.T) {
	from := new(registry.MemStore)
	push := func(n int) {
		layer := fmt.Sprint("layer ", n)
		_, err := seed.PushContent(context.Background(), from, fmt.Sprint("live/", n%3), seed.Content{
			Blobs:     map[string]string{"layer": layer},
			Manifests: map[string]seed.Manifest{"image": {Layers: []string{"layer"}}, "index": {Manifests: []string{"image"}}},
			Tags:      map[string]string{"latest": "index", fmt.Sprint("t", n): "index"},
		})
		if err != nil {
			t.Error(err)
		}
	}
	to := new(registry.MemStore)
	for round := range 10 {
		var pushing sync.WaitGroup
		pushing.Go(func() {
			for n := range 50 {
				push(50*round + n)
			}
		})
		for range 3 {
			if round == 0 {
				pushing.Wait()
			}
			job := copyAll(t, from, to)
			if err := job.failures.err(); err != nil {
				t.Fatal(err, job.failures.list)
			}
			checkComplete(t, to)
		}
		pushing.Wait()
	}
	copyAll(t, from, to)
	checkSame(t, from, to)
}

// checkComplete checks that a store has all content that its tags name.
func checkComplete(t *testing.T, s *registry.MemStore) {
	t.Helper()
	for repo := range s.Repositories(t.Context(), "") {
		for tag := range s.Tags(t.Context(), repo, "") {
			m, err := s.GetTag(t.Context(), repo, tag)
			if err != nil {
				t.Fatal(err)
			}
			// A push that is not sparse checks what the manifest names.
			for _, child := range namedBy(m.Content).Manifests {
				image, err := s.GetManifest(t.Context(), repo, child.Digest)
				if err == nil {
					_, err = registry.PushManifest(t.Context(), s, repo, registry.ManifestPush{MediaType: image.MediaType, Content: image.Content})
				}
				if err != nil {
					t.Fatalf("%s:%s: %v", repo, tag, err)
				}
			}
		}
	}
}

func TestCopyShowsProgress(t *testing.T) {
	var w bytes.Buffer
	s := newScreen(&w)
	end := s.showLines(newCopier(1), time.Millisecond)
	for range 1000 {
		s.mu.Lock()
		n := w.Len()
		s.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	end()
	if want := "berth: 0 of 0 repositories: copied 0 tags, 0 manifests, 0 blobs (0B); 0 tags, 0 manifests, 0 blobs existed\n"; !strings.HasPrefix(w.String(), want) {
		t.Errorf("%q", w.String())
	}
}
