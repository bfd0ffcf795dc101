// SPDX-License-Identifier: Apache-2.0

//go:build !race

package registry

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// allocations returns the maximum number of allocations on this Go release, given
// the maximum n for Go 1.25 and newer. It is higher by half for Go 1.24, which the
// root module still supports, but which does not keep on the stack the slices that
// append grows and the iterators of loops over strings.SplitSeq.
func allocations(n float64) float64 {
	if strings.HasPrefix(runtime.Version(), "go1.24") {
		return n + n/2
	}
	return n
}

// TestAllocations bounds the allocations of requests, excluding those of the
// ResponseWriter and net/http.
func TestAllocations(t *testing.T) {
	budget := map[string]float64{
		"ping":               5,
		"blob":               7,
		"blob_head":          7,
		"blob_large":         7,
		"blob_range":         14,
		"manifest_by_tag":    6,
		"manifest_by_digest": 7,
		"manifest_head":      6,
		"tags_page":          34,
		"referrers":          20,
		"not_found":          9,
	}
	h, small, large, image := benchContent(t)
	for _, q := range benchRequests(small, large, image) {
		limit := allocations(budget[q.name])
		got := testing.AllocsPerRun(100, q.do(t, h))
		qt.Check(t, qt.IsTrue(got <= limit), qt.Commentf("%s: %v allocations, the budget is %v", q.name, got, limit))
	}
}

// TestAllocationsOfPush bounds the allocations of a push: their number grows with
// the logarithm of the size, and then by one for each MiB.
func TestAllocationsOfPush(t *testing.T) {
	for _, c := range []struct {
		size   int
		budget float64
	}{
		{4 << 10, 72},
		{1 << 20, 90},
		{16 << 20, 106},
	} {
		data := bytes.Repeat([]byte("x"), c.size)
		d := digest.FromBytes(data).String()
		h := New()
		got := testing.AllocsPerRun(5, func() {
			for _, r := range []*http.Request{
				httptest.NewRequest("POST", "/v2/a/blobs/uploads/?digest="+d, bytes.NewReader(data)),
				httptest.NewRequest("DELETE", "/v2/a/blobs/"+d, nil),
			} {
				h.ServeHTTP(&sink{header: make(http.Header)}, r)
			}
		})
		qt.Check(t, qt.IsTrue(got <= c.budget), qt.Commentf("%d bytes: %v allocations, the budget is %v", c.size, got, c.budget))
	}
}

// TestAllocationsOfReferences bounds the allocations of EachReference, which do not grow with
// a manifest.
func TestAllocationsOfReferences(t *testing.T) {
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + digest.FromString("l").String() + `","size":1}`
	content := []byte(`{"config":` + layer + `,"layers":[` + layer + strings.Repeat(","+layer, 99) + `]}`)
	blobs := 0
	var err error
	got := testing.AllocsPerRun(100, func() {
		_, err = EachReference("application/vnd.oci.image.manifest.v1+json", content, func([]byte) { blobs++ }, func([]byte) {})
	})
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(blobs, 101*101))
	qt.Check(t, qt.IsTrue(got <= allocations(2)), qt.Commentf("%v allocations", got))
}

// TestAllocationsOfNew bounds the allocations of an empty registry.
func TestAllocationsOfNew(t *testing.T) {
	got := testing.AllocsPerRun(100, func() { New() })
	qt.Check(t, qt.IsTrue(got <= 5), qt.Commentf("%v allocations", got))
}
