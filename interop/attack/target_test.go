// SPDX-License-Identifier: Apache-2.0

// The target of the attacks: a seeded registry behind a socket, and the checks
// that apply to each of its responses.

package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

const (
	typeImage      = "application/vnd.oci.image.manifest.v1+json"
	typeIndex      = "application/vnd.oci.image.index.v1+json"
	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
	typeSigned     = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	typeConfig     = "application/vnd.oci.image.config.v1+json"
	typeLayer      = "application/vnd.oci.image.layer.v1.tar"
)

// The content of the attacks. Responses and dumps are checked against it by
// digest.
const (
	digits    = "0123456789"
	config    = "{}"
	elsewhere = "a blob of repository b"
	opaque    = "an opaque manifest"
	fresh     = "what the attacker pushes" // nowhere in the seed
	hello     = "hello"                    // the bytes of an upload session of the seed
)

var (
	img      = image(digits)
	idx      = index(descriptor(typeImage, img))
	referrer = `{"schemaVersion":2,"mediaType":"` + typeImage + `","artifactType":"application/vnd.example","config":` + descriptor(typeConfig, config) + `,"layers":[],"subject":` + descriptor(typeImage, img) + `,"annotations":{"of":"img"}}`

	known = func() map[string]string {
		m := make(map[string]string)
		for _, content := range []string{"", digits, config, elsewhere, opaque, fresh, hello, hello + fresh, img, idx, referrer} {
			m[sha(content)], m[sha384(content)], m[sha512sum(content)] = content, content, content
		}
		return m
	}()
)

func sha(s string) string       { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }
func sha384(s string) string    { return fmt.Sprintf("sha384:%x", sha512.Sum384([]byte(s))) }
func sha512sum(s string) string { return fmt.Sprintf("sha512:%x", sha512.Sum512([]byte(s))) }

func descriptor(mediaType, data string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, sha(data), len(data))
}

func image(layers ...string) string {
	var list []string
	for _, l := range layers {
		list = append(list, descriptor(typeLayer, l))
	}
	return `{"schemaVersion":2,"mediaType":"` + typeImage + `","config":` + descriptor(typeConfig, config) + `,"layers":[` + strings.Join(list, ",") + `]}`
}

func index(manifests ...string) string {
	return `{"schemaVersion":2,"mediaType":"` + typeIndex + `","manifests":[` + strings.Join(manifests, ",") + `]}`
}

// seed returns the store that each case clones.
var seed = sync.OnceValue(func() *registry.MemStore {
	s := new(registry.MemStore)
	h := registry.New(registry.WithStore(s))
	for _, c := range []struct{ method, url, mediaType, body string }{
		{"POST", "/v2/a/blobs/uploads/?digest=" + sha(digits), "", digits},
		{"POST", "/v2/a/blobs/uploads/?digest=" + sha(config), "", config},
		{"POST", "/v2/a/blobs/uploads/?digest=" + sha(""), "", ""},
		{"PUT", "/v2/a/manifests/" + sha(img) + "?tag=tag&tag=tag2", typeImage, img},
		{"PUT", "/v2/a/manifests/index", typeIndex, idx},
		{"PUT", "/v2/a/manifests/" + sha(referrer), typeImage, referrer},
		{"POST", "/v2/b/blobs/uploads/?digest=" + sha(elsewhere), "", elsewhere},
		{"PUT", "/v2/b/manifests/tag", "text/plain", opaque},
	} {
		r := httptest.NewRequest(c.method, c.url, strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.mediaType)
		if w := httptest.NewRecorder(); true {
			h.ServeHTTP(w, r)
			if w.Code != 201 {
				panic(fmt.Sprint(c.url, w.Code, w.Body))
			}
		}
	}
	return s
})

// target is a registry with a clone of the seed. Each case has its own.
type target struct {
	t        *testing.T
	addr     string
	direct   http.Handler // for requests without a socket
	sessions map[string]string
	store    *trackingStore
	handlers sync.WaitGroup
}

// trackingStore records the sessions that are opened, since a rejected request
// must not leave one behind.
type trackingStore struct {
	*registry.MemStore
	mu     sync.Mutex
	opened [][2]string // repository and ID
}

func (w *trackingStore) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	u, err := w.MemStore.CreateUpload(ctx, repo, opts)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.opened = append(w.opened, [2]string{repo, u.ID()})
	}
	return u, err
}

// newTarget starts a target. Its limits apply once it is seeded.
func newTarget(t *testing.T, limits registry.Limits, memLimits registry.MemLimits, opts ...registry.Option) *target {
	t.Helper()
	store := &trackingStore{MemStore: seed().Clone()}
	w := &target{t: t, store: store, direct: registry.New(registry.WithStore(store))}

	// The seed's sessions.
	w.sessions = map[string]string{
		"{session}":   w.open("a", hello), // of a, with 5 bytes
		"{empty}":     w.open("a", ""),    // of a, with none
		"{foreign}":   w.open("b", hello), // of another repository
		"{cancelled}": w.open("a", hello), // of a, cancelled
	}
	if got := w.get("DELETE", "/v2/a/blobs/uploads/"+w.sessions["{cancelled}"]); got.Code != 204 {
		t.Fatalf("cancel: %d", got.Code)
	}

	store.Limits = memLimits

	h := registry.New(append([]registry.Option{registry.WithStore(store), registry.WithLimits(limits)}, opts...)...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	w.addr = listener.Addr().String()
	serverLog := new(syncBuffer)
	server := &http.Server{
		ErrorLog: log.New(serverLog, "", 0),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.handlers.Add(1)
			defer w.handlers.Done()
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("the handler panicked: %v\n%s", p, debug.Stack())
				}
			}()
			h.ServeHTTP(rw, r)
		}),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.handlers.Wait()
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			panic("a handler is still running after its connection has ended: " + t.Name())
		}
		// net/http logs the mistakes of a handler, such as a second WriteHeader.
		for line := range strings.Lines(serverLog.String()) {
			if !strings.Contains(line, "URL query contains semicolon") {
				t.Errorf("net/http logged: %s", line)
			}
		}
	})
	return w
}

// syncBuffer is a string builder for concurrent use.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// open opens an upload session, and returns its ID.
func (w *target) open(repo, content string) string {
	ctx := context.Background()
	u, err := w.store.CreateUpload(ctx, repo, registry.UploadOptions{})
	qt.Assert(w.t, qt.IsNil(err))
	defer u.Close()
	_, err = u.ReadFrom(strings.NewReader(content))
	qt.Assert(w.t, qt.IsNil(err))
	return u.ID()
}

// expand replaces {session} and the like with the IDs of the sessions.
func (w *target) expand(s string) string {
	for name, id := range w.sessions {
		s = strings.ReplaceAll(s, name, id)
	}
	return s
}

// get sends a request to the registry without a socket.
func (w *target) get(method, url string) *httptest.ResponseRecorder {
	got := httptest.NewRecorder()
	w.direct.ServeHTTP(got, httptest.NewRequest(method, url, nil))
	return got
}

// dump returns all visible content of the registry: its names, the content that
// they refer to, and the uploads.
func (w *target) dump(withoutUploads bool) string {
	w.t.Helper()
	var out strings.Builder
	var catalog struct{ Repositories []string }
	var list struct{ Tags []string }
	decode := func(url string, v any) {
		if err := json.Unmarshal(w.get("GET", url).Body.Bytes(), v); err != nil {
			w.t.Errorf("%s: %v", url, err)
		}
	}
	decode("/v2/_catalog", &catalog)
	for _, repo := range catalog.Repositories {
		fmt.Fprintln(&out, "repository", repo)
		list.Tags = nil
		decode("/v2/"+repo+"/tags/list", &list)
		for _, tag := range list.Tags {
			got := w.get("GET", "/v2/"+repo+"/manifests/"+tag)
			fmt.Fprintln(&out, " tag", tag, got.Header().Get("Docker-Content-Digest"), got.Header().Get("Content-Type"))
		}
		for _, d := range slices.Sorted(maps.Keys(known)) {
			for _, kind := range []string{"manifests", "blobs"} {
				got := w.get("GET", "/v2/"+repo+"/"+kind+"/"+d)
				if got.Code != 200 {
					continue
				}
				fmt.Fprintln(&out, " ", kind, d, got.Header().Get("Content-Type"))
				if got.Body.String() != known[d] {
					w.t.Errorf("%s in %s: %.200q is stored under the digest %s", kind, repo, got.Body, d)
				}
			}
		}
		fmt.Fprintln(&out, " referrers", w.get("GET", "/v2/"+repo+"/referrers/"+sha(img)).Body)
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if withoutUploads {
		return out.String()
	}
	for _, u := range w.store.opened {
		size, err := w.store.UploadSize(context.Background(), u[0], u[1])
		if err == nil {
			fmt.Fprintf(&out, "upload %q %q %d\n", u[0], u[1], size)
		}
	}
	return out.String()
}

// timeout is the time limit for a response. No test relies on it expiring.
const timeout = 30 * time.Second

// dial connects to the registry.
func (w *target) dial() net.Conn {
	conn, err := net.Dial("tcp", w.addr)
	qt.Assert(w.t, qt.IsNil(err))
	conn.SetDeadline(time.Now().Add(timeout))
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends bytes on a new connection, half-closes it, and returns the
// responses.
func (w *target) exchange(send string) []*response {
	w.t.Helper()
	conn := w.dial()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The registry may respond and close before it has read all bytes.
		io.WriteString(conn, send)
		conn.(*net.TCPConn).CloseWrite()
	}()
	raw, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("no response, and the connection is still open: %v", err)
	}
	conn.Close()
	<-sent
	return w.parse(raw, send)
}

// response is a response, read to its end.
type response struct {
	*http.Response
	method string // of the request
	body   []byte
}

var requestLine = regexp.MustCompile(`(?m)^(?:http://\S+ )?([A-Za-z!]+) \S.* HTTP/\d\.\d\r?$`)

// parse splits raw into responses. Bytes that are not part of a response fail the
// test: nothing may follow the header of a 204, a 304 or a response to HEAD.
func (w *target) parse(raw []byte, sent string) (responses []*response) {
	w.t.Helper()
	if bytes.Contains(raw, []byte(host)) {
		w.t.Errorf("the response reflects the attacker's host: %.1000q", raw)
	}
	if bytes.Contains(raw, []byte(secret)) {
		w.t.Errorf("the response quotes the body: %.1000q", raw)
	}
	methods := requestLine.FindAllStringSubmatch(sent[:min(len(sent), 1<<16)], -1)
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		if _, err := r.Peek(1); err != nil {
			return responses
		}
		method := "GET"
		if n := len(finals(responses)); n < len(methods) {
			method = methods[n][1]
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			w.t.Errorf("malformed response: %v: %.1000q", err, raw)
			return responses
		}
		a := &response{Response: resp, method: method}
		if a.body, err = io.ReadAll(resp.Body); err != nil {
			w.t.Errorf("truncated body: %v: %.1000q", err, raw)
		}
		responses = append(responses, a)
	}
}

// finals returns the final responses: those with a status of 200 and above.
func finals(responses []*response) (list []*response) {
	for _, a := range responses {
		if a.StatusCode >= 200 {
			list = append(list, a)
		}
	}
	return list
}

func (a *response) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\r\n", a.Proto, a.Status)
	a.Header.Write(&b)
	return b.String() + "\r\n" + string(a.body)
}

// fromRegistry reports whether the registry itself, rather than net/http, sent the
// response.
func (a *response) fromRegistry() bool {
	return a.Header.Get("Docker-Distribution-Api-Version") != ""
}

// specCodes lists the codes of the spec's section "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
	"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// codes returns the error codes of the body, nil if it does not have the spec's
// shape.
func (a *response) codes() (codes []string) {
	var doc struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	dec := json.NewDecoder(bytes.NewReader(a.body))
	dec.DisallowUnknownFields()
	if dec.Decode(&doc) != nil || dec.More() {
		return nil
	}
	for _, e := range doc.Errors {
		codes = append(codes, e.Code)
	}
	return codes
}

var linkNext = regexp.MustCompile(`^</v2/[!-;=?-~]*>; rel="next"$`)

// checkResponse makes the checks that apply to every response.
func (w *target) checkResponse(a *response) {
	t, h := w.t, a.Header
	t.Helper()
	check := func(ok bool, format string, args ...any) {
		if t.Helper(); !ok {
			t.Errorf("%d: "+format, append([]any{a.StatusCode}, args...)...)
		}
	}
	// net/http itself sends these statuses: RFC 9112 6.1 demands the 501,
	// RFC 9110 15.6.6 the 505.
	if !a.fromRegistry() {
		check(slices.Contains([]int{100, 200, 400, 417, 431, 501, 505}, a.StatusCode), "net/http does not send this status itself")
	} else {
		check(a.StatusCode < 500, "a server error for a client's mistake")
	}
	check(h.Get("X-Injected") == "" && h.Get("Set-Cookie") == "", "injected header: %v", h)

	if a.StatusCode >= 400 && a.fromRegistry() {
		check(h.Get("Content-Type") == "application/json", "Content-Type %q", h.Get("Content-Type"))
		check(h.Get("Etag") == "", "an error has an Etag")
		if a.method != "HEAD" {
			codes := a.codes()
			check(len(codes) > 0, "the error does not have the spec's shape (Error Codes): %.300q", a.body)
			for _, code := range codes {
				check(slices.Contains(specCodes, code), "the spec has no code %q", code)
			}
			check(len(a.body) < 16<<10, "an error of %d bytes", len(a.body))
		}
	}
	if a.StatusCode == 405 {
		check(len(h["Allow"]) == 1, "no Allow (RFC 9110 15.5.6)")
	}
	if a.StatusCode == 429 {
		check(h.Get("Retry-After") != "", "no Retry-After (spec, Error Codes)")
	}
	if location := h.Get("Location"); location != "" || a.StatusCode == 201 || a.StatusCode == 202 && (a.method == "POST" || a.method == "PATCH") {
		check(strings.HasPrefix(location, "/v2/"), "Location %q is not a path", location)
		if a.StatusCode == 201 {
			check(w.get("GET", location).Code == 200, "cannot pull Location %q", location)
		}
	}
	if link := h.Get("Link"); link != "" {
		check(linkNext.MatchString(link), "Link %q", link)
	}

	content, ok := known[h.Get("Docker-Content-Digest")]
	size := strconv.Itoa(len(content))
	switch {
	case a.StatusCode == 200 && ok:
		check(h.Get("Content-Length") == size, "Content-Length %s of %s bytes", h.Get("Content-Length"), size)
		check(a.method == "HEAD" || string(a.body) == content, "body %.100q", a.body)
	case a.StatusCode == 206:
		check(ok, "206 of unknown content")
		w.checkPartial(a, content)
	case a.StatusCode == 304:
		check(h.Get("Etag") != "", "no Etag (RFC 9110 15.4.5)")
	case a.StatusCode == 416 && a.method == "GET":
		check(ok && h.Get("Content-Range") == "bytes */"+size, "Content-Range %q (RFC 9110 15.5.17)", h.Get("Content-Range"))
	}
}

var partRange = regexp.MustCompile(`^bytes (\d+)-(\d+)/(\d+)$`)

// checkPartial checks a 206: RFC 9110 15.3.7.
func (w *target) checkPartial(a *response, content string) {
	w.t.Helper()
	part := func(contentRange string, body []byte) {
		w.t.Helper()
		m := partRange.FindStringSubmatch(contentRange)
		if m == nil {
			w.t.Errorf("206: Content-Range %q", contentRange)
			return
		}
		first, _ := strconv.Atoi(m[1])
		last, _ := strconv.Atoi(m[2])
		if m[3] != strconv.Itoa(len(content)) || first > last || last >= len(content) || string(body) != content[first:last+1] {
			w.t.Errorf("206: Content-Range %q with %.100q of %.100q", contentRange, body, content)
		}
	}
	mediaType, params, _ := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if mediaType != "multipart/byteranges" {
		part(a.Header.Get("Content-Range"), a.body)
		return
	}
	if len(a.Header["Content-Range"]) > 0 {
		w.t.Errorf("206: several parts, and a Content-Range header (RFC 9110 15.3.7.2)")
	}
	if len(a.body) > 64<<10 {
		w.t.Errorf("206: a body of %d bytes for content of %d", len(a.body), len(content))
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			w.t.Errorf("206: %v", err)
			return
		}
		body, _ := io.ReadAll(p)
		part(p.Header.Get("Content-Range"), body)
	}
}
