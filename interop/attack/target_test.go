// SPDX-License-Identifier: Apache-2.0

// What is attacked: a seeded registry behind a socket, and what holds for each
// of its answers.

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

// Content, known by its digest in each answer and in each dump.
const (
	digits    = "0123456789"
	config    = "{}"
	elsewhere = "a blob of repository b"
	opaque    = "an opaque manifest"
	fresh     = "what the attacker pushes" // nowhere in the seed
	hello     = "hello"                    // what an upload session of the seed has
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

// seed is cloned for each case.
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

// target is a registry with the seed, of its own for each case.
type target struct {
	t        *testing.T
	addr     string
	direct   http.Handler // to look into it without a socket
	sessions map[string]string
	store    *watched
	handlers sync.WaitGroup
}

// watched remembers the sessions that were opened: one that a refused request
// leaves behind is a leak.
type watched struct {
	*registry.MemStore
	mu     sync.Mutex
	opened [][2]string // repository and ID
}

func (w *watched) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	u, err := w.MemStore.CreateUpload(ctx, repo, opts)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.opened = append(w.opened, [2]string{repo, u.ID()})
	}
	return u, err
}

func newTarget(t *testing.T, limits registry.Limits, opts ...registry.Option) *target {
	t.Helper()
	store := &watched{MemStore: seed().Clone()}
	w := &target{t: t, store: store, direct: registry.New(registry.WithStore(store))}

	// The seed's sessions.
	w.sessions = map[string]string{
		"{session}":   w.open("a", hello), // of a, with 5 bytes
		"{empty}":     w.open("a", ""),    // of a, with none
		"{foreign}":   w.open("b", hello), // of another repository
		"{cancelled}": w.open("a", hello), // of a, and gone
	}
	if got := w.get("DELETE", "/v2/a/blobs/uploads/"+w.sessions["{cancelled}"]); got.Code != 204 {
		t.Fatalf("cancel: %d", got.Code)
	}

	store.Limits = limits // the seed has its place

	h := registry.New(append([]registry.Option{registry.WithStore(store), registry.WithLimits(limits)}, opts...)...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	w.addr = listener.Addr().String()
	complaints := new(syncBuffer)
	server := &http.Server{
		ErrorLog: log.New(complaints, "", 0),
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.handlers.Add(1)
			defer w.handlers.Done()
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("the handler panics: %v\n%s", p, debug.Stack())
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
			panic("a handler goes on after its connection has ended: " + t.Name())
		}
		// net/http complains of what a handler does wrong, such as a second
		// WriteHeader.
		for line := range strings.Lines(complaints.String()) {
			if !strings.Contains(line, "URL query contains semicolon") {
				t.Errorf("net/http complains: %s", line)
			}
		}
	})
	return w
}

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

func (w *target) expand(s string) string {
	for name, id := range w.sessions {
		s = strings.ReplaceAll(s, name, id)
	}
	return s
}

// get looks into the registry, without a socket.
func (w *target) get(method, url string) *httptest.ResponseRecorder {
	got := httptest.NewRecorder()
	w.direct.ServeHTTP(got, httptest.NewRequest(method, url, nil))
	return got
}

// dump is all that can be seen of the registry's content: the names, what is
// behind them, and the uploads.
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
		for _, d := range slices.Sorted(mapKeys(known)) {
			for _, kind := range []string{"manifests", "blobs"} {
				got := w.get("GET", "/v2/"+repo+"/"+kind+"/"+d)
				if got.Code != 200 {
					continue
				}
				fmt.Fprintln(&out, " ", kind, d, got.Header().Get("Content-Type"))
				if got.Body.String() != known[d] {
					w.t.Errorf("%s in %s: %.200q is there under the digest %s", kind, repo, got.Body, d)
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

func mapKeys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// patience is how long an answer may take. No test waits for it to pass.
const patience = 30 * time.Second

// dial connects to the registry.
func (w *target) dial() net.Conn {
	conn, err := net.Dial("tcp", w.addr)
	qt.Assert(w.t, qt.IsNil(err))
	conn.SetDeadline(time.Now().Add(patience))
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange sends bytes on a connection of their own, half-closes it, and
// returns all that comes back.
func (w *target) exchange(send string) []*answer {
	w.t.Helper()
	conn := w.dial()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		// The registry may have answered, and closed, before it has all.
		io.WriteString(conn, send)
		conn.(*net.TCPConn).CloseWrite()
	}()
	raw, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		w.t.Errorf("the connection neither answers nor ends: %v", err)
	}
	conn.Close()
	<-sent
	return w.parse(raw, send)
}

// answer is one answer, read to its end.
type answer struct {
	*http.Response
	method string // of the request
	body   []byte
}

var requestLine = regexp.MustCompile(`(?m)^(?:http://\S+ )?([A-Za-z!]+) \S.* HTTP/\d\.\d\r?$`)

// parse splits what came back into answers. What is no answer fails the test:
// nothing may follow the body of a 204, 304 or answer to HEAD.
func (w *target) parse(raw []byte, sent string) (answers []*answer) {
	w.t.Helper()
	if bytes.Contains(raw, []byte(host)) {
		w.t.Errorf("the attacker's host is reflected: %.1000q", raw)
	}
	if bytes.Contains(raw, []byte(secret)) {
		w.t.Errorf("the body is quoted: %.1000q", raw)
	}
	methods := requestLine.FindAllStringSubmatch(sent[:min(len(sent), 1<<16)], -1)
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		if _, err := r.Peek(1); err != nil {
			return answers
		}
		method := "GET"
		if n := len(finals(answers)); n < len(methods) {
			method = methods[n][1]
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			w.t.Errorf("what comes back is no answer: %v: %.1000q", err, raw)
			return answers
		}
		a := &answer{Response: resp, method: method}
		if a.body, err = io.ReadAll(resp.Body); err != nil {
			w.t.Errorf("the answer's body is cut: %v: %.1000q", err, raw)
		}
		answers = append(answers, a)
	}
}

// finals leaves out the answers 100 to 199.
func finals(answers []*answer) (list []*answer) {
	for _, a := range answers {
		if a.StatusCode >= 200 {
			list = append(list, a)
		}
	}
	return list
}

func (a *answer) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\r\n", a.Proto, a.Status)
	a.Header.Write(&b)
	return b.String() + "\r\n" + string(a.body)
}

// ours reports whether the registry has answered, and not net/http for it.
func (a *answer) ours() bool {
	return a.Header.Get("Docker-Distribution-Api-Version") != ""
}

// specCodes are the codes of the spec's section "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
	"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// codes are the codes of an error's body, nil if it has not the spec's shape.
func (a *answer) codes() (codes []string) {
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

// checkAnswer checks what holds for each answer, whatever was sent.
func (w *target) checkAnswer(a *answer) {
	t, h := w.t, a.Header
	t.Helper()
	check := func(ok bool, format string, args ...any) {
		if t.Helper(); !ok {
			t.Errorf("%d: "+format, append([]any{a.StatusCode}, args...)...)
		}
	}
	// The codes that net/http has an own answer for: RFC 9112 6.1 demands the
	// 501, RFC 9110 15.6.6 the 505.
	if !a.ours() {
		check(slices.Contains([]int{100, 200, 400, 417, 431, 501, 505}, a.StatusCode), "net/http has no such answer")
	} else {
		check(a.StatusCode < 500, "a server's error for a client's fault")
	}
	check(h.Get("X-Injected") == "" && h.Get("Set-Cookie") == "", "a header is injected: %v", h)

	if a.StatusCode >= 400 && a.ours() {
		check(h.Get("Content-Type") == "application/json", "Content-Type %q", h.Get("Content-Type"))
		check(h.Get("Etag") == "", "an error has an Etag")
		if a.method != "HEAD" {
			codes := a.codes()
			check(len(codes) > 0, "not the spec's shape (Error Codes): %.300q", a.body)
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
		check(strings.HasPrefix(location, "/v2/"), "Location %q is no path", location)
		if a.StatusCode == 201 {
			check(w.get("GET", location).Code == 200, "Location %q can't be pulled", location)
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
func (w *target) checkPartial(a *answer, content string) {
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
		w.t.Errorf("206: several parts, and a Content-Range for all (RFC 9110 15.3.7.2)")
	}
	if len(a.body) > 64<<10 {
		w.t.Errorf("206: %d bytes of %d", len(a.body), len(content))
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
