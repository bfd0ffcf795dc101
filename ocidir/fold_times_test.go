// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"os"
	"testing"
	"time"

	"github.com/berth-oci/registry"
)

// TestPushAgain pushes a manifest again, without a tag, before it has a file. The second push
// is a use, also after a crash.
func TestPushAgain(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var m registry.Manifest
	var last time.Time
	for _, content := range []string{"other", "manifest", "manifest"} {
		time.Sleep(10 * time.Millisecond)
		last = time.Now()
		m, err = registry.PushManifest(t.Context(), s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte(content)})
		if err != nil {
			t.Fatal(err)
		}
	}
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	crashed, err := Open(copied, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer crashed.Close()
	for name, s := range map[string]*Store{"running": s, "after a crash": crashed} {
		for info, err := range s.Manifests(t.Context(), "a", "") {
			if err != nil {
				t.Fatal(err)
			}
			if info.Digest == m.Digest && info.Time.Before(last.Truncate(time.Millisecond)) {
				t.Errorf("%s: the time is %v, before the second push at %v", name, info.Time, last)
			}
		}
	}
}

// TestPushDuringFold pushes a manifest again while its file is written. The second push is
// a use: it counts for garbage collection.
func TestPushDuringFold(t *testing.T) {
	NoFolds(t)
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	push := func() (d registry.Manifest) {
		m, err := registry.PushManifest(t.Context(), s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte("manifest"), Tags: []string{"tag"}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if _, err := registry.PushManifest(t.Context(), s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte("other"), Tags: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	for _, written := range []bool{true, false} { // before the second push, or after it
		m := push()
		r := s.acquireRepo("a")
		f, err := r.startBackground()
		if f == nil {
			t.Fatal("no fold", err)
		}
		if written {
			err = f.write()
		}
		time.Sleep(10 * time.Millisecond)
		again := time.Now()
		push()
		if !written {
			err = f.write()
		}
		if err := r.endBackground(f, err); err != nil {
			t.Fatal(err)
		}
		s.releaseRepo(r)
		info, err := s.StatManifest(t.Context(), "a", m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if info.Time.Before(again.Truncate(time.Millisecond)) {
			t.Errorf("written %v: the time is %v, before the second push at %v", written, info.Time, again)
		}
		if err := s.DeleteManifest(t.Context(), "a", m.Digest); err != nil {
			t.Fatal(err)
		}
	}
}
