// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/leak"
	"github.com/berth-oci/registry/quota"
	"github.com/berth-oci/registry/storetest"
)

func TestMain(m *testing.M) { leak.Main(m) }

func newStore(t *testing.T, inner registry.Store, limits ...quota.Limit) *quota.Store {
	t.Helper()
	s, err := quota.New(t.Context(), inner, limits...)
	qt.Assert(t, qt.IsNil(err))
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		return newStore(t, new(registry.MemStore), quota.Limit{Bytes: 1 << 30})
	})
	storetest.RunHTTP(t, func(t *testing.T) registry.Store { return newStore(t, new(registry.MemStore)) })
}

// TestLimits pushes, one request after the other, to registries with limits.
func TestLimits(t *testing.T) {
	blob := func(n int) string { return strings.Repeat("x", n) }
	d := func(n int) string { return digest.FromString(blob(n)).String() }
	const manifestType = "application/vnd.example+json" // whose content is not parsed
	type request struct {
		method, path, body string
		status             int
		message            string // part of it
	}
	push := func(repo string, n int, status int, message string) request {
		return request{"POST", "/v2/" + repo + "/blobs/uploads/?digest=" + d(n), blob(n), status, message}
	}
	for _, test := range []struct {
		name     string
		limits   []quota.Limit
		requests []request
		want     quota.Usage // in total
	}{
		{"to the last byte", []quota.Limit{{Bytes: 100}}, []request{
			push("a", 60, 201, ""),
			push("a", 41, 403, "quota exceeded: all repositories together may have 100 bytes, with this push there would be 101"),
			push("a", 40, 201, ""),
			{"POST", "/v2/a/blobs/uploads/", "", 403, "may have 100 bytes, with this push there would be 101"},
			{"POST", "/v2/a/blobs/uploads/?mount=" + d(60) + "&from=a", "", 201, ""}, // it is there
			{"POST", "/v2/b/blobs/uploads/?mount=" + d(60) + "&from=a", "", 403, "there would be 160"},
			{"DELETE", "/v2/a/blobs/" + d(60), "", 202, ""},
			{"POST", "/v2/b/blobs/uploads/?mount=" + d(40) + "&from=a", "", 201, ""},
		}, quota.Usage{Blobs: 2, Bytes: 80}},
		{"each repository", []quota.Limit{{Repositories: []string{"team/*"}, Each: true, Bytes: 100}}, []request{
			push("team/a", 100, 201, ""),
			push("team/a", 1, 403, "repository team/a may have 100 bytes, with this push there would be 101"),
			push("team/b", 100, 201, ""),
			push("other", 101, 201, ""),
		}, quota.Usage{Blobs: 3, Bytes: 301}},
		{"repositories together", []quota.Limit{{Repositories: []string{"team/*"}, Bytes: 100}}, []request{
			push("team/a", 60, 201, ""),
			push("team/b", 60, 403, "repositories team/* may have 100 bytes, with this push there would be 120"),
			push("other", 60, 201, ""),
		}, quota.Usage{Blobs: 2, Bytes: 120}},
		{"several limits", []quota.Limit{{Bytes: 100}, {Repositories: []string{"a"}, Bytes: 50}}, []request{
			push("a", 51, 403, "may have 50 bytes"),
			push("b", 60, 201, ""),
			push("a", 41, 403, "may have 100 bytes"),
		}, quota.Usage{Blobs: 1, Bytes: 60}},
		{"manifests", []quota.Limit{{Manifests: 2, Bytes: 100}}, []request{
			{"PUT", "/v2/a/manifests/x", blob(10), 201, ""},
			{"PUT", "/v2/a/manifests/y", blob(10), 201, ""}, // the same
			{"PUT", "/v2/a/manifests/z", blob(91), 403, "there would be 101"},
			{"PUT", "/v2/b/manifests/z", blob(9), 201, ""},
			{"PUT", "/v2/b/manifests/z", blob(8), 403, "quota exceeded: all repositories together may have 2 manifests, with this push there would be 3"},
			{"DELETE", "/v2/b/manifests/" + d(9), "", 202, ""},
			{"PUT", "/v2/b/manifests/z", blob(8), 201, ""},
		}, quota.Usage{Manifests: 2, Bytes: 18}},
		{"in chunks", []quota.Limit{{Bytes: 100}}, []request{
			{"POST", "/v2/a/blobs/uploads/", "", 202, ""},
			{"PATCH", "UPLOAD", blob(60), 202, ""},
			{"PATCH", "UPLOAD", blob(41), 403, "there would be 101"},
			{"PATCH", "UPLOAD", blob(40), 202, ""},
			push("a", 1, 201, ""),
			{"PUT", "UPLOAD?digest=" + d(100), "", 403, "there would be 101"},
			{"DELETE", "/v2/a/blobs/" + d(1), "", 202, ""},
			{"PUT", "UPLOAD?digest=" + d(100), "", 201, ""},
		}, quota.Usage{Blobs: 1, Bytes: 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inner := new(registry.MemStore)
			s := newStore(t, inner, test.limits...)
			h := registry.New(registry.WithStore(s))
			upload := ""
			for _, q := range test.requests {
				r := httptest.NewRequest(q.method, strings.Replace(q.path, "UPLOAD", upload, 1), strings.NewReader(q.body))
				if strings.Contains(q.path, "/manifests/") {
					r.Header.Set("Content-Type", manifestType)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				qt.Check(t, qt.Equals(w.Code, q.status), qt.Commentf("%s %s: %s", q.method, q.path, w.Body))
				qt.Check(t, qt.StringContains(w.Body.String(), q.message))
				if w.Code == 403 {
					qt.Check(t, qt.StringContains(w.Body.String(), `"DENIED"`))
				}
				if w.Code == 202 && q.method != "DELETE" {
					upload = w.Header().Get("Location")
				}
			}
			qt.Check(t, qt.Equals(s.Total(), test.want))
			again := newStore(t, inner, test.limits...) // as after a restart
			qt.Check(t, qt.Equals(again.Total(), test.want))
			qt.Check(t, qt.DeepEquals(maps.Collect(again.All()), maps.Collect(s.All())))
		})
	}
}

// TestAnnouncedBytes checks that a client which announces too many bytes need not send
// them.
func TestAnnouncedBytes(t *testing.T) {
	h := registry.New(registry.WithStore(newStore(t, new(registry.MemStore), quota.Limit{Bytes: 100})))
	r := httptest.NewRequest("POST", "/v2/a/blobs/uploads/?digest="+digest.FromString("x").String(), failingReader{t})
	r.ContentLength = 101
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	qt.Check(t, qt.Equals(w.Code, 403))
}

type failingReader struct{ t *testing.T }

func (r failingReader) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, http.ErrBodyReadAfterClose
}

// TestParallelPushes pushes more than the limit at the same time, in various ways, and
// deletes. The registry never has more than the limit, and its counts stay right.
func TestParallelPushes(t *testing.T) {
	const limit = 1 << 20
	inner := new(registry.MemStore)
	s := newStore(t, inner, quota.Limit{Bytes: limit})
	server := httptest.NewServer(registry.New(registry.WithStore(s)))
	defer server.Close()
	var accepted, rejected atomic.Int64
	check := func() {
		var sum int64
		snapshot := inner.Clone() // a list that takes time would count what moves twice
		for repo := range snapshot.Repositories(context.Background(), "") {
			for info, err := range snapshot.Blobs(context.Background(), repo, "") {
				if err == nil {
					sum += info.Size
				}
			}
		}
		if sum > limit {
			t.Errorf("the registry has %d bytes", sum)
		}
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range 100 {
				repo := fmt.Sprint("r", r.IntN(3))
				data := bytes.Repeat([]byte{byte(r.IntN(40))}, 50_000+r.IntN(3)*10_000)
				d := digest.FromBytes(data)
				var err error
				var resp *http.Response
				switch r.IntN(4) {
				case 0:
					req, _ := http.NewRequest("DELETE", server.URL+"/v2/"+repo+"/blobs/"+string(d), nil)
					resp, err = http.DefaultClient.Do(req)
				case 1: // chunked: the size is not announced
					resp, err = http.Post(server.URL+"/v2/"+repo+"/blobs/uploads/?digest="+string(d), "", struct{ *bytes.Buffer }{bytes.NewBuffer(data)})
				case 2:
					resp, err = http.Post(server.URL+"/v2/"+repo+"/blobs/uploads/?from=r0&mount="+string(d), "", nil)
				default:
					resp, err = http.Post(server.URL+"/v2/"+repo+"/blobs/uploads/?digest="+string(d), "", bytes.NewReader(data))
				}
				if err != nil {
					continue // the registry has closed the connection of a push that it has rejected
				}
				resp.Body.Close()
				switch resp.StatusCode {
				case 201:
					accepted.Add(1)
				case 403:
					rejected.Add(1)
				}
				check()
			}
		}()
	}
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	qt.Check(t, qt.IsTrue(accepted.Load() > 0 && rejected.Load() > 0), qt.Commentf("%d accepted, %d rejected", accepted.Load(), rejected.Load()))
	counted := maps.Collect(s.All())
	qt.Assert(t, qt.IsNil(s.Recount(t.Context())))
	qt.Check(t, qt.DeepEquals(counted, maps.Collect(s.All())))
}

func TestInvalidLimits(t *testing.T) {
	for _, l := range []quota.Limit{{}, {Bytes: -1}, {Bytes: 1, Repositories: []string{"["}}} {
		_, err := quota.New(t.Context(), new(registry.MemStore), l)
		qt.Check(t, qt.ErrorMatches(err, "quota: limit 0: .*"))
	}
}

// TestSetLimits changes the limits while a push is in progress.
func TestSetLimits(t *testing.T) {
	s := newStore(t, new(registry.MemStore), quota.Limit{Bytes: 10})
	push := func(repo, content string) error {
		return registry.PushBlob(t.Context(), s, repo, digest.FromString(content), strings.NewReader(content))
	}
	qt.Assert(t, qt.IsNil(push("a", "12345")))
	u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	defer u.Close()
	_, err = u.ReadFrom(strings.NewReader("abc"))
	qt.Assert(t, qt.IsNil(err))

	qt.Check(t, qt.ErrorMatches(s.SetLimits(quota.Limit{}), "quota: limit 0: .*"))
	qt.Assert(t, qt.IsNil(s.SetLimits(quota.Limit{Repositories: []string{"a"}, Bytes: 8}, quota.Limit{Repositories: []string{"b"}, Bytes: 2})))
	qt.Check(t, qt.ErrorIs(push("a", "6789"), registry.ErrDenied))
	qt.Check(t, qt.ErrorIs(push("b", "xyz"), registry.ErrDenied))
	qt.Check(t, qt.IsNil(u.Commit(t.Context(), digest.FromString("abc"))))
	qt.Check(t, qt.ErrorIs(push("a", "0"), registry.ErrDenied))
	qt.Assert(t, qt.IsNil(s.SetLimits()))
	qt.Check(t, qt.IsNil(push("a", "6789")))
	qt.Check(t, qt.Equals(s.Usage("a").Bytes, 12))
}
