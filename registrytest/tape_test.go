// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/registrytest"
)

// fakeT is a test whose failures can be checked.
type fakeT struct {
	testing.TB
	mu       sync.Mutex
	errors   []string
	logs     []string
	cleanups []func()
}

func (t *fakeT) Helper() {}

func (t *fakeT) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}

func (t *fakeT) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *fakeT) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logs = append(t.logs, fmt.Sprintf(format, args...))
}

func (t *fakeT) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.errors) > 0
}

func (t *fakeT) Skipped() bool { return false }

func (t *fakeT) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// runFake runs a test to its end, and returns its failures and logs.
func runFake(f func(t testing.TB)) (errors, logs []string) {
	t := new(fakeT)
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		f(t)
	}()
	<-done
	for _, cleanup := range slices.Backward(t.cleanups) {
		cleanup()
	}
	return t.errors, t.logs
}

// planted is a password that no file of a tape may contain.
const planted = "planted+secret/42"

// tokenRegistry returns a registry with tokens, for alice with the planted password.
func tokenRegistry() http.Handler {
	server := &auth.TokenServer{
		Service: "registry.example",
		Check:   auth.Users{"alice": planted}.Check,
		Known:   func(context.Context, string) error { return nil },
		Policy:  auth.Rules{{User: "alice", Repo: "**", Actions: []auth.Action{auth.Pull, auth.Push}}}.Allow,
	}
	mux := http.NewServeMux()
	mux.Handle("/token", server)
	mux.Handle("/v2/", auth.Bearer("https://auth.example/token", "registry.example", server.Verify)(registry.New()))
	return mux
}

// tapeClient is a client that gets tokens, and notes what it sees.
type tapeClient struct {
	t        testing.TB
	client   *http.Client
	base     string
	password string
	token    string
	seen     []string
}

var (
	uploadIDs = regexp.MustCompile(`(uploads/|Docker-Upload-Uuid:\[)[^]?"/\s]+`)
	realm     = regexp.MustCompile(`realm="([^"]*)"`)
)

// do sends a request, with a new token if it must, and notes the response.
func (c *tapeClient) do(method, target string, body []byte, header ...string) *http.Response {
	c.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = c.base + target
	}
	req, err := http.NewRequest(method, target, bytes.NewReader(body))
	qt.Assert(c.t, qt.IsNil(err))
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.seen = append(c.seen, method+" failed")
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	challenge := realm.FindStringSubmatch(resp.Header.Get("Www-Authenticate"))
	resp.Header.Del("Www-Authenticate")
	resp.Header.Del("Date")
	resp.Header.Del("X-Content-Type-Options") // of no use to a client
	if method == "HEAD" && resp.StatusCode >= 400 {
		resp.Header.Del("Content-Length") // likewise
		resp.ContentLength = -1
	}
	line := fmt.Sprintf("%s %d %v %v %q %v", method, resp.StatusCode, resp.ContentLength, resp.Header, data, err)
	line = strings.ReplaceAll(line, c.base, "")
	c.seen = append(c.seen, uploadIDs.ReplaceAllString(line, "${1}ID"))
	if resp.StatusCode == http.StatusUnauthorized && challenge != nil && c.token == "" {
		c.getToken(challenge[1])
		return c.do(method, target, body, header...)
	}
	return resp
}

func (c *tapeClient) getToken(realm string) {
	req, err := http.NewRequest("GET", realm+"?service=registry.example&offline_token=true&scope=repository:app:pull,push&scope=repository:b:pull,push", nil)
	qt.Assert(c.t, qt.IsNil(err))
	req.SetBasicAuth("alice", c.password)
	resp, err := c.client.Do(req)
	qt.Assert(c.t, qt.IsNil(err))
	defer resp.Body.Close()
	var doc struct {
		Token        string
		RefreshToken string `json:"refresh_token"`
	}
	qt.Assert(c.t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&doc)))
	qt.Assert(c.t, qt.Not(qt.Equals(doc.Token, "")))
	qt.Assert(c.t, qt.Not(qt.Equals(doc.RefreshToken, "")))
	c.token = doc.Token
}

var (
	tapeBlob   = []byte(strings.Repeat("content of a blob ", 10))
	tapeChunks = [][]byte{[]byte("first chunk, "), []byte("second chunk, "), []byte("the end")}
)

// converse pushes and pulls an image, chunked uploads and ranges included.
func converse(t testing.TB, client *http.Client, base, password string) []string {
	c := &tapeClient{t: t, client: client, base: base, password: password}
	c.do("GET", "/v2/", nil)
	d := digest.FromBytes(tapeBlob)
	c.do("HEAD", "/v2/app/blobs/"+d.String(), nil)
	resp := c.do("POST", "/v2/app/blobs/uploads/", nil)
	location := func() string {
		u, err := resp.Location()
		qt.Assert(t, qt.IsNil(err))
		return u.String()
	}
	c.do("PUT", location()+"?digest="+d.String(), tapeBlob, "Content-Type", "application/octet-stream")

	chunked := digest.FromBytes(bytes.Join(tapeChunks, nil))
	resp = c.do("POST", "/v2/app/blobs/uploads/", nil)
	offset := 0
	for _, chunk := range tapeChunks {
		resp = c.do("PATCH", location(), chunk, "Content-Range", fmt.Sprintf("%d-%d", offset, offset+len(chunk)-1))
		offset += len(chunk)
	}
	c.do("PUT", location()+"?digest="+chunked.String(), nil)

	large := digest.SHA512.FromBytes(tapeBlob)
	c.do("POST", "/v2/b/blobs/uploads/?digest="+large.String(), tapeBlob)

	descriptor := func(mediaType string, data []byte) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	}
	manifest, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    descriptor(ocispec.MediaTypeImageConfig, tapeBlob),
		Layers:    []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, bytes.Join(tapeChunks, nil))},
	})
	qt.Assert(t, qt.IsNil(err))
	c.do("PUT", "/v2/app/manifests/v1", manifest, "Content-Type", ocispec.MediaTypeImageManifest)
	c.do("GET", "/v2/app/manifests/v1", nil, "Accept", ocispec.MediaTypeImageManifest+","+ocispec.MediaTypeImageIndex)
	c.do("GET", "/v2/app/manifests/v2", nil, "Accept", ocispec.MediaTypeImageManifest)
	c.do("HEAD", "/v2/app/manifests/"+digest.FromBytes(manifest).String(), nil)
	c.do("GET", "/v2/app/blobs/"+d.String(), nil)
	c.do("GET", "/v2/app/blobs/"+d.String(), nil, "Range", "bytes=3-20")
	c.do("GET", "/v2/app/blobs/"+d.String(), nil, "If-None-Match", `"`+d.String()+`"`)
	c.do("GET", "/v2/app/tags/list?n=10", nil)
	return c.seen
}

// recordTape records the conversation with the registry by one kind of client.
func recordTape(t *testing.T, kind, dir string) (seen []string) {
	t.Helper()
	t.Run("record", func(t *testing.T) {
		tape := registrytest.Record(t, "https://registry.example", dir, &registrytest.TapeOptions{Transport: registrytest.Transport(tokenRegistry())})
		seen = converse2(t, kind, tape, planted)
	})
	return seen
}

// converse2 runs converse with one kind of client.
func converse2(t *testing.T, kind string, tape *registrytest.Tape, password string) []string {
	switch kind {
	case "round tripper":
		return converse(t, &http.Client{Transport: tape}, "https://"+tape.Host, password)
	case "handler":
		s := httptest.NewServer(tape)
		defer s.Close()
		return converse(t, s.Client(), s.URL, password)
	case "in process":
		return converse(t, &http.Client{Transport: registrytest.Transport(tape)}, "http://other.example", password)
	}
	panic(kind)
}

var tapeKinds = []string{"round tripper", "handler", "in process"}

// TestTape records a conversation by each kind of client, and replays each recording
// with each kind of client.
func TestTape(t *testing.T) {
	for _, recorded := range tapeKinds {
		t.Run(recorded, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tape")
			want := recordTape(t, recorded, dir)
			for name, data := range readFiles(t, dir) {
				qt.Check(t, qt.IsFalse(strings.Contains(data, planted) || strings.Contains(data, "eyJ")), qt.Commentf("%s", name))
			}
			for _, replayed := range tapeKinds {
				t.Run(replayed, func(t *testing.T) {
					tape := registrytest.Replay(t, os.DirFS(dir), nil)
					qt.Assert(t, qt.Equals(tape.Host, "registry.example"))
					got := converse2(t, replayed, tape, "any password")
					qt.Check(t, qt.DeepEquals(got, want))
				})
			}
		})
	}
}

// TestTapeIsReproducible records the same conversation twice, by different clients.
func TestTapeIsReproducible(t *testing.T) {
	var tapes []map[string]string
	for _, kind := range []string{"round tripper", "round tripper", "handler", "in process"} {
		dir := filepath.Join(t.TempDir(), "tape")
		recordTape(t, kind, dir)
		tapes = append(tapes, readFiles(t, dir))
	}
	for _, tape := range tapes[1:] {
		qt.Check(t, qt.DeepEquals(tape, tapes[0]))
	}
}

// TestTapeIsLayout opens a tape as a store.
func TestTapeIsLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tape")
	recordTape(t, "round tripper", dir)
	store := ocidir.FS(os.DirFS(dir))
	m, err := store.GetTag(t.Context(), ocidir.RootName, "v1")
	qt.Assert(t, qt.IsNil(err))
	var image ocispec.Manifest
	qt.Assert(t, qt.IsNil(json.Unmarshal(m.Content, &image)))
	for _, d := range []digest.Digest{image.Config.Digest, image.Layers[0].Digest, digest.SHA512.FromBytes(tapeBlob)} {
		r, err := store.OpenBlob(t.Context(), ocidir.RootName, d)
		qt.Assert(t, qt.IsNil(err))
		got, err := io.ReadAll(r)
		r.Close()
		qt.Check(t, qt.IsTrue(err == nil && d.Algorithm().FromBytes(got) == d), qt.Commentf("%s", d))
	}
	var blobs []string
	for name := range readFiles(t, dir) {
		if strings.HasPrefix(name, "blobs/") {
			blobs = append(blobs, name)
		}
	}
	qt.Check(t, qt.HasLen(blobs, 4)) // no chunks, no parts
}

// TestTapeTags checks which tags the layout has.
func TestTapeTags(t *testing.T) {
	push := func(s registry.Store, repo string, seed uint64, tags ...string) digest.Digest {
		var d digest.Digest
		for _, tag := range tags {
			m, err := registrytest.PushRandomImage(t.Context(), s, repo, tag, seed, 1, 100)
			qt.Assert(t, qt.IsNil(err))
			d = m.Digest
		}
		return d
	}
	store := new(registry.MemStore)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, moved := strings.CutPrefix(r.URL.Path, "/v2/moved/")
		switch {
		case moved:
			http.Redirect(w, r, "https://cdn.example/"+path, http.StatusTemporaryRedirect)
			return
		case r.Host == "cdn.example":
			r.URL.Path = "/v2/other" + r.URL.Path
		}
		registry.New(registry.WithStore(store)).ServeHTTP(w, r)
	})
	one, two := push(store, "team/app", 1, "v1", "v2", "v3"), push(store, "other", 2, "v1")
	for _, test := range []struct {
		name     string
		requests []string
		want     []string // names and digests
	}{
		{"by_tag", []string{"GET team/app/manifests/v1", "GET team/app/manifests/v2"}, []string{"v1 " + string(one), "v2 " + string(one)}},
		{"head_then_by_digest", []string{"HEAD team/app/manifests/v3", "GET team/app/manifests/" + string(one)}, []string{"v3 " + string(one)}},
		{"head_only", []string{"HEAD team/app/manifests/v3"}, nil},
		{"by_digest", []string{"GET team/app/manifests/" + string(one)}, []string{" " + string(one)}},
		{"redirected", []string{"GET moved/manifests/v1"}, []string{"v1 " + string(two)}},
		{"repositories", []string{"GET team/app/manifests/v1", "GET other/manifests/v1", "GET other/manifests/v2"}, []string{"other:v1 " + string(two), "team/app:v1 " + string(one)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tape")
			errors, _ := runFake(func(tb testing.TB) {
				tape := registrytest.Record(tb, "https://registry.example", dir, &registrytest.TapeOptions{Transport: registrytest.Transport(h)})
				for _, request := range test.requests {
					method, path, _ := strings.Cut(request, " ")
					req, err := http.NewRequest(method, "https://registry.example/v2/"+path, nil)
					qt.Assert(t, qt.IsNil(err))
					resp, err := (&http.Client{Transport: tape}).Do(req)
					qt.Assert(t, qt.IsNil(err))
					resp.Body.Close()
				}
			})
			qt.Assert(t, qt.HasLen(errors, 0))
			var index ocispec.Index
			qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(readFiles(t, dir)["index.json"]), &index)))
			var got []string
			for _, d := range index.Manifests {
				got = append(got, d.Annotations[ocispec.AnnotationRefName]+" "+string(d.Digest))
			}
			qt.Check(t, qt.DeepEquals(got, test.want))
		})
	}
}

// TestTapeLarge records and replays a blob that is not held in memory.
func TestTapeLarge(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 300_000) // 4.8 MB
	d := digest.FromBytes(data)
	run := func(t *testing.T, tape *registrytest.Tape) {
		c := &tapeClient{t: t, client: &http.Client{Transport: tape}, base: "https://registry.example"}
		resp := c.do("POST", "/v2/app/blobs/uploads/", nil)
		for offset := 0; offset < len(data); offset += 2_000_000 {
			chunk := data[offset:min(offset+2_000_000, len(data))]
			resp = c.do("PATCH", resp.Header.Get("Location"), chunk, "Content-Range", fmt.Sprintf("%d-%d", offset, offset+len(chunk)-1))
		}
		c.do("PUT", resp.Header.Get("Location")+"?digest="+string(d), nil)
		for _, r := range []string{"bytes=0-", "bytes=1000000-2999999"} {
			req, err := http.NewRequest("GET", c.base+"/v2/app/blobs/"+string(d), nil)
			qt.Assert(t, qt.IsNil(err))
			req.Header.Set("Range", r)
			resp, err := tape.RoundTrip(req)
			qt.Assert(t, qt.IsNil(err))
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(resp.StatusCode, 206))
			var first, last int
			_, err = fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/4800000", &first, &last)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(bytes.Equal(got, data[first:last+1])))
		}
	}
	dir := filepath.Join(t.TempDir(), "tape")
	t.Run("record", func(t *testing.T) {
		run(t, registrytest.Record(t, "https://registry.example", dir, &registrytest.TapeOptions{Transport: registrytest.Transport(registry.New())}))
	})
	t.Run("replay", func(t *testing.T) { run(t, registrytest.Replay(t, os.DirFS(dir), nil)) })
	qt.Check(t, qt.HasLen(readFiles(t, dir), 4)) // one blob
}

// readFiles returns the files of a folder.
func readFiles(t testing.TB, dir string) map[string]string {
	files := make(map[string]string)
	fsys := os.DirFS(dir)
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, path)
		files[path] = string(data)
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	return files
}

// tapeGet sends a GET request, and returns the body or the error.
func tapeGet(rt http.RoundTripper, url string, header ...string) string {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err.Error()
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return string(data) + " " + err.Error()
	}
	return fmt.Sprint(resp.StatusCode, " ", string(data))
}

// smallTape has three requests, of which one was sent twice.
const smallTape = `registrytest tape 1
registry https://registry.example

> GET https://registry.example/v2/
< 401

> GET https://registry.example/v2/app/tags/list
< 404
<| none

> GET https://registry.example/v2/app/tags/list
< 200
<| some

> GET https://registry.example/v2/app/tags/list?last=a&n=1
< 200
<| page
`

// TestReplay replays smallTape.
func TestReplay(t *testing.T) {
	const base = "https://registry.example/v2/"
	for _, test := range []struct {
		name     string
		repeat   bool
		requests []string
		want     []string
		errors   string // of the test
		logs     string
	}{
		{
			name:     "all",
			requests: []string{"app/tags/list?n=1&last=a", "app/tags/list", "", "app/tags/list"},
			want:     []string{"200 page", "404 none", "401 ", "200 some"},
		},
		{
			name:     "unused",
			requests: []string{"app/tags/list", ""},
			want:     []string{"404 none", "401 "},
			errors:   "registrytest: 2 of the 4 exchanges on the tape were not replayed:\ntape.txt:11: GET https://registry.example/v2/app/tags/list\ntape.txt:15: GET .*",
		},
		{
			name:     "unused_repeat",
			repeat:   true,
			requests: []string{"app/tags/list", ""},
			want:     []string{"404 none", "401 "},
			logs:     "registrytest: 2 of the 4 exchanges (?s).*",
		},
		{
			name:     "too_often",
			requests: []string{"", ""},
			want:     []string{"401 ", "registrytest: the request was sent more often than when the tape was recorded (see TapeOptions.Repeat):\n> GET https://registry.example/v2/"},
			errors:   "registrytest: the request was sent more often (?s).*",
			logs:     "registrytest: 3 of the 4 exchanges (?s).*",
		},
		{
			name:     "repeat",
			repeat:   true,
			requests: []string{"", "", "app/tags/list", "app/tags/list", "app/tags/list", "app/tags/list?last=a&n=1"},
			want:     []string{"401 ", "401 ", "404 none", "200 some", "200 some", "200 page"},
		},
		{
			name:     "not_on_tape",
			repeat:   true,
			requests: []string{"", "app/tags/list", "app/tags/list?last=a&n=1", "app/tags/list?last=a&n=2"},
			want: []string{"401 ", "404 none", "200 page", `registrytest: the request is not on the tape:
> GET https://registry.example/v2/app/tags/list?last=a&n=2

near it, tape.txt:15:
> GET https://registry.example/v2/app/tags/list?last=a&n=1

near it, tape.txt:7:
> GET https://registry.example/v2/app/tags/list

near it, tape.txt:4:
> GET https://registry.example/v2/`},
			errors: "registrytest: the request is not on the tape:\n> GET (?s).*",
			logs:   "registrytest: 1 of the 4 (?s).*",
		},
		{
			name:     "other_credentials",
			requests: []string{"AUTH app/tags/list"},
			want: []string{`registrytest: the request is not on the tape:
> GET https://registry.example/v2/app/tags/list
> Authorization: Basic

near it, tape.txt:7:
> GET https://registry.example/v2/app/tags/list

near it, tape.txt:15:
> GET https://registry.example/v2/app/tags/list?last=a&n=1

near it, tape.txt:4:
> GET https://registry.example/v2/`},
			errors: "registrytest: the request is not on the tape:\n> GET (?s).*",
			logs:   "registrytest: 4 of the 4 (?s).*",
		},
		{
			name:     "other_credentials_repeat",
			repeat:   true,
			requests: []string{"AUTH app/tags/list", "app/tags/list", "AUTH app/tags/list?n=1&last=a", ""},
			want:     []string{"404 none", "200 some", "200 page", "401 "},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			errors, logs := runFake(func(tb testing.TB) {
				fsys := fstest.MapFS{"tape.txt": {Data: []byte(smallTape)}}
				tape := registrytest.Replay(tb, fsys, &registrytest.TapeOptions{Repeat: test.repeat})
				for i, request := range test.requests {
					var header []string
					if rest, ok := strings.CutPrefix(request, "AUTH "); ok {
						request, header = rest, []string{"Authorization", "Basic YTpi"}
					}
					qt.Check(t, qt.Equals(tapeGet(tape, base+request, header...), test.want[i]))
				}
			})
			qt.Check(t, qt.Matches(strings.Join(errors, "\n"), cmp.Or(test.errors, "^$")))
			qt.Check(t, qt.Matches(strings.Join(logs, "\n"), cmp.Or(test.logs, "^$")))
		})
	}
}

// TestReplayHandler checks the response of the handler to a request that is not on the
// tape.
func TestReplayHandler(t *testing.T) {
	errors, _ := runFake(func(tb testing.TB) {
		tape := registrytest.Replay(tb, fstest.MapFS{"tape.txt": {Data: []byte(smallTape)}}, nil)
		got := tapeGet(registrytest.Transport(tape), "http://any.example/v2/app/tags/lists")
		qt.Check(t, qt.Matches(got, `501 {"errors":\[{"code":"UNSUPPORTED","message":"registrytest: the request is not on the tape:.*`))
		qt.Check(t, qt.Matches(tapeGet(registrytest.Transport(tape), "http://any.example/_tape/ftp/x"), "400 .*names no URL\n"))
	})
	qt.Check(t, qt.HasLen(errors, 1))
}

// TestReplayConcurrently sends each request from several goroutines.
func TestReplayConcurrently(t *testing.T) {
	const requests = 100
	text := "registrytest tape 1\nregistry https://registry.example\n"
	for i := range requests {
		for range 3 {
			text += fmt.Sprintf("\n> GET https://registry.example/v2/%d\n< 200\n<| body %d\n", i, i)
		}
	}
	tape := registrytest.Replay(t, fstest.MapFS{"tape.txt": {Data: []byte(text)}}, nil)
	var wg sync.WaitGroup
	for range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range requests {
				got := tapeGet(tape, fmt.Sprintf("https://registry.example/v2/%d", i))
				qt.Check(t, qt.Equals(got, fmt.Sprintf("200 body %d", i)))
			}
		}()
	}
	wg.Wait()
}

// TestReplayHosts replays requests to several hosts on loopback, in another order than
// they were recorded.
func TestReplayHosts(t *testing.T) {
	var urls []string
	for range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) }))
		defer s.Close()
		urls = append(urls, s.URL)
	}
	dir := filepath.Join(t.TempDir(), "tape")
	t.Run("record", func(t *testing.T) {
		tape := registrytest.Record(t, urls[0], dir, nil)
		for _, url := range urls {
			qt.Check(t, qt.Equals("http://"+strings.TrimPrefix(tapeGet(tape, url), "200 "), url))
		}
	})
	t.Run("replay", func(t *testing.T) {
		tape := registrytest.Replay(t, os.DirFS(dir), nil)
		for _, host := range []string{"127.0.0.1:3", "127.0.0.1:2", "127.0.0.1:1"} {
			qt.Check(t, qt.Equals(tapeGet(tape, "http://"+host), "200 "+host))
		}
	})
}

// FuzzReplay opens malformed tapes: each is replayed or rejected with one sentence.
func FuzzReplay(f *testing.F) {
	f.Add([]byte(smallTape))
	f.Add([]byte("registrytest tape 1\nregistry http://x\n\n> PUT http://x/\n> Range: bytes=0-1\n>= *\n< 200\n< Etag: x\n<= sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0\n<! EOF\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{
			"tape.txt": {Data: data},
			"blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": {},
		}
		errors, _ := runFake(func(tb testing.TB) {
			tape := registrytest.Replay(tb, fsys, &registrytest.TapeOptions{Repeat: true})
			for line := range strings.Lines(string(data)) {
				if url, ok := strings.CutPrefix(strings.TrimSpace(line), "> GET "); ok {
					tapeGet(tape, url)
				}
			}
		})
		for _, err := range errors {
			if !strings.HasPrefix(err, "registrytest: ") {
				t.Error(err)
			}
		}
	})
}

// TestAfterTest checks that a client that outlives the test gets an error.
func TestAfterTest(t *testing.T) {
	var tape *registrytest.Tape
	runFake(func(tb testing.TB) {
		tape = registrytest.Replay(tb, fstest.MapFS{"tape.txt": {Data: []byte(smallTape)}}, nil)
	})
	qt.Check(t, qt.Equals(tapeGet(tape, "https://registry.example/v2/"), "registrytest: the test of this tape has ended"))
}
