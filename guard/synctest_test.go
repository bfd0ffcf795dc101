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
