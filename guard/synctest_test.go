// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package guard_test

import (
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/guard"
	"github.com/berth-oci/registry/registrytest"
)

// TestProgressOfAFile reads a file at different speeds, in fake time and without
// sendfile.
func TestProgressOfAFile(t *testing.T) {
	const timeout, size = time.Minute, 3 << 20
	name := newFile(t, size)
	for _, c := range []struct {
		name  string
		pause time.Duration // between reads of 64 KiB
		full  bool
	}{
		{"fast", 0, true},
		{"slow", timeout - time.Second, true},
		{"too_slow", 3 * timeout, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := guard.Progress(timeout)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.ServeFile(w, r, name)
				}))
				resp, err := (&http.Client{Transport: registrytest.Transport(h)}).Get("http://registry.example/")
				qt.Assert(t, qt.IsNil(err))
				defer resp.Body.Close()
				var got int64
				for err == nil {
					var n int64
					n, err = io.CopyN(io.Discard, resp.Body, 64<<10)
					got += n
					time.Sleep(c.pause)
				}
				qt.Check(t, qt.Equals(got == size, c.full), qt.Commentf("%d bytes, %v", got, err))
			})
		})
	}
}

// TestProgressOfAFastClient reads content from memory, and stops or becomes slow after
// it was fast.
func TestProgressOfAFastClient(t *testing.T) {
	const timeout, size = time.Minute, 8 << 20
	for _, c := range []struct {
		name     string
		pause    time.Duration // between reads of 64 KiB, after 2 MiB
		full     bool
		min, max time.Duration // until the handler has returned
	}{
		{"fast", 0, true, 0, 0},
		{"slower", timeout / 5, true, 0, time.Hour},
		{"stopped", 20 * timeout, false, 2 * timeout, 5 * timeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var took time.Duration
				h := guard.Progress(timeout)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					start := time.Now()
					for range 4 {
						w.Write(make([]byte, size/4))
					}
					took = time.Since(start)
				}))
				resp, err := (&http.Client{Transport: registrytest.Transport(h)}).Get("http://registry.example/")
				qt.Assert(t, qt.IsNil(err))
				defer resp.Body.Close()
				var got int64
				for err == nil {
					var n int64
					n, err = io.CopyN(io.Discard, resp.Body, 64<<10)
					got += n
					if got >= 2<<20 {
						time.Sleep(c.pause)
					}
				}
				synctest.Wait()
				qt.Check(t, qt.Equals(got == size, c.full), qt.Commentf("%d bytes, %v", got, err))
				qt.Check(t, qt.IsTrue(c.min <= took && took <= c.max), qt.Commentf("%v", took))
			})
		})
	}
}
