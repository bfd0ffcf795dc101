// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/seed"
)

var (
	interruptions = flag.Int("interrupts", 4, "number of times that TestCopyInterrupted interrupts a copy")
	interruptSize = flag.Int("interrupt-images", 15, "number of images that each of those copies adds")
)

// TestCopyInterrupted stops copies at random moments, with SIGTERM and SIGKILL, and
// checks that the last one makes the copy complete. More often:
//
//	go test -v -run TestCopyInterrupted ./cmd/berth -interrupts=20 -interrupt-images=100
func TestCopyInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	for _, kind := range []string{"dir:", "file://"} {
		t.Run(strings.Trim(kind, ":/"), func(t *testing.T) { testCopyInterrupted(t, kind) })
	}
}

func testCopyInterrupted(t *testing.T, kind string) {
	work := t.TempDir()
	from, to := filepath.Join(work, "from"), filepath.Join(work, "to")
	if err := os.Mkdir(to, 0o777); err != nil {
		t.Fatal(err)
	}
	source, err := ocidir.Open(from, nil) // and in use all the time
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()

	lasts := time.Second // a copy that is not interrupted
	stopped, killed := 0, 0
	for n := range *interruptions {
		addImages(t, source, n)
		cmd := exec.Command("berth", "copy", "dir:"+from, kind+to)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		began := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		signal := syscall.SIGKILL
		if n%2 == 0 {
			signal = syscall.SIGTERM
		}
		timer := time.AfterFunc(rand.N(lasts), func() { cmd.Process.Signal(signal) })
		err := cmd.Wait()
		timer.Stop()
		var exit *exec.ExitError
		switch {
		case err == nil:
			lasts = time.Since(began)
		case !errors.As(err, &exit):
			t.Fatal(err)
		case exit.ExitCode() == 1:
			stopped++
			if !strings.Contains(stderr.String(), errInterrupted.Error()) {
				t.Errorf("it ended with %s", &stderr)
			}
		case exit.ExitCode() < 0: // perhaps before it handled SIGTERM
			killed++
		default:
			t.Errorf("%v: %s", err, &stderr)
		}
	}
	t.Logf("%d copies: %d stopped, %d killed", *interruptions, stopped, killed)
	t.Log(mustCopy(t, "dir:"+from, kind+to))
	copied, closer, err := openSource(context.Background(), kind+to, storeOptions{warn: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	checkSame(t, source, copied)
}

// addImages adds content to a store, and moves tags.
func addImages(t *testing.T, s registry.Store, round int) {
	t.Helper()
	for n := range *interruptSize {
		name := fmt.Sprint(round, "-", n)
		_, err := seed.PushContent(t.Context(), s, fmt.Sprint("images/", n%5), seed.Content{
			Blobs: map[string]string{"layer": "layer " + name, "shared": "shared layer " + fmt.Sprint(round)},
			Manifests: map[string]seed.Manifest{
				"image": {Layers: []string{"layer", "shared"}},
				"index": {Manifests: []string{"image"}},
				"sig":   {ArtifactType: "example/signature", Subject: "image", Annotations: map[string]string{"of": name}},
			},
			Tags: map[string]string{"latest": "index", "t" + name: "image"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pushBlob(t, s, fmt.Sprint("blobs/", round), "blob")
}
