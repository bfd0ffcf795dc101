// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/ocidir"
)

// TestKillCollecting kills collections at random moments: berth gc itself, or the server
// that it asks. Each time, the tagged images must be complete. The collection that ends must
// leave the files that a directory has to which only these were pushed.
func TestKillCollecting(t *testing.T) {
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	pushed, fresh := t.TempDir(), t.TempDir()
	images := pushImages(t, pushed, func(int) bool { return true })
	s, err := ocidir.Open(pushed, nil)
	qt.Assert(t, qt.IsNil(err))
	for _, m := range images {
		if !m.kept {
			qt.Assert(t, qt.IsNil(s.DeleteTag(t.Context(), m.repo, m.tag, nil)))
		}
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	pushImages(t, fresh, func(i int) bool { return images[i].kept })
	want := contentFiles(t, fresh)
	time.Sleep(1100 * time.Millisecond) // the precision of uses

	// collect runs berth gc, and kills it, or the server, after some time. It reports
	// whether the collection ended before.
	collect := func(t *testing.T, dir string, served bool, after time.Duration) (ended bool) {
		gc := exec.Command(binary, "gc", "--untagged", "--grace=0s", "--store=dir:"+dir)
		process := gc
		if served {
			s := startServe(t, dir)
			defer s.Kill()
			process = s.Cmd
		}
		output := new(bytes.Buffer)
		gc.Stdout, gc.Stderr = output, output
		qt.Assert(t, qt.IsNil(gc.Start()))
		timer := time.AfterFunc(after, func() { process.Process.Kill() })
		err := gc.Wait()
		if timer.Stop() {
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", output))
		}
		return err == nil
	}
	for _, served := range []bool{false, true} {
		t.Run(fmt.Sprintf("served=%t", served), func(t *testing.T) {
			copied := func() string {
				dir := filepath.Join(t.TempDir(), "copy")
				out, err := exec.Command("cp", "-a", pushed, dir).CombinedOutput() // with its links and times
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
				return dir
			}
			start := time.Now()
			collect(t, copied(), served, time.Hour)
			usual := time.Since(start)
			killed, deleting := 0, 0
			for range *kills {
				dir := copied()
				before := len(contentFiles(t, dir))
				for !collect(t, dir, served, rand.N(usual)) {
					killed++
					if n := len(contentFiles(t, dir)); n < before && n > len(want) {
						deleting++
					}
					if rand.IntN(2) == 0 { // or the next process is a collection
						verifyImages(t, dir, images)
					}
				}
				verifyImages(t, dir, images)
				qt.Check(t, qt.DeepEquals(contentFiles(t, dir), want))
			}
			t.Logf("%d collections were killed, %d of them while they deleted", killed, deleting)
		})
	}
}

// tagged is an image with a tag.
type tagged struct {
	repo, tag string
	digest    digest.Digest
	blobs     []digest.Digest
	kept      bool // the tag is not deleted
}

// pushImages pushes images to a directory, and returns them. Some layers are those of
// several images and repositories. It skips images for which push returns false.
func pushImages(t *testing.T, dir string, push func(i int) bool) (images []tagged) {
	t.Helper()
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	for i := range 900 {
		m := tagged{repo: fmt.Sprint("a/", i%3), tag: fmt.Sprint("t", i), kept: i%7 == 0}
		var list []ocispec.Descriptor
		for _, text := range []string{configData, fmt.Sprint("layer ", i), fmt.Sprint("shared layer ", i%20)} {
			d := digest.FromString(text)
			m.blobs = append(m.blobs, d)
			list = append(list, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(text))})
			if push(i) {
				qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, m.repo, d, strings.NewReader(text))))
			}
		}
		content, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: list[0], Layers: list[1:]})
		qt.Assert(t, qt.IsNil(err))
		m.digest = digest.FromBytes(content)
		if push(i) {
			_, err := registry.PushManifest(t.Context(), s, m.repo, registry.ManifestPush{MediaType: ocispec.MediaTypeImageManifest, Content: content, Tags: []string{m.tag}})
			qt.Assert(t, qt.IsNil(err))
		}
		images = append(images, m)
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	return images
}

// verifyImages checks that the images whose tags were not deleted are complete.
func verifyImages(t *testing.T, dir string, images []tagged) {
	t.Helper()
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	for _, m := range images {
		if !m.kept {
			continue
		}
		stored, err := s.GetTag(t.Context(), m.repo, m.tag)
		if err != nil || stored.Digest != m.digest {
			t.Errorf("%s:%s is %q, %v; want %s", m.repo, m.tag, stored.Digest, err, m.digest)
		}
		for _, d := range m.blobs {
			r, err := s.OpenBlob(t.Context(), m.repo, d)
			qt.Assert(t, qt.IsNil(err))
			got, err := digest.FromReader(r)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, d))
			r.Close()
		}
	}
}

// contentFiles returns the names of a directory's files of content.
func contentFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted meanwhile
		}
		if err == nil && !e.IsDir() && filepath.Base(filepath.Dir(name)) == "sha256" {
			name, err = filepath.Rel(dir, name)
			names = append(names, name)
		}
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	return names
}
