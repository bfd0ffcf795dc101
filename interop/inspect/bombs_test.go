// SPDX-License-Identifier: Apache-2.0

// Layers that are larger than they look.

package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// headers returns the headers of n empty files, and then one of a file with size bytes.
func headers(t *testing.T, n int, size int64) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range n {
		qt.Assert(t, qt.IsNil(w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir/file%03d", i), Mode: 0o644})))
	}
	if size > 0 {
		qt.Assert(t, qt.IsNil(w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size})))
	}
	return b.Bytes() // without an end
}

// repeat returns first, and then n times a part, compressed: a compressed file may consist of
// several.
func repeat(t *testing.T, compress func(io.Writer) io.WriteCloser, first, part []byte, n int) string {
	compressed := func(data []byte) string {
		var b bytes.Buffer
		w := compress(&b)
		_, err := w.Write(data)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(w.Close()))
		return b.String()
	}
	return compressed(first) + strings.Repeat(compressed(part), n)
}

// TestBombs lists layers of some MiB that become GiB, and one of a million files. The server
// must need little memory, and end each list.
func TestBombs(t *testing.T) {
	t.Parallel()
	byGzip := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	byZstd := func(w io.Writer) io.WriteCloser {
		e, err := zstd.NewWriter(w)
		qt.Assert(t, qt.IsNil(err))
		return e
	}
	zeros := make([]byte, 1<<20)
	const limit = "the limit of what the page reads of a layer has been reached"
	s := berth.Serve(t)
	b := newBrowser(t)
	for _, test := range []struct {
		name, layer string
		after       int    // of a page that is read, too
		err         string // of that page
	}{
		{"gzip", repeat(t, byGzip, headers(t, 1, 3<<30), zeros, 3<<10), 1, limit},
		{"zstd", repeat(t, byZstd, headers(t, 1, 3<<30), zeros, 3<<10), 1, limit},
		{"a million files", repeat(t, byGzip, headers(t, 1000, 0), headers(t, 1000, 0), 999), 999_900, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := digest.FromString(test.layer)
			resp, err := http.Post("http://"+s.Addr+"/v2/bombs/blobs/uploads/?digest="+string(d), "application/octet-stream", strings.NewReader(test.layer))
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Assert(t, qt.Equals(resp.StatusCode, 201))

			query := url.Values{"repo": {"bombs"}, "digest": {string(d)}}
			b.do(chromedp.Navigate("about:blank"), chromedp.Navigate("http://"+s.Addr+"/inspect/#layer?"+query.Encode()), chromedp.WaitVisible("tbody tr", chromedp.ByQuery))
			query.Set("after", fmt.Sprint(test.after))
			resp, err = http.Get("http://" + s.Addr + "/inspect/api/layer?" + query.Encode())
			qt.Assert(t, qt.IsNil(err))
			defer resp.Body.Close()
			var page struct {
				Items []json.RawMessage
				Error string
			}
			qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&page)))
			qt.Check(t, qt.StringContains(page.Error, test.err))
			t.Logf("%d bytes, %d files after %d; peak %d MiB", len(test.layer), len(page.Items), test.after, s.Memory(t, "VmHWM")>>20)
		})
	}
	if peak := s.Memory(t, "VmHWM"); peak > maxPeak {
		t.Errorf("the server needed %d bytes, more than %d", peak, maxPeak)
	}
}
