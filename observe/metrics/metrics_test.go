// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/metrics"
)

const mediaType = "application/vnd.oci.image.manifest.v1+json"

// send sends a request to h and checks the status of its response.
func send(t *testing.T, h http.Handler, method, path, body string, want int) {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if strings.Contains(path, "/manifests/") && body != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	h.ServeHTTP(w, r)
	qt.Assert(t, qt.Equals(w.Code, want), qt.Commentf("%s %s: %s", method, path, w.Body))
}

func register(t *testing.T, m *metrics.Metrics) *prometheus.Registry {
	t.Helper()
	prom := prometheus.NewPedanticRegistry()
	qt.Assert(t, qt.IsNil(prom.Register(m)))
	return prom
}

func TestRequests(t *testing.T) {
	m := metrics.New(metrics.Options{})
	prom := register(t, m)
	h := m.Handler(registry.New(registry.AllowSparse()))
	d := digest.FromString("hello")
	manifest := `{"schemaVersion":2,"mediaType":"` + mediaType + `","config":{"mediaType":"a/b","digest":"` + d.String() + `","size":5},"layers":[]}`
	send(t, h, "GET", "/v2/", "", 200)
	send(t, h, "POST", "/v2/app/blobs/uploads/?digest="+d.String(), "hello", 201)
	send(t, h, "GET", "/v2/app/blobs/"+d.String(), "", 200)
	send(t, h, "GET", "/v2/app/blobs/"+d.String(), "", 200)
	send(t, h, "POST", "/v2/app/blobs/uploads/", "", 202)
	send(t, h, "DELETE", "/v2/app/blobs/uploads/unknown", "", 404)
	send(t, h, "PUT", "/v2/app/manifests/latest", manifest, 201)
	send(t, h, "PUT", "/v2/app/manifests/latest", "{", 400)
	send(t, h, "HEAD", "/v2/app/tags/list", "", 200)
	send(t, h, "GET", "/v2/app/referrers/"+d.String(), "", 200)
	send(t, h, "GET", "/v2/_catalog", "", 200)
	send(t, h, "BREW", "/v2/app/tags/list", "", 405)
	send(t, h, "GET", "/elsewhere", "", 404)

	qt.Check(t, qt.IsNil(testutil.GatherAndCompare(prom, strings.NewReader(`
# HELP registry_http_requests_total Total number of HTTP requests made.
# TYPE registry_http_requests_total counter
registry_http_requests_total{code="200",handler="base",method="get",op="ping"} 1
registry_http_requests_total{code="200",handler="blob",method="get",op="blob-get"} 2
registry_http_requests_total{code="200",handler="catalog",method="get",op="catalog"} 1
registry_http_requests_total{code="200",handler="referrers",method="get",op="referrers"} 1
registry_http_requests_total{code="200",handler="tags",method="head",op="tags"} 1
registry_http_requests_total{code="201",handler="blob_upload",method="post",op="blob-push"} 1
registry_http_requests_total{code="201",handler="manifest",method="put",op="manifest-put"} 1
registry_http_requests_total{code="202",handler="blob_upload",method="post",op="upload-start"} 1
registry_http_requests_total{code="400",handler="manifest",method="put",op="manifest-put"} 1
registry_http_requests_total{code="404",handler="blob_upload_chunk",method="delete",op="upload-cancel"} 1
registry_http_requests_total{code="404",handler="other",method="get",op="other"} 1
registry_http_requests_total{code="405",handler="other",method="unknown",op="other"} 1
`), "registry_http_requests_total")))

	problems, err := testutil.GatherAndLint(prom)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(problems, 0))

	families, err := prom.Gather()
	qt.Assert(t, qt.IsNil(err))
	for _, f := range families {
		for _, series := range f.Metric {
			for _, l := range series.Label {
				if f.GetName() == "registry_http_response_size_bytes" && l.GetValue() == "blob-get" {
					qt.Check(t, qt.Equals(series.Histogram.GetSampleSum(), 10))
					qt.Check(t, qt.Equals(series.Histogram.GetSampleCount(), 2))
				}
				if f.GetName() == "registry_http_request_size_bytes" && l.GetValue() == "blob-push" {
					qt.Check(t, qt.Equals(series.Histogram.GetSampleSum(), 5))
				}
				if l.GetName() == "repository" {
					t.Errorf("%s has a label repository", f.GetName())
				}
			}
		}
	}
}

func TestRepositories(t *testing.T) {
	m := metrics.New(metrics.Options{Repositories: true})
	prom := register(t, m)
	h := m.Handler(registry.New())
	d := digest.FromString("hello").String()
	send(t, h, "POST", "/v2/team/app/blobs/uploads/?digest="+d, "hello", 201)
	send(t, h, "GET", "/v2/team/app/blobs/"+d, "", 200)
	send(t, h, "GET", "/v2/invented/blobs/"+d, "", 404)
	send(t, h, "GET", "/v2/invented/referrers/"+d, "", 200)
	send(t, h, "POST", "/v2/invented/blobs/uploads/", "", 202)
	qt.Check(t, qt.IsNil(testutil.GatherAndCompare(prom, strings.NewReader(`
# HELP registry_http_requests_total Total number of HTTP requests made.
# TYPE registry_http_requests_total counter
registry_http_requests_total{code="200",handler="blob",method="get",op="blob-get",repository="team/app"} 1
registry_http_requests_total{code="200",handler="referrers",method="get",op="referrers",repository=""} 1
registry_http_requests_total{code="201",handler="blob_upload",method="post",op="blob-push",repository="team/app"} 1
registry_http_requests_total{code="202",handler="blob_upload",method="post",op="upload-start",repository=""} 1
registry_http_requests_total{code="404",handler="blob",method="get",op="blob-get",repository=""} 1
`), "registry_http_requests_total")))
}

// TestStatuses checks statuses that a registry does not send, but other middleware
// may.
func TestStatuses(t *testing.T) {
	m := metrics.New(metrics.Options{})
	prom := register(t, m)
	for _, status := range []int{200, 451, 599, 999} {
		h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }))
		send(t, h, "GET", "/v2/", "", status)
	}
	qt.Check(t, qt.PanicMatches(func() {
		send(t, m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })), "GET", "/v2/", "", 0)
	}, ".*abort.*"))
	qt.Check(t, qt.IsNil(testutil.GatherAndCompare(prom, strings.NewReader(`
# HELP registry_http_in_flight_requests The HTTP requests in progress.
# TYPE registry_http_in_flight_requests gauge
registry_http_in_flight_requests{handler="base"} 0
registry_http_in_flight_requests{handler="blob"} 0
registry_http_in_flight_requests{handler="blob_upload"} 0
registry_http_in_flight_requests{handler="blob_upload_chunk"} 0
registry_http_in_flight_requests{handler="catalog"} 0
registry_http_in_flight_requests{handler="manifest"} 0
registry_http_in_flight_requests{handler="other"} 0
registry_http_in_flight_requests{handler="referrers"} 0
registry_http_in_flight_requests{handler="tags"} 0
# HELP registry_http_requests_total Total number of HTTP requests made.
# TYPE registry_http_requests_total counter
registry_http_requests_total{code="0",handler="base",method="get",op="ping"} 1
registry_http_requests_total{code="200",handler="base",method="get",op="ping"} 1
registry_http_requests_total{code="451",handler="base",method="get",op="ping"} 1
registry_http_requests_total{code="599",handler="base",method="get",op="ping"} 1
registry_http_requests_total{code="999",handler="base",method="get",op="ping"} 1
`), "registry_http_requests_total", "registry_http_in_flight_requests")))
}

// TestInFlight checks that a request in progress is counted under the handler of its
// path, the same as it is later counted under as a whole.
func TestInFlight(t *testing.T) {
	d := digest.FromString("").String()
	for _, test := range []struct{ method, path, handler string }{
		{"GET", "/v2", "base"},
		{"GET", "/v2/", "base"},
		{"GET", "/v2/_catalog?n=1", "catalog"},
		{"GET", "/v2/a/b/tags/list", "tags"},
		{"GET", "/v2/a/manifests/latest", "manifest"},
		{"DELETE", "/v2/a/manifests/" + d, "manifest"},
		{"GET", "/v2/a/blobs/" + d, "blob"},
		{"POST", "/v2/a/blobs/uploads/", "blob_upload"},
		{"POST", "/v2/a/blobs/uploads", "blob_upload"},
		{"PATCH", "/v2/a/blobs/uploads/id", "blob_upload_chunk"},
		{"GET", "/v2/a/referrers/" + d, "referrers"},
		{"GET", "/", "other"},
	} {
		m := metrics.New(metrics.Options{})
		prom := register(t, m)
		value := func(name string) float64 {
			t.Helper()
			families, err := prom.Gather()
			qt.Assert(t, qt.IsNil(err))
			for _, f := range families {
				if f.GetName() != name {
					continue
				}
				for _, s := range f.Metric {
					for _, l := range s.Label {
						if l.GetName() == "handler" && l.GetValue() == test.handler {
							return s.GetGauge().GetValue() + s.GetCounter().GetValue()
						}
					}
				}
			}
			return -1
		}
		h := m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			qt.Check(t, qt.Equals(value("registry_http_in_flight_requests"), 1), qt.Commentf("%s", test.path))
		}))
		send(t, h, test.method, test.path, "", 200)
		qt.Check(t, qt.Equals(value("registry_http_requests_total"), 1), qt.Commentf("%s", test.path))
	}
}

func TestHooks(t *testing.T) {
	m := metrics.New(metrics.Options{})
	var got []registry.Event
	h := m.Handler(registry.New(), func(e registry.Event) { got = append(got, e) })
	send(t, h, "GET", "/v2/app/manifests/latest", "", 404)
	qt.Assert(t, qt.HasLen(got, 1))
	qt.Check(t, qt.ErrorIs(got[0].Err, registry.ErrNameUnknown))
	qt.Check(t, qt.PanicMatches(func() { m.Handler(registry.New(), nil) }, ".*nil"))
}

func TestStorage(t *testing.T) {
	calls, failing := 0, false
	m := metrics.New(metrics.Options{
		StorageAge: time.Nanosecond,
		Storage: func(ctx context.Context) (metrics.Storage, error) {
			_, ok := ctx.Deadline()
			qt.Check(t, qt.IsTrue(ok))
			if calls++; failing {
				return metrics.Storage{}, errors.New("unavailable")
			}
			return metrics.Storage{Bytes: 1, Blobs: 2, Manifests: 3, Tags: 4, Uploads: -1, Repositories: 5}, nil
		},
	})
	prom := register(t, m)
	for range 2 {
		qt.Check(t, qt.IsNil(testutil.GatherAndCompare(prom, strings.NewReader(fmt.Sprintf(`
# HELP registry_storage_blobs The blobs in the store.
# TYPE registry_storage_blobs gauge
registry_storage_blobs 2
# HELP registry_storage_bytes The size of the blobs and manifests in the store in bytes.
# TYPE registry_storage_bytes gauge
registry_storage_bytes 1
# HELP registry_storage_errors_total Total number of failures to count what the store holds.
# TYPE registry_storage_errors_total counter
registry_storage_errors_total %d
# HELP registry_storage_manifests The manifests in the store.
# TYPE registry_storage_manifests gauge
registry_storage_manifests 3
# HELP registry_storage_repositories The repositories in the store.
# TYPE registry_storage_repositories gauge
registry_storage_repositories 5
# HELP registry_storage_tags The tags in the store.
# TYPE registry_storage_tags gauge
registry_storage_tags 4
`, calls)), "registry_storage_blobs", "registry_storage_bytes", "registry_storage_errors_total", "registry_storage_manifests",
			"registry_storage_repositories", "registry_storage_tags", "registry_storage_uploads")))
		failing = true
	}
	qt.Check(t, qt.Equals(calls, 2))
	problems, err := testutil.GatherAndLint(prom)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(problems, 0))
}

// TestStorageIsCached checks that scrapes at once and one after the other call the
// function once.
func TestStorageIsCached(t *testing.T) {
	var mu sync.Mutex
	calls := 0
	prom := register(t, metrics.New(metrics.Options{Storage: func(context.Context) (metrics.Storage, error) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return metrics.Storage{}, errors.New("unavailable")
	}}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			_, err := prom.Gather()
			qt.Check(t, qt.IsNil(err))
		})
	}
	wg.Wait()
	qt.Check(t, qt.Equals(calls, 1))
}

func TestCount(t *testing.T) {
	store := new(registry.MemStore)
	h := registry.New(registry.WithStore(store), registry.AllowSparse())
	d := digest.FromString("hello")
	manifest := `{"config":{"mediaType":"a/b","digest":"` + d.String() + `","size":5},"layers":[]}`
	for _, repo := range []string{"a", "b"} {
		send(t, h, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "hello", 201)
		send(t, h, "PUT", "/v2/"+repo+"/manifests/v1", manifest, 201)
		send(t, h, "PUT", "/v2/"+repo+"/manifests/v2", manifest, 201)
	}
	got, err := metrics.Count(context.Background(), store)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, metrics.Storage{Bytes: int64(len("hello") + len(manifest)), Blobs: 1, Manifests: 1, Tags: 4, Uploads: -1, Repositories: 2}))
	_, err = metrics.Count(context.Background(), registry.UnimplementedStore{})
	qt.Check(t, qt.ErrorIs(err, registry.ErrUnsupported))
}

func TestGC(t *testing.T) {
	m := metrics.New(metrics.Options{})
	prom := register(t, m)
	m.AddGC(metrics.GCRun{Duration: time.Second, FreedBytes: 10, Blobs: 2, Manifests: 1})
	m.AddGC(metrics.GCRun{Duration: time.Second, FreedBytes: 5, Blobs: 1, Err: errors.New("unavailable")})
	qt.Check(t, qt.IsNil(testutil.GatherAndCompare(prom, strings.NewReader(`
# HELP registry_gc_errors_total Total number of runs of garbage collection that have failed.
# TYPE registry_gc_errors_total counter
registry_gc_errors_total 1
# HELP registry_gc_freed_bytes_total Total number of bytes that garbage collection has freed.
# TYPE registry_gc_freed_bytes_total counter
registry_gc_freed_bytes_total 15
# HELP registry_gc_removed_blobs_total Total number of blobs that garbage collection has removed.
# TYPE registry_gc_removed_blobs_total counter
registry_gc_removed_blobs_total 3
# HELP registry_gc_removed_manifests_total Total number of manifests that garbage collection has removed.
# TYPE registry_gc_removed_manifests_total counter
registry_gc_removed_manifests_total 1
# HELP registry_gc_runs_total Total number of runs of garbage collection, including those that have failed.
# TYPE registry_gc_runs_total counter
registry_gc_runs_total 2
`), "registry_gc_errors_total", "registry_gc_freed_bytes_total", "registry_gc_removed_blobs_total", "registry_gc_removed_manifests_total", "registry_gc_runs_total")))
}

// TestAllocations checks that counting a request allocates nothing.
func TestAllocations(t *testing.T) {
	m := metrics.New(metrics.Options{})
	e := registry.Event{Request: registry.Request{Op: registry.OpManifestGet}, HTTP: httptest.NewRequest("GET", "/v2/a/manifests/b", nil), Status: 200, Duration: time.Millisecond}
	m.Observe(e)
	qt.Check(t, qt.Equals(testing.AllocsPerRun(100, func() { m.Observe(e) }), 0))
}

func BenchmarkObserve(b *testing.B) {
	m := metrics.New(metrics.Options{})
	e := registry.Event{Request: registry.Request{Op: registry.OpManifestGet}, HTTP: httptest.NewRequest("GET", "/v2/a/manifests/b", nil), Status: 200, Duration: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		m.Observe(e)
	}
}

// TestStream checks that the metrics pass a body through that is sent while the
// request still arrives.
func TestStream(t *testing.T) {
	m := metrics.New(metrics.Options{})
	s := httptest.NewServer(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		qt.Check(t, qt.IsNil(http.NewResponseController(w).Flush()))
		io.Copy(w, bytes.NewReader(make([]byte, 10)))
	})))
	defer s.Close()
	resp, err := http.Get(s.URL)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(body, 10))
}
