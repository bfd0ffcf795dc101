// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

// TestMistakes tests for each of the mistakes listed at the end of ARCHITECTURE.md.
// Each shipped in a registry that people use.
func TestMistakes(t *testing.T) {
	t.Run("a_global_lock_held_while_a_body_is_read", func(t *testing.T) {
		h := registry.New()
		patched, put := start(t, h, "a"), start(t, h, "a")
		bodies := []*stalled{newStalled("a"), newStalled("b"), newStalled("c"), newStalled("d")}
		responses := []<-chan *httptest.ResponseRecorder{
			serveStalled(h, "PATCH", patched, bodies[0]),
			serveStalled(h, "PUT", put+"?digest="+sha("b"), bodies[1]),
			serveStalled(h, "POST", "/v2/a/blobs/uploads/?digest="+sha("c"), bodies[2]),
			serveStalled(h, "PUT", "/v2/a/manifests/stalled", bodies[3]),
		}
		everything(t, h)
		for i, status := range []int{202, 201, 201, 201} {
			bodies[i].w.Close()
			qt.Check(t, qt.Equals((<-responses[i]).Code, status))
		}
	})
	t.Run("a_lock_held_while_a_body_is_written", func(t *testing.T) {
		h := registry.New()
		data := strings.Repeat("x", 1<<20)
		pushBlob("a", data).do(t, h)
		for i := range 300 {
			pushManifest("a", fmt.Sprintf("tag%d", i), "text/plain", "m").do(t, h)
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, url := range []string{"/v2/a/blobs/" + sha(data), "/v2/a/tags/list", "/v2/a/manifests/tag0"} {
			w := &stalledWriter{ResponseRecorder: httptest.NewRecorder(), writing: make(chan struct{}), proceed: make(chan struct{})}
			wg.Add(1)
			go func() {
				defer wg.Done()
				h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
			}()
			<-w.writing
			defer close(w.proceed)
		}
		everything(t, h)
	})

	t.Run("tags_list_with_n_0_and_n_-1_panics", func(t *testing.T) {
		h := registry.New()
		run(t, h, []call{
			pushManifest("a", "tag", "text/plain", "m"),
			{url: "/v2/a/tags/list?n=0", status: 200, wantBody: `{"name":"a","tags":[]}`, wantHeader: map[string]string{"Link": ""}},
			{url: "/v2/a/tags/list?n=-1", status: 400},
			{url: "/v2/_catalog?n=-1", status: 400},
		})
	})
	t.Run("a_huge_n_allocates", func(t *testing.T) {
		h := registry.New()
		pushManifest("a", "tag", "text/plain", "m").do(t, h)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		call{url: "/v2/a/tags/list?n=999999999999999999999", status: 200, wantBody: `{"name":"a","tags":["tag"]}`}.do(t, h)
		call{url: "/v2/a/tags/list?n=2147483647", status: 200, wantBody: `{"name":"a","tags":["tag"]}`}.do(t, h)
		runtime.ReadMemStats(&after)
		qt.Check(t, qt.IsTrue(after.TotalAlloc-before.TotalAlloc < 10<<20))
	})
	t.Run("last_past_the_end_restarts_the_list", func(t *testing.T) {
		h := registry.New()
		run(t, h, []call{
			pushManifest("a", "tag", "text/plain", "m"),
			{url: "/v2/a/tags/list?last=zzz", status: 200, wantBody: `{"name":"a","tags":[]}`},
			{url: "/v2/_catalog?last=zzz", status: 200, wantBody: `{"repositories":[]}`},
		})
	})

	t.Run("a_manifest_PUT_by_a_wrong_digest_is_201", func(t *testing.T) {
		run(t, registry.New(), []call{
			{method: "PUT", url: "/v2/a/manifests/" + otherDigest, body: "m", status: 400, wantCode: "DIGEST_INVALID"},
			{url: "/v2/a/manifests/" + otherDigest, status: 404},
		})
	})
	t.Run("a_body_cut_short_by_the_client_is_201_or_202", func(t *testing.T) {
		h := registry.New()
		s := httptest.NewServer(h)
		defer s.Close()
		for _, c := range []struct{ method, url string }{
			{"PATCH", start(t, h, "a")},
			{"PUT", start(t, h, "a") + "?digest=" + sha("hello")},
			{"POST", "/v2/a/blobs/uploads/?digest=" + sha("hello")},
			{"PUT", "/v2/a/manifests/tag"},
		} {
			resp := request(t, s.Listener.Addr().String(), c.method+" "+c.url+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello")
			qt.Check(t, qt.Equals(resp.StatusCode, 400), qt.Commentf("%s %s", c.method, c.url))
		}
		call{url: "/v2/_catalog", status: 200, wantBody: `{"repositories":[]}`}.do(t, h)
	})

	t.Run("a_session_used_through_another_repository", func(t *testing.T) {
		h := registry.New()
		loc := start(t, h, "a")
		other := strings.Replace(loc, "/a/", "/b/", 1)
		run(t, h, []call{
			{method: "PATCH", url: other, body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
			{method: "PUT", url: other + "?digest=" + sha(hello), body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
			{url: other, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
			{method: "DELETE", url: other, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
			{url: loc, status: 204},
		})
	})
	t.Run("a_session_used_after_it_was_cancelled", func(t *testing.T) {
		h := registry.New()
		loc := start(t, h, "a")
		run(t, h, []call{
			{method: "DELETE", url: loc, status: 204},
			{method: "PATCH", url: loc, body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
			{method: "PUT", url: loc + "?digest=" + sha(hello), body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		})
	})

	t.Run("Range_bytes=5-2_is_206_with_a_negative_length", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushBlob("a", hello),
			{url: "/v2/a/blobs/" + sha(hello), header: map[string]string{"Range": "bytes=5-2"}, status: 416, wantHeader: map[string]string{"Content-Range": "bytes */12"}},
		})
	})
	t.Run("a_range_past_the_end_is_rejected_instead_of_clamped", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushBlob("a", hello),
			{url: "/v2/a/blobs/" + sha(hello), header: map[string]string{"Range": "bytes=7-99"}, status: 206, wantBody: "world"},
		})
	})

	t.Run("DELETE_of_a_digest_leaves_its_tags_serving", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushManifest("a", "tag", "text/plain", "m"),
			{method: "DELETE", url: "/v2/a/manifests/" + sha("m"), status: 202},
			{url: "/v2/a/manifests/tag", status: 404},
		})
	})
	t.Run("DELETE_of_a_tag_deletes_the_manifest", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushManifest("a", "tag", "text/plain", "m"),
			{method: "DELETE", url: "/v2/a/manifests/tag", status: 202},
			{url: "/v2/a/manifests/" + sha("m"), status: 200},
			{url: "/v2/a/manifests/tag", status: 404},
		})
	})
	t.Run("deletes_that_ignore_the_switch_that_disables_them", func(t *testing.T) {
		for _, off := range []registry.Option{registry.NoDelete(), registry.ReadOnly()} {
			store := new(registry.MemStore)
			run(t, registry.New(registry.WithStore(store)), []call{pushBlob("a", "b"), pushManifest("a", "tag", "text/plain", "m")})
			run(t, registry.New(registry.WithStore(store), off), []call{
				{method: "DELETE", url: "/v2/a/manifests/tag", status: 405},
				{method: "DELETE", url: "/v2/a/manifests/" + sha("m"), status: 405},
				{method: "DELETE", url: "/v2/a/blobs/" + sha("b"), status: 405},
				{url: "/v2/a/manifests/tag", status: 200},
				{url: "/v2/a/blobs/" + sha("b"), status: 200},
			})
		}
	})

	t.Run("a_blob_deleted_in_one_repository_comes_back_after_it_is_read_in_another", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushBlob("a", "b"), pushBlob("other", "b"), pushManifest("a", "tag", "text/plain", "m"),
			{method: "DELETE", url: "/v2/a/blobs/" + sha("b"), status: 202},
			{url: "/v2/other/blobs/" + sha("b"), status: 200},
			{url: "/v2/a/blobs/" + sha("b"), status: 404, wantCode: "BLOB_UNKNOWN"},
		})
	})
	t.Run("a_mount_that_reads_from_a_repository_that_the_caller_may_not_pull_from", TestMountRequiresPullAccess)
	t.Run("a_create-only_user_overwrites_a_tag", func(t *testing.T) {
		inner := registry.New()
		// Like a user who may create tags but not move them.
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if req, err := registry.ParseRequest(r); err == nil && req.Op == registry.OpManifestPut {
				r.Header.Set("If-None-Match", "*")
			}
			inner.ServeHTTP(w, r)
		})
		statuses := make(chan int)
		for i := range 20 {
			go func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/a/manifests/tag", strings.NewReader(fmt.Sprint(i))))
				statuses <- w.Code
			}()
		}
		count := make(map[int]int)
		for range 20 {
			count[<-statuses]++
		}
		qt.Check(t, qt.DeepEquals(count, map[int]int{201: 1, 412: 19}))
	})

	t.Run("referrers_are_404_for_an_unknown_repository", func(t *testing.T) {
		call{url: "/v2/unknown/referrers/" + sha("x"), status: 200, wantBody: noReferrers}.do(t, registry.New())
	})
	t.Run("referrers_are_null_for_an_empty_list", func(t *testing.T) {
		run(t, registry.New(), []call{
			pushManifest("a", "tag", "text/plain", "m"),
			{url: "/v2/a/referrers/" + sha("m"), status: 200, wantBody: noReferrers},
		})
	})
	t.Run("annotations_or_artifactType_missing_in_referrers", TestReferrers)

	t.Run("a_plain-text_429", func(t *testing.T) {
		h := registry.New(registry.WithStore(&registry.MemStore{Limits: registry.MemLimits{Uploads: 1}}))
		start(t, h, "a")
		call{method: "POST", url: "/v2/a/blobs/uploads/", status: 429, wantCode: "TOOMANYREQUESTS"}.do(t, h)
	})
	t.Run("a_500_for_malformed_JSON", TestMalformedManifests)
	t.Run("an_error_that_prints_the_blob", func(t *testing.T) {
		const secret = "s3cr3t-s3cr3t"
		for _, c := range []call{
			{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + otherDigest, body: secret, status: 400},
			{method: "PUT", url: "/v2/a/manifests/tag", header: map[string]string{"Content-Type": typeImage}, body: secret, status: 400},
			{method: "PUT", url: "/v2/a/manifests/tag", header: map[string]string{"Content-Type": typeImage}, body: `{"layers":"` + secret + `"}`, status: 400},
			{method: "PUT", url: "/v2/a/manifests/tag", header: map[string]string{"Content-Type": typeImage}, body: `{"layers":[{"digest":"` + secret + `"}]}`, status: 400},
		} {
			w := c.do(t, registry.New())
			qt.Check(t, qt.IsFalse(strings.Contains(w.Body.String(), "s3cr3t")))
		}
	})

	t.Run("two_instances_on_one_store_lose_each_other's_tags_after_both_responded_201", func(t *testing.T) {
		store := new(registry.MemStore)
		var wg sync.WaitGroup
		for i := range 2 {
			h := registry.New(registry.WithStore(store))
			wg.Add(1)
			go func() {
				defer wg.Done()
				for j := range 100 {
					pushManifest("a", fmt.Sprintf("%d-%d", i, j), "text/plain", fmt.Sprint(i)).do(t, h)
				}
			}()
		}
		wg.Wait()
		all := follow(t, registry.New(registry.WithStore(store)), "/v2/a/tags/list", nil)
		qt.Check(t, qt.Equals(len(all), 200))
	})
	t.Run("media-type_confusion", func(t *testing.T) {
		h := registry.New(registry.AllowSparse())
		both := `{"layers":[],"config":` + descriptor("x/y", "x") + `,"manifests":[]}`
		for _, mediaType := range []string{typeImage, typeIndex, typeDocker, typeDockerList, typeSchema1} {
			c := pushManifest("a", "tag", mediaType, both)
			c.status, c.wantCode = 400, "MANIFEST_INVALID"
			c.do(t, h)
		}
		c := pushManifest("a", "tag", typeImage, `{"mediaType":"`+typeIndex+`"}`)
		c.status, c.wantCode = 400, "MANIFEST_INVALID"
		c.do(t, h)
	})
}

// everything sends a request of each kind to h. None of them may wait for another
// client.
func everything(t *testing.T, h http.Handler) {
	t.Helper()
	loc := start(t, h, "a")
	cancelled := start(t, h, "a")
	run(t, h, []call{
		{url: "/v2/", status: 200},
		pushBlob("a", hello),
		{method: "PATCH", url: loc, body: "x", status: 202},
		{url: loc, status: 204},
		{method: "PUT", url: loc + "?digest=" + sha("x"), status: 201},
		{method: "DELETE", url: cancelled, status: 204},
		{method: "POST", url: "/v2/mounted/blobs/uploads/?from=a&mount=" + sha(hello), status: 201},
		{url: "/v2/a/blobs/" + sha(hello), status: 200, wantBody: hello},
		pushManifest("a", "everything", "text/plain", "m"),
		{url: "/v2/a/manifests/everything", status: 200},
		{url: "/v2/a/tags/list", status: 200},
		{url: "/v2/_catalog", status: 200},
		{url: "/v2/a/referrers/" + sha("m"), status: 200},
		{method: "DELETE", url: "/v2/a/manifests/everything", status: 202},
		{method: "DELETE", url: "/v2/mounted/blobs/" + sha(hello), status: 202},
	})
}

// stalledWriter is a client that does not read: the first Write blocks.
type stalledWriter struct {
	*httptest.ResponseRecorder
	once             sync.Once
	writing, proceed chan struct{}
}

func (w *stalledWriter) Write(p []byte) (int, error) {
	w.once.Do(func() {
		close(w.writing)
		<-w.proceed
	})
	return w.ResponseRecorder.Write(p)
}

// TestStalledClients connects a client that stops sending midway and one that stops
// reading, and checks that others are served meanwhile.
func TestStalledClients(t *testing.T) {
	h := registry.New()
	s := httptest.NewServer(h)
	defer s.Close()
	big := strings.Repeat("0123456789abcdef", 1<<20) // more than the sockets' buffers hold
	pushBlob("a", big).do(t, h)
	loc := start(t, h, "a")

	dial := func(request string) net.Conn {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		_, err = io.WriteString(conn, request)
		qt.Assert(t, qt.IsNil(err))
		return conn
	}
	up := dial("PATCH " + loc + " HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nhello")
	defer up.Close()
	down := dial("GET /v2/a/blobs/" + sha(big) + " HTTP/1.1\r\nHost: x\r\n\r\n")
	defer down.Close()
	_, err := io.ReadFull(down, make([]byte, 1000))
	qt.Assert(t, qt.IsNil(err))

	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			data := fmt.Sprint(i)
			for _, c := range []struct{ method, path, body string }{
				{"POST", "/v2/a/blobs/uploads/?digest=" + sha(data), data},
				{"GET", "/v2/a/blobs/" + sha(data), ""},
				{"PUT", "/v2/a/manifests/" + data, data},
				{"GET", "/v2/a/manifests/" + data, ""},
				{"GET", "/v2/a/tags/list", ""},
				{"GET", loc, ""},
			} {
				r, _ := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
				resp, err := s.Client().Do(r)
				if err != nil || resp.StatusCode >= 300 {
					t.Errorf("%s %s: %v %v", c.method, c.path, resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}()
	<-done // if either of the two held a lock, the test would time out
	io.WriteString(up, ", world")
	resp := make([]byte, 12)
	_, err = io.ReadFull(up, resp)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(resp), "HTTP/1.1 202"))
}
