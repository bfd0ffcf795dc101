// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkClone clones a store with 1,000 manifests, and makes one change to each
// clone.
func BenchmarkClone(b *testing.B) {
	ctx := context.Background()
	seed := new(MemStore)
	for i := range 1000 {
		content := fmt.Append(nil, i)
		m := Manifest{MediaType: "x/y", Digest: digest.FromBytes(content), Content: content}
		if err := seed.PutManifest(ctx, "a", m, []string{fmt.Sprint(i)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	for _, forks := range []int{1, 1000} {
		b.Run(fmt.Sprint(forks), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				all := make([]*MemStore, forks) // all in use at once, as in a test suite
				for i := range all {
					all[i] = seed.Clone()
					if err := all[i].DeleteTag(ctx, "a", "500", nil); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkNew creates an empty registry.
func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		New()
	}
}

// sink is a ResponseWriter that discards the body.
type sink struct {
	header http.Header
	status int
	bytes  int64
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) { s.status = status }

func (s *sink) Write(p []byte) (int, error) {
	s.bytes += int64(len(p))
	return len(p), nil
}

// reset prepares s for another response.
func (s *sink) reset() {
	clear(s.header)
	s.status, s.bytes = http.StatusOK, 0
}

// benchContent returns a registry with a repository "a": an image "tag" with ten
// referrers, a blob of 4 KiB, one of 16 MiB, and 10,000 further tags.
func benchContent(b testing.TB) (h http.Handler, small, large, image digest.Digest) {
	ctx := context.Background()
	m := new(MemStore)
	blob := func(size int) digest.Digest {
		data := make([]byte, size)
		mathrand.NewChaCha8([32]byte{1}).Read(data)
		d := digest.FromBytes(data)
		if err := PushBlob(ctx, m, "a", d, bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		return d
	}
	small, large = blob(4<<10), blob(16<<20)
	push := func(content string, tags ...string) digest.Digest {
		mf, err := PushManifest(ctx, m, "a", ManifestPush{Content: []byte(content), Tags: tags})
		if err != nil {
			b.Fatal(err)
		}
		return mf.Digest
	}
	const imageType = "application/vnd.oci.image.manifest.v1+json"
	image = push(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":4096},"layers":[]}`, imageType, small), "tag")
	for i := range 10_000 {
		push("m", fmt.Sprintf("v%05d", i))
	}
	for i := range 10 {
		push(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"a/b","config":{"mediaType":"x/y","digest":%q,"size":4096},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"i":"%d"}}`, imageType, small, imageType, image, i))
	}
	return New(WithStore(m)), small, large, image
}

// benchRequests returns requests to measure one by one, each with its name and
// the expected response.
func benchRequests(small, large, image digest.Digest) []benchRequest {
	return []benchRequest{
		{"ping", "GET", "/v2/", nil, 200, 2},
		{"blob", "GET", "/v2/a/blobs/" + small.String(), nil, 200, 4 << 10},
		{"blob_head", "HEAD", "/v2/a/blobs/" + small.String(), nil, 200, 0},
		{"blob_large", "GET", "/v2/a/blobs/" + large.String(), nil, 200, 16 << 20},
		{"blob_range", "GET", "/v2/a/blobs/" + large.String(), http.Header{"Range": {"bytes=1000000-1065535"}}, 206, 64 << 10},
		{"manifest_by_tag", "GET", "/v2/a/manifests/tag", nil, 200, 0},
		{"manifest_by_digest", "GET", "/v2/a/manifests/" + image.String(), nil, 200, 0},
		{"manifest_head", "HEAD", "/v2/a/manifests/tag", nil, 200, 0},
		{"tags_page", "GET", "/v2/a/tags/list?n=100&last=v05000", nil, 200, 0},
		{"referrers", "GET", "/v2/a/referrers/" + image.String(), nil, 200, 0},
		{"not_found", "HEAD", "/v2/a/blobs/" + digest.FromString("absent").String(), nil, 404, 0},
	}
}

type benchRequest struct {
	name, method, url string
	header            http.Header
	status            int
	size              int64 // of the body; 0: any
}

func (q benchRequest) do(t testing.TB, h http.Handler) func() {
	r := httptest.NewRequest(q.method, q.url, nil)
	for name, values := range q.header {
		r.Header[name] = values
	}
	w := &sink{header: make(http.Header)}
	return func() {
		w.reset()
		h.ServeHTTP(w, r)
		if w.status != q.status || q.size != 0 && w.bytes != q.size {
			t.Fatalf("%s: %d, %d bytes", q.name, w.status, w.bytes)
		}
	}
}

// BenchmarkRequests measures read requests, handled in process.
func BenchmarkRequests(b *testing.B) {
	h, small, large, image := benchContent(b)
	for _, q := range benchRequests(small, large, image) {
		b.Run(q.name, func(b *testing.B) {
			do := q.do(b, h)
			b.SetBytes(q.size)
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

// BenchmarkPush pushes blobs in process, in a single POST, and deletes them.
func BenchmarkPush(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := make([]byte, size)
			mathrand.NewChaCha8([32]byte{2}).Read(data)
			d := digest.FromBytes(data).String()
			m := new(MemStore)
			h := New(WithStore(m))
			w := &sink{header: make(http.Header)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				w.reset()
				h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/a/blobs/uploads/?digest="+d, bytes.NewReader(data)))
				if w.status != http.StatusCreated {
					b.Fatal(w.status)
				}
				w.reset()
				h.ServeHTTP(w, httptest.NewRequest("DELETE", "/v2/a/blobs/"+d, nil))
			}
		})
	}
}

// BenchmarkWork measures tasks of several requests, handled in process.
func BenchmarkWork(b *testing.B) {
	const imageType = "application/vnd.oci.image.manifest.v1+json"
	data := make([]byte, 64<<20)
	mathrand.NewChaCha8([32]byte{3}).Read(data)
	large := digest.FromBytes(data)
	var layers []digest.Digest
	manifest := `{"schemaVersion":2,"mediaType":"` + imageType + `","config":{"mediaType":"x/y","digest":"%s","size":1},"layers":[`
	for i := range 5 {
		layers = append(layers, digest.FromBytes(data[i*64<<10:(i+1)*64<<10]))
		if i > 0 {
			manifest += ","
		}
		manifest += fmt.Sprintf(`{"mediaType":"x/y","digest":"%s","size":65536}`, layers[i])
	}
	manifest = fmt.Sprintf(manifest, layers[0]) + "]}"

	for _, work := range []struct {
		name  string
		bytes int
		do    func(do func(method, url, contentType string, body []byte, want int) http.Header, i int)
	}{
		{"blob_by_POST_and_PUT", 4 << 10, func(do func(string, string, string, []byte, int) http.Header, i int) {
			d := digest.FromBytes(data[:4<<10]).String()
			location := do("POST", "/v2/a/blobs/uploads/", "", nil, 202).Get("Location")
			do("PUT", location+"?digest="+d, "", data[:4<<10], 201)
			do("DELETE", "/v2/a/blobs/"+d, "", nil, 202)
		}},
		{"blob_in_PATCHes_of_16_MiB", len(data), func(do func(string, string, string, []byte, int) http.Header, i int) {
			location := do("POST", "/v2/a/blobs/uploads/", "", nil, 202).Get("Location")
			for p := data; len(p) > 0; p = p[16<<20:] {
				location = do("PATCH", location, "", p[:16<<20], 202).Get("Location")
			}
			do("PUT", location+"?digest="+large.String(), "", nil, 201)
			do("DELETE", "/v2/a/blobs/"+large.String(), "", nil, 202)
		}},
		{"image", 5 * 64 << 10, func(do func(string, string, string, []byte, int) http.Header, i int) {
			repo := fmt.Sprint("/v2/image", i)
			for l, d := range layers {
				do("HEAD", repo+"/blobs/"+d.String(), "", nil, 404)
				location := do("POST", repo+"/blobs/uploads/", "", nil, 202).Get("Location")
				do("PUT", location+"?digest="+d.String(), "", data[l*64<<10:(l+1)*64<<10], 201)
			}
			do("PUT", repo+"/manifests/tag", imageType, []byte(manifest), 201)
		}},
		{"image_again", 0, func(do func(string, string, string, []byte, int) http.Header, i int) {
			for _, d := range layers {
				do("HEAD", "/v2/seed/blobs/"+d.String(), "", nil, 200)
			}
			do("PUT", "/v2/seed/manifests/tag", imageType, []byte(manifest), 201)
		}},
		{"image_mounted", 0, func(do func(string, string, string, []byte, int) http.Header, i int) {
			repo := fmt.Sprint("/v2/mount", i)
			for _, d := range layers {
				do("POST", repo+"/blobs/uploads/?mount="+d.String()+"&from=seed", "", nil, 201)
			}
			do("PUT", repo+"/manifests/tag", imageType, []byte(manifest), 201)
		}},
		{"referrer", 0, func(do func(string, string, string, []byte, int) http.Header, i int) {
			m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":1},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"i":"%d"}}`, imageType, layers[0], imageType, large, i)
			do("PUT", "/v2/seed/manifests/"+digest.FromString(m).String(), imageType, []byte(m), 201)
		}},
	} {
		b.Run(work.name, func(b *testing.B) {
			h := New()
			w := &sink{header: make(http.Header)}
			do := func(method, url, contentType string, body []byte, want int) http.Header {
				w.reset()
				r := httptest.NewRequest(method, url, bytes.NewReader(body))
				r.Header.Set("Content-Type", contentType)
				h.ServeHTTP(w, r)
				if w.status != want {
					b.Fatalf("%s %s: %d, want %d", method, url, w.status, want)
				}
				return w.header
			}
			for l, d := range layers {
				do("POST", "/v2/seed/blobs/uploads/?digest="+d.String(), "", data[l*64<<10:(l+1)*64<<10], 201)
			}
			b.SetBytes(int64(work.bytes))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				work.do(do, i)
			}
		})
	}
}

// BenchmarkParallel runs readers concurrently with a writer. With -mutexprofile it
// shows the locks that they wait for.
func BenchmarkParallel(b *testing.B) {
	h, small, large, image := benchContent(b)
	stop := make(chan bool)
	written := make(chan int)
	go func() {
		w := &sink{header: make(http.Header)}
		n := 0
		for {
			select {
			case <-stop:
				written <- n
				return
			default:
			}
			w.reset()
			h.ServeHTTP(w, httptest.NewRequest("PUT", fmt.Sprint("/v2/a/manifests/w", n%100), bytes.NewReader([]byte("m"))))
			n++
		}
	}()
	requests := benchRequests(small, large, image)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var all []func()
		for _, q := range requests {
			if q.name != "blob_large" {
				all = append(all, q.do(b, h))
			}
		}
		for i := 0; pb.Next(); i++ {
			all[i%len(all)]()
		}
	})
	close(stop)
	b.ReportMetric(float64(<-written)/b.Elapsed().Seconds(), "writes/s")
}
