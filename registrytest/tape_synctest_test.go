// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package registrytest_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/registrytest"
)

// TestReplayInBubbles replays tapes in the fake time of synctest.
func TestReplayInBubbles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tape")
	want := recordTape(t, "round tripper", dir)
	for _, kind := range []string{"round tripper", "in process"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tape := registrytest.Replay(t, os.DirFS(dir), nil)
				qt.Check(t, qt.DeepEquals(converse2(t, kind, tape, "any password"), want))
			})
		})
	}
	// Made outside of the bubble.
	tape := registrytest.Replay(t, os.DirFS(dir), nil)
	synctest.Test(t, func(t *testing.T) {
		qt.Check(t, qt.DeepEquals(converse2(t, "in process", tape, "any password"), want))
	})
}

// TestReplayWithDelay checks that a fault in front of a tape takes no real time.
func TestReplayWithDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tape := registrytest.Replay(t, fstest.MapFS{"tape.txt": {Data: []byte(smallTape)}}, &registrytest.TapeOptions{Repeat: true})
		faults := registrytest.NewFaults(registrytest.Rule{Fault: registrytest.Delay(time.Hour)})
		client := &http.Client{Transport: registrytest.Transport(faults.Handler(tape)), Timeout: 2 * time.Hour}
		start := time.Now()
		qt.Check(t, qt.Equals(tapeGet(client.Transport, "http://any.example/v2/"), "401 "))
		qt.Check(t, qt.Equals(time.Since(start), time.Hour))
	})
}
