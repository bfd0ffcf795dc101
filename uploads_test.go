// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

const (
	hello       = "hello, world"
	otherDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
)

func TestPushPostPut(t *testing.T) {
	h := registry.New()
	loc := start(t, h, "a/b")
	qt.Assert(t, qt.Matches(loc, `/v2/a/b/blobs/uploads/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`))
	run(t, h, []call{
		{method: "PUT", url: loc + "?digest=" + sha(hello), body: hello, status: 201, wantHeader: map[string]string{
			"Location": "/v2/a/b/blobs/" + sha(hello), "Docker-Content-Digest": sha(hello),
		}},
		{url: "/v2/a/b/blobs/" + sha(hello), status: 200, wantBody: hello},
		// The closing PUT has ended the session.
		{method: "PUT", url: loc + "?digest=" + sha(hello), body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{method: "PATCH", url: loc, body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{url: loc, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{method: "DELETE", url: loc, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
	})
}

func TestPushSinglePost(t *testing.T) {
	h := registry.New()
	run(t, h, []call{
		pushBlob("a", hello),
		pushBlob("a", ""),
		{url: "/v2/a/blobs/" + sha(""), status: 200, wantHeader: map[string]string{"Content-Length": "0"}},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + sha("other"), body: hello, status: 400, wantCode: "DIGEST_INVALID"},
		{url: "/v2/a/blobs/" + sha("other"), status: 404, wantCode: "BLOB_UNKNOWN"},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=blake3:" + strings.Repeat("a", 64), body: hello, status: 400, wantCode: "DIGEST_INVALID"},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=", body: hello, status: 400, wantCode: "DIGEST_INVALID"},
	})
}

func TestPushStreamed(t *testing.T) {
	h := registry.New()
	loc := start(t, h, "a")
	run(t, h, []call{
		{method: "PATCH", url: loc, body: "hello", status: 202, wantHeader: map[string]string{"Location": loc, "Range": "0-4"}},
		{method: "PATCH", url: loc, body: ", world", status: 202, wantHeader: map[string]string{"Range": "0-11"}},
		{method: "PATCH", url: loc, status: 202, wantHeader: map[string]string{"Range": "0-11"}},
		{method: "PUT", url: loc + "?digest=" + sha(hello), status: 201},
		{url: "/v2/a/blobs/" + sha(hello), status: 200, wantBody: hello},
	})
}

func TestPushChunked(t *testing.T) {
	for _, last := range []string{"PATCH", "PUT"} {
		t.Run("last_chunk_by_"+last, func(t *testing.T) {
			h := registry.New()
			loc := start(t, h, "a")
			chunk := func(from, to int) map[string]string {
				return map[string]string{"Content-Range": fmt.Sprintf("%d-%d", from, to)}
			}
			progress := map[string]string{"Location": loc, "Range": "0-4"}
			put := loc + "?digest=" + sha(hello)
			run(t, h, []call{
				{name: "not from 0", method: "PATCH", url: loc, header: chunk(1, 5), body: "ello,", status: 416, wantCode: "BLOB_UPLOAD_INVALID", wantHeader: map[string]string{"Location": loc, "Range": "0-0"}},
				{method: "PATCH", url: loc, header: chunk(0, 4), body: "hello", status: 202, wantHeader: progress},
				{name: "again", method: "PATCH", url: loc, header: chunk(0, 4), body: "hello", status: 416, wantCode: "BLOB_UPLOAD_INVALID", wantHeader: progress},
				{name: "a gap", method: "PATCH", url: loc, header: chunk(6, 11), body: " world", status: 416, wantHeader: progress},
				{name: "a gap in the closing PUT", method: "PUT", url: put, header: chunk(6, 11), body: " world", status: 416, wantCode: "BLOB_UPLOAD_INVALID", wantHeader: progress},
				{url: loc, status: 204, wantHeader: progress},
				{name: "short", method: "PATCH", url: loc, header: chunk(5, 11), body: ", wo", status: 400, wantCode: "SIZE_INVALID"},
				{name: "long", method: "PATCH", url: loc, header: chunk(5, 7), body: ", wo", status: 400, wantCode: "SIZE_INVALID"},
				{name: "HTTP's own form", method: "PATCH", url: loc, header: map[string]string{"Content-Range": "bytes 5-11/12"}, body: ", world", status: 400, wantCode: "UNSUPPORTED"},
				{name: "reversed", method: "PATCH", url: loc, header: map[string]string{"Content-Range": "5-3"}, status: 400, wantCode: "UNSUPPORTED"},
				{name: "overflow", method: "PATCH", url: loc, header: map[string]string{"Content-Range": "0-18446744073709551615"}, body: "x", status: 400, wantCode: "UNSUPPORTED"},
				{name: "signed", method: "PATCH", url: loc, header: map[string]string{"Content-Range": "+5-+11"}, body: ", world", status: 400, wantCode: "UNSUPPORTED"},
				{name: "an end before the start is an empty chunk", method: "PATCH", url: loc, header: chunk(5, 4), status: 202, wantHeader: progress},
				{name: "an empty chunk has no body", method: "PATCH", url: loc, header: chunk(5, 4), body: "x", status: 400, wantCode: "SIZE_INVALID"},
				{name: "nothing changed", url: loc, status: 204, wantHeader: progress},
			})
			if last == "PATCH" {
				run(t, h, []call{
					{method: "PATCH", url: loc, header: chunk(5, 11), body: ", world", status: 202, wantHeader: map[string]string{"Range": "0-11"}},
					{method: "PUT", url: put, status: 201},
				})
			} else {
				call{method: "PUT", url: put, header: chunk(5, 11), body: ", world", status: 201}.do(t, h)
			}
			call{url: "/v2/a/blobs/" + sha(hello), status: 200, wantBody: hello}.do(t, h)
		})
	}
}

// TestRejectedCloseChangesNothing sends closing PUTs that are rejected, and then
// one that is accepted.
func TestRejectedCloseChangesNothing(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		t.Run(string(algorithm), func(t *testing.T) {
			h := registry.New()
			loc := call{method: "POST", url: "/v2/a/blobs/uploads/?digest-algorithm=" + string(algorithm), status: 202}.do(t, h).Header().Get("Location")
			progress := map[string]string{"Range": "0-4"}
			run(t, h, []call{
				{method: "PATCH", url: loc, body: "hello", status: 202, wantHeader: progress},
				{method: "PUT", url: loc + "?digest=" + otherDigest, body: ", world", status: 400, wantCode: "DIGEST_INVALID"},
				{method: "PUT", url: loc, body: ", world", status: 400, wantCode: "DIGEST_INVALID"},
				{method: "PUT", url: loc + "?digest=md5:1234", body: ", world", status: 400, wantCode: "DIGEST_INVALID"},
				{url: loc, status: 204, wantHeader: progress},
				{url: "/v2/a/tags/list", status: 404},
				{method: "PUT", url: loc + "?digest=" + algorithm.FromString(hello).String(), body: ", world", status: 201},
				{url: "/v2/a/blobs/" + algorithm.FromString(hello).String(), status: 200, wantBody: hello, wantHeader: map[string]string{"Docker-Content-Digest": algorithm.FromString(hello).String()}},
			})
		})
	}
}

func TestDigestAlgorithm(t *testing.T) {
	h := registry.New()
	run(t, h, []call{
		{method: "POST", url: "/v2/a/blobs/uploads/?digest-algorithm=md5", status: 400, wantCode: "DIGEST_INVALID"},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + sha512(hello), body: hello, status: 201},
		{url: "/v2/a/blobs/" + sha512(hello), status: 200, wantBody: hello},
		{url: "/v2/a/blobs/" + sha(hello), status: 404},
	})
	// A client may use an algorithm that it did not announce.
	loc := start(t, h, "b")
	run(t, h, []call{
		{method: "PATCH", url: loc, body: hello, status: 202},
		{method: "PUT", url: loc + "?digest=" + sha512(hello), status: 201},
		{url: "/v2/b/blobs/" + sha512(hello), status: 200, wantBody: hello},
	})
}

// TestCloseWithAnEmptyRange sends the ranges that clients send with an empty body.
func TestCloseWithAnEmptyRange(t *testing.T) {
	h := registry.New()
	put := func(data, contentRange string, status int) {
		loc := start(t, h, "a")
		run(t, h, []call{
			{method: "PATCH", url: loc, body: data, status: 202},
			{method: "PUT", url: loc + "?digest=" + sha(data), header: map[string]string{"Content-Range": contentRange}, status: status},
		})
	}
	put("", "0-0", 201)
	put("hello", "5-4", 201)
	put("hello", "0-0", 416)
	put("hello", "4-4", 416)
	put("hello", "5-5", 400)
}

func TestCancelUpload(t *testing.T) {
	h := registry.New()
	loc := start(t, h, "a")
	run(t, h, []call{
		{method: "PATCH", url: loc, body: hello, status: 202},
		{method: "DELETE", url: strings.Replace(loc, "/a/", "/b/", 1), status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{method: "DELETE", url: loc, status: 204},
		{method: "DELETE", url: loc, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{method: "PUT", url: loc + "?digest=" + sha(hello), status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
	})
}

func TestClientUploadIDs(t *testing.T) {
	h := registry.New(registry.ClientUploadIDs())
	mine := "/v2/a/blobs/uploads/mine"
	run(t, h, []call{
		{url: mine, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{name: "rejected requests open no session", method: "PUT", url: mine + "?digest=" + otherDigest, body: "x", status: 400},
		{method: "PATCH", url: mine, header: map[string]string{"Content-Range": "3-4"}, body: "lo", status: 416},
		{url: mine, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{method: "PATCH", url: mine, body: hello, status: 202},
		{name: "an ID belongs to a repository", method: "PATCH", url: "/v2/b/blobs/uploads/mine", body: "another", status: 202, wantHeader: map[string]string{"Range": "0-6"}},
		{url: mine, status: 204, wantHeader: map[string]string{"Range": "0-11"}},
		{method: "PUT", url: mine + "?digest=" + sha(hello), status: 201},
		{name: "the maximum length", method: "PATCH", url: "/v2/a/blobs/uploads/" + strings.Repeat("x", 128), body: hello, status: 202},
		{name: "too long", method: "PATCH", url: "/v2/a/blobs/uploads/" + strings.Repeat("x", 129), body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{name: "all kinds of valid characters", method: "PATCH", url: "/v2/a/blobs/uploads/A-z_0.9=", body: hello, status: 202, wantHeader: map[string]string{"Location": "/v2/a/blobs/uploads/A-z_0.9="}},
		{name: "invalid characters", method: "PATCH", url: "/v2/a/blobs/uploads/%20%22", body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{name: "a line break", method: "PATCH", url: "/v2/a/blobs/uploads/x%0d%0ay", body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
		{name: "the parent folder", method: "PATCH", url: "/v2/a/blobs/uploads/%2e%2e", body: hello, status: 404, wantCode: "BLOB_UPLOAD_UNKNOWN"},
	})
}

func TestMount(t *testing.T) {
	h := registry.New()
	d := sha(hello)
	mounted := map[string]string{"Location": "/v2/b/blobs/" + d, "Docker-Content-Digest": d}
	session := regexp.MustCompile(`^/v2/[bce]/blobs/uploads/[-0-9a-f]{36}$`)
	run(t, h, []call{pushBlob("a", hello), pushManifest("d", "tag", "text/plain", "x")})
	for _, c := range []call{
		{name: "from", url: "/v2/b/blobs/uploads/?mount=" + d + "&from=a", status: 201, wantHeader: mounted},
		{name: "from itself", url: "/v2/b/blobs/uploads/?mount=" + d + "&from=b", status: 201, wantHeader: mounted},
		{name: "without from, itself", url: "/v2/b/blobs/uploads/?mount=" + d, status: 201, wantHeader: mounted},
		{name: "without from", url: "/v2/c/blobs/uploads/?mount=" + d, status: 201},
		{name: "from a repository without it", url: "/v2/e/blobs/uploads/?mount=" + d + "&from=d", status: 202},
		{name: "from an unknown repository", url: "/v2/e/blobs/uploads/?mount=" + d + "&from=unknown", status: 202},
		{name: "of an unknown blob", url: "/v2/e/blobs/uploads/?mount=" + otherDigest, status: 202},
		{name: "malformed from", url: "/v2/e/blobs/uploads/?mount=" + d + "&from=UPPER", status: 400, wantCode: "NAME_INVALID"},
		{name: "malformed digest", url: "/v2/e/blobs/uploads/?mount=sha256:1&from=a", status: 400, wantCode: "DIGEST_INVALID"},
	} {
		c.method = "POST"
		w := c.do(t, h)
		if w.Code == 202 {
			qt.Check(t, qt.IsTrue(session.MatchString(w.Header().Get("Location"))))
		}
	}
	run(t, h, []call{
		{url: "/v2/b/blobs/" + d, status: 200, wantBody: hello},
		{url: "/v2/c/blobs/" + d, status: 200, wantBody: hello},
		{url: "/v2/e/blobs/" + d, status: 404},
		// A mount does not depend on the repository that it came from.
		{method: "DELETE", url: "/v2/a/blobs/" + d, status: 202},
		{url: "/v2/b/blobs/" + d, status: 200, wantBody: hello},
	})

	// The session that a mount falls back to accepts the same blob.
	w := call{method: "POST", url: "/v2/e/blobs/uploads/?mount=" + sha512("new"), status: 202}.do(t, h)
	call{method: "PUT", url: w.Header().Get("Location") + "?digest=" + sha512("new"), body: "new", status: 201}.do(t, h)
}

func TestMountRequiresPullAccess(t *testing.T) {
	inner := registry.New()
	run(t, inner, []call{pushBlob("secret", hello), pushBlob("open", "open")})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := registry.WithPullScope(r.Context(), func(repo string) bool { return repo != "secret" })
		inner.ServeHTTP(w, r.WithContext(ctx))
	})
	run(t, h, []call{
		{method: "POST", url: "/v2/mine/blobs/uploads/?mount=" + sha(hello), status: 202},
		{method: "POST", url: "/v2/mine/blobs/uploads/?mount=" + sha(hello) + "&from=secret", status: 202},
		{method: "POST", url: "/v2/mine/blobs/uploads/?mount=" + sha("open"), status: 201},
		{url: "/v2/mine/blobs/" + sha(hello), status: 404},
	})
}

func TestUploadLimits(t *testing.T) {
	h := registry.New(registry.WithLimits(registry.Limits{BlobBytes: 12}))
	loc := start(t, h, "a")
	run(t, h, []call{
		{method: "PATCH", url: loc, body: "seven b", status: 202},
		{name: "a byte too many for the session", method: "PATCH", url: loc, body: "sixsix", status: 413, wantCode: "SIZE_INVALID"},
		{name: "all that fits", method: "PATCH", url: loc, body: "fives", status: 202, wantHeader: map[string]string{"Range": "0-11"}},
		{method: "PATCH", url: loc, body: "x", status: 413, wantCode: "SIZE_INVALID"},
	})

	h = registry.New(
		registry.WithLimits(registry.Limits{BlobBytes: 12}),
		registry.WithStore(&registry.MemStore{Limits: registry.MemLimits{Uploads: 2}}))
	long := hello + "!"
	loc = start(t, h, "a")
	run(t, h, []call{
		pushBlob("a", hello),
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + sha(long), body: long, status: 413, wantCode: "SIZE_INVALID"},
		{method: "PATCH", url: loc, body: long, status: 413, wantCode: "SIZE_INVALID"},
		{method: "PATCH", url: loc, header: map[string]string{"Content-Range": "0-12"}, body: long, status: 413, wantCode: "SIZE_INVALID"},
		{method: "PATCH", url: loc, body: "hello", status: 202},
		{method: "PATCH", url: loc, body: ", world!", status: 413, wantCode: "SIZE_INVALID"},
		{method: "PUT", url: loc + "?digest=" + sha(long), body: ", world!", status: 413, wantCode: "SIZE_INVALID"},
		{url: loc, status: 204, wantHeader: map[string]string{"Range": "0-4"}},
		{url: "/v2/a/blobs/" + sha(long), status: 404},
	})
	start(t, h, "a")
	run(t, h, []call{
		{method: "POST", url: "/v2/a/blobs/uploads/", status: 429, wantCode: "TOOMANYREQUESTS", wantHeader: map[string]string{"Retry-After": "10"}},
		{method: "DELETE", url: loc, status: 204},
	})
	start(t, h, "a")
}

// request writes a raw request to a server, closes the connection for writing, and
// returns the response.
func request(t *testing.T, addr, raw string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	defer conn.Close()
	_, err = io.WriteString(conn, raw)
	qt.Assert(t, qt.IsNil(err))
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	qt.Assert(t, qt.IsNil(err))
	return resp
}

func TestBodyCutShort(t *testing.T) {
	for _, framing := range []struct{ name, header, body string }{
		{"content_length", "Content-Length: 12", "hello"},
		{"chunked", "Transfer-Encoding: chunked", "5\r\nhello\r\n"},
		{"malformed_chunks", "Transfer-Encoding: chunked", "5\r\nhello\r\nzzz\r\n"},
	} {
		t.Run(framing.name, func(t *testing.T) {
			h := registry.New()
			s := httptest.NewServer(h)
			defer s.Close()
			send := func(method, url string) int {
				resp := request(t, s.Listener.Addr().String(),
					fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", method, url, framing.header, framing.body))
				return resp.StatusCode
			}
			loc := start(t, h, "a")
			qt.Check(t, qt.Equals(send("POST", "/v2/a/blobs/uploads/?digest="+sha("hello")), 400))
			qt.Check(t, qt.Equals(send("PUT", loc+"?digest="+sha("hello")), 400))
			qt.Check(t, qt.Equals(send("PUT", "/v2/a/manifests/tag"), 400))
			run(t, h, []call{
				{name: "nothing is stored", url: "/v2/a/blobs/" + sha("hello"), status: 404},
				{url: "/v2/a/manifests/tag", status: 404},
				{url: "/v2/a/tags/list", status: 404},
				{url: loc, status: 204, wantHeader: map[string]string{"Range": "0-0"}},
			})
			// The received part of a PATCH is kept, and the status reports its size.
			qt.Check(t, qt.Equals(send("PATCH", loc), 400))
			run(t, h, []call{
				{url: loc, status: 204, wantHeader: map[string]string{"Range": "0-4"}},
				{method: "PATCH", url: loc, header: map[string]string{"Content-Range": "5-11"}, body: ", world", status: 202},
				{method: "PUT", url: loc + "?digest=" + sha(hello), status: 201},
			})
		})
	}
}

func TestExpectContinue(t *testing.T) {
	s := httptest.NewServer(registry.New(registry.WithLimits(registry.Limits{BlobBytes: 1 << 20})))
	defer s.Close()
	for _, c := range []struct {
		method, url string
		length      int
		status      int // of the first response
	}{
		{"POST", "/v2/a/blobs/uploads/?digest=" + sha(hello), len(hello), 100},
		// A body that will be rejected need not be sent.
		{"POST", "/v2/a/blobs/uploads/?digest=" + sha(hello), 1<<20 + 1, 413},
		{"PATCH", "/v2/a/blobs/uploads/unknown", len(hello), 404},
		{"PUT", "/v2/a/manifests/tag", 5 << 20, 413},
	} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", c.method, c.url, c.length)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(resp.StatusCode, c.status), qt.Commentf("%s %s", c.method, c.url))
		if c.status == 100 {
			io.WriteString(conn, hello)
			resp, err = http.ReadResponse(r, nil)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(resp.StatusCode, 201))
		}
		conn.Close()
	}
}

// stalled is a request body that blocks until it is closed.
type stalled struct {
	*io.PipeReader
	w       *io.PipeWriter
	reading chan struct{} // closed when everything before the stall has been read
}

func newStalled(before string) *stalled {
	r, w := io.Pipe()
	s := &stalled{r, w, make(chan struct{})}
	go func() {
		io.WriteString(w, before)
		close(s.reading)
	}()
	return s
}

// serveStalled serves a request with a stalled body, and returns when the handler
// waits for the rest of the body. The channel receives the response when the body
// ends.
func serveStalled(h http.Handler, method, url string, body *stalled) <-chan *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, body)
	w := httptest.NewRecorder()
	response := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		h.ServeHTTP(w, r)
		body.Close() // as a server does, so that later writes fail
		response <- w
	}()
	<-body.reading
	return response
}

func TestTwoWritersOfOneSession(t *testing.T) {
	h := registry.New()
	loc := start(t, h, "a")
	body := newStalled("hello")
	response := serveStalled(h, "PATCH", loc, body)
	busy := map[string]string{"Location": loc}
	run(t, h, []call{
		{method: "PATCH", url: loc, body: "HELLO", status: 416, wantCode: "BLOB_UPLOAD_INVALID", wantHeader: busy},
		{method: "PUT", url: loc + "?digest=" + sha("HELLO"), body: "HELLO", status: 416, wantCode: "BLOB_UPLOAD_INVALID", wantHeader: busy},
		{name: "the status does not wait", url: loc, status: 204},
	})
	io.WriteString(body.w, ", world")
	body.w.Close()
	qt.Check(t, qt.Equals((<-response).Code, 202))
	run(t, h, []call{
		{url: loc, status: 204, wantHeader: map[string]string{"Range": "0-11"}},
		{method: "PUT", url: loc + "?digest=" + sha(hello), status: 201},
	})
}

func TestCancelWhileWriting(t *testing.T) {
	h := registry.New()
	loc := start(t, h, "a")
	body := newStalled("hello")
	response := serveStalled(h, "PUT", loc+"?digest="+sha(hello), body)
	call{method: "DELETE", url: loc, status: 204}.do(t, h)
	io.WriteString(body.w, ", world")
	body.w.Close()
	qt.Check(t, qt.Equals((<-response).Code, 404))
	call{url: "/v2/a/blobs/" + sha(hello), status: 404}.do(t, h)
}

func TestPushBlobFunction(t *testing.T) {
	ctx := context.Background()
	store := new(registry.MemStore)
	d := digest.FromString(hello)
	qt.Check(t, qt.IsNil(registry.PushBlob(ctx, store, "a", d, strings.NewReader(hello))))
	qt.Check(t, qt.ErrorIs(registry.PushBlob(ctx, store, "a", d, strings.NewReader("x")), error(registry.ErrDigestInvalid)))
	qt.Check(t, qt.ErrorIs(registry.PushBlob(ctx, store, "A", d, strings.NewReader(hello)), error(registry.ErrNameInvalid)))
	qt.Check(t, qt.ErrorIs(registry.PushBlob(ctx, store, "a", "sha256:x", strings.NewReader(hello)), error(registry.ErrDigestInvalid)))
	call{url: "/v2/a/blobs/" + sha(hello), status: 200, wantBody: hello}.do(t, registry.New(registry.WithStore(store)))
}
