// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// data is a blob of the repository "repo" that the examples of faults ask for.
const data = "hello, registry"

// getBlob asks a registry with the given fault for the blob, as a client that takes
// what it gets, and prints that.
func getBlob(fault func(http.Handler) http.Handler) *http.Response {
	store := new(registry.MemStore)
	d := digest.FromString(data)
	if err := registry.PushBlob(context.Background(), store, "repo", d, strings.NewReader(data)); err != nil {
		fmt.Println(err)
	}
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpBlobGet, Fault: fault})
	return send(faults.Handler(registry.New(registry.WithStore(store))), "GET", "/v2/repo/blobs/"+d.String(), "")
}

// send sends a request and prints the answer.
func send(h http.Handler, method, path, body string) *http.Response {
	req, err := http.NewRequest(method, "http://registry.example"+path, strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return nil
	}
	resp, err := registrytest.Transport(h).RoundTrip(req)
	if err != nil {
		fmt.Println("no answer")
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	answer := []string{resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))}
	if err != nil {
		answer = append(answer, err.Error())
	}
	fmt.Println(strings.TrimRight(strings.Join(answer, ": "), ": "))
	return resp
}

func ExampleRefuse() {
	getBlob(registrytest.Refuse(fmt.Errorf("%w: it was quarantined", registry.ErrDenied)))
	// Output: 403 Forbidden: {"errors":[{"code":"DENIED","message":"requested access to the resource is denied: it was quarantined"}]}
}

func ExampleAnswer() {
	getBlob(registrytest.Answer(502, "bad gateway"))
	// Output: 502 Bad Gateway: bad gateway
}

func ExampleRetryAfter() {
	resp := getBlob(registrytest.RetryAfter(time.Minute))
	fmt.Println(resp.Header.Get("Retry-After"))
	// Output:
	// 429 Too Many Requests: {"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests"}]}
	// 60
}

func ExampleRedirect() {
	resp := getBlob(registrytest.Redirect("https://storage.example"))
	fmt.Println(resp.Header.Get("Location")[:40])
	// Output:
	// 307 Temporary Redirect
	// https://storage.example/v2/repo/blobs/sh
}

func ExampleDelay() {
	getBlob(registrytest.Delay(time.Millisecond))
	// Output: 200 OK: hello, registry
}

func ExampleDrip() {
	getBlob(registrytest.Drip(10_000))
	// Output: 200 OK: hello, registry
}

func ExampleDrop() {
	getBlob(registrytest.Drop(false))
	// Output: no answer
}

func ExampleCut() {
	getBlob(registrytest.Cut(5, false))
	getBlob(registrytest.Cut(5, true))
	// Output:
	// 200 OK: hello: unexpected EOF
	// 200 OK: hello
}

func ExampleCorrupt() {
	getBlob(registrytest.Corrupt())
	// Output: 200 OK: ?ello, registry
}

func ExampleWrongDigest() {
	resp := getBlob(registrytest.WrongDigest("sha256:0000"))
	fmt.Println(resp.Header.Get("Docker-Content-Digest"))
	// Output:
	// 200 OK: hello, registry
	// sha256:0000
}

func ExampleStaleTag() {
	h := registry.New()
	send(h, "PUT", "/v2/repo/manifests/latest", "old")
	send(h, "PUT", "/v2/repo/manifests/latest", "new")
	behind := registrytest.NewFaults(registrytest.Rule{Nth: 1, Fault: registrytest.StaleTag(digest.FromString("old"))}).Handler(h)
	send(behind, "GET", "/v2/repo/manifests/latest", "")
	send(behind, "GET", "/v2/repo/manifests/latest", "")
	// Output:
	// 201 Created
	// 201 Created
	// 200 OK: old
	// 200 OK: new
}

func ExampleExpiredToken() {
	// A registry whose only token is "good".
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer good" {
			registry.WriteError(w, r, registry.ErrUnauthorized)
		}
	})
	faults := registrytest.NewFaults(registrytest.Rule{Nth: 2, Fault: registrytest.ExpiredToken()})
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(h))}
	for range 3 {
		req, _ := http.NewRequest("GET", "http://registry.example/v2/", nil)
		req.Header.Set("Authorization", "Bearer good")
		resp, err := client.Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 200 OK
	// 401 Unauthorized
	// 200 OK
}

// One request in ten fails, the same ones each time that the test runs.
func ExampleSometimes() {
	faults := registrytest.NewFaults(registrytest.Rule{
		Match: registrytest.Sometimes(0.1, 1),
		Fault: registrytest.Answer(503, "not now"),
	})
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(registry.New()))}
	failed := 0
	for range 1000 {
		resp, err := client.Get("http://registry.example/v2/")
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode == 503 {
			failed++
		}
	}
	fmt.Println(failed > 50 && failed < 150)
	// Output: true
}

func ExampleNewFaults() {
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpTags, Fault: registrytest.Answer(503, "out of order")})
	send(faults.Handler(registry.New()), "GET", "/v2/repo/tags/list", "")
	fmt.Println(len(faults.Unfired()))
	// Output:
	// 503 Service Unavailable: out of order
	// 0
}

// exampleTB stands in for the *testing.T that a test has.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (tb *exampleTB) Helper()          {}
func (tb *exampleTB) Failed() bool     { return true }
func (tb *exampleTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }
func (tb *exampleTB) Logf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
}

func (tb *exampleTB) end() {
	for _, f := range tb.cleanups {
		f()
	}
}

func ExampleNewServer() {
	t := new(exampleTB) // in a test, its *testing.T
	defer t.end()

	s := registrytest.NewServer(t, registry.ReadOnly())
	if _, err := registrytest.PushRandomImage(context.Background(), s.Store, "repo", "latest", 1, 1, 100); err != nil {
		fmt.Println(err)
		return
	}
	resp, err := http.Get(s.URL + "/v2/repo/tags/list")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	io.Copy(os.Stdout, resp.Body)
	// Output: {"name":"repo","tags":["latest"]}
}

func ExampleNewTLSServer() {
	t := new(exampleTB) // in a test, its *testing.T
	defer t.end()

	s := registrytest.NewTLSServer(t)
	resp, err := s.Client().Get("https://" + s.Host + "/v2/")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

func ExampleTLS() {
	s, err := registrytest.TLS("registry.example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	resp, err := s.Client().Get("https://registry.example/v2/")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

func ExampleNewJournal() {
	t := new(exampleTB) // in a test, its *testing.T: this one fails
	defer t.end()

	journal := registrytest.NewJournal(t)
	client := &http.Client{Transport: registrytest.Transport(journal.Handler(registry.New()))}
	resp, err := client.Get("http://registry.example/v2/repo/manifests/latest")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	// Output:
	// what the registry was asked:
	// #  method  op            repository  reference  status  received  sent  range  auth
	// 1  GET     manifest-get  repo        latest     404     0         86
}

func ExampleJournal_Lint() {
	journal := new(registrytest.Journal)
	h := journal.Handler(registry.New())
	send(h, "POST", "/v2/repo/blobs/uploads/", "")
	send(h, "PUT", "/v2/repo/manifests/latest", "a manifest")
	for _, finding := range journal.Lint() {
		fmt.Println(finding)
	}
	// Output:
	// 202 Accepted
	// 201 Created
	// POST /v2/repo/blobs/uploads/: an upload that is neither closed nor cancelled (SHOULD, "Cancel a blob upload")
	// PUT /v2/repo/manifests/latest: no Content-Type (SHOULD, "Pushing Manifests")
}

// What a repository has is described by names; digests are filled in.
func ExamplePushContent() {
	store := new(registry.MemStore)
	names, err := registrytest.PushContent(context.Background(), store, "repo", registrytest.Content{
		Blobs: map[string]string{
			"config": `{"os":"linux","architecture":"arm64"}`,
			"layer":  registrytest.Random(1, 1<<20),
		},
		Manifests: map[string]registrytest.Manifest{
			"arm":       {Config: "config", Layers: []string{"layer"}, Platform: "linux/arm64"},
			"all":       {Manifests: []string{"arm"}},
			"signature": {Subject: "all", ArtifactType: "application/vnd.example.signature"},
		},
		Tags: map[string]string{"latest": "all"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for d, err := range store.Referrers(context.Background(), "repo", names["all"].Digest, "") {
		fmt.Println(d.ArtifactType, d.Digest == names["signature"].Digest, err)
	}
	// Output: application/vnd.example.signature true <nil>
}

func ExamplePushLayout() {
	// Any fs.FS will do: os.DirFS, embed.FS, a zip's reader.
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	d := digest.FromString(manifest)
	layout := fstest.MapFS{
		"oci-layout":                  {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		"index.json":                  {Data: fmt.Appendf(nil, `{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`, d, len(manifest))},
		"blobs/sha256/" + d.Encoded(): {Data: []byte(manifest)},
	}
	store := new(registry.MemStore)
	if err := registrytest.PushLayout(context.Background(), store, "repo", layout); err != nil {
		fmt.Println(err)
		return
	}
	send(registry.New(registry.WithStore(store)), "GET", "/v2/repo/tags/list", "")
	// Output: 200 OK: {"name":"repo","tags":["v1"]}
}

func ExamplePushDockerArchive() {
	// What "docker save alpine:3" writes, in small.
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, content := range map[string]string{
		"manifest.json": `[{"Config":"config.json","RepoTags":["alpine:3"],"Layers":["layer.tar"]}]`,
		"config.json":   `{"os":"linux"}`,
		"layer.tar":     "files",
	} {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644})
		io.WriteString(w, content)
	}
	w.Close()

	images, err := registrytest.PushDockerArchive(context.Background(), new(registry.MemStore), "my/alpine", &archive)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(images), images[0].MediaType)
	// Output: 1 application/vnd.docker.distribution.manifest.v2+json
}

// An image of go-containerregistry's is pushed as it is; here is one that
// looks like it.
func ExamplePushImage() {
	config, layer := "{}", "files"
	img := image{
		manifest: fmt.Sprintf(`{"config":{"digest":"%s"},"layers":[{"digest":"%s"}]}`, digest.FromString(config), digest.FromString(layer)),
		layers:   []layerOf{{data: layer}},
	}
	m, err := registrytest.PushImage(context.Background(), new(registry.MemStore), "repo", "latest", img)
	fmt.Println(m.MediaType, err)
	// Output: application/vnd.oci.image.manifest.v1+json <nil>
}

func ExamplePushIndex() {
	idx := index{manifest: `{"manifests":[]}`} // in life, a v1.ImageIndex
	m, err := registrytest.PushIndex(context.Background(), new(registry.MemStore), "repo", "latest", idx)
	fmt.Println(m.MediaType, err)
	// Output: application/vnd.oci.image.index.v1+json <nil>
}

func ExampleRandom() {
	first, again := registrytest.Random(1, 1000), registrytest.Random(1, 1000)
	fmt.Println(len(first), first == again)
	// Output: 1000 true
}

func ExampleNamespaces() {
	hub, github := registry.New(), registry.New()
	send(hub, "PUT", "/v2/app/manifests/latest", "from the hub")
	mirror := registrytest.Namespaces(map[string]http.Handler{"docker.io": hub, "ghcr.io": github})
	send(mirror, "GET", "/v2/app/manifests/latest?ns=docker.io", "")
	send(mirror, "GET", "/v2/app/manifests/latest?ns=ghcr.io", "")
	// Output:
	// 201 Created
	// 200 OK: from the hub
	// 404 Not Found: {"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}
}

func ExampleJournal_LinksChanged() {
	journal := new(registrytest.Journal)
	h := registry.New()
	for _, tag := range []string{"a", "b", "c"} {
		send(h, "PUT", "/v2/repo/manifests/"+tag, "a manifest")
	}
	h = journal.Handler(h)
	resp := send(h, "GET", "/v2/repo/tags/list?n=1", "")
	fmt.Println(resp.Header.Get("Link"))
	send(h, "GET", "/v2/repo/tags/list?n=2&last=a", "") // of the client's own making
	fmt.Println(len(journal.LinksChanged()))
	// Output:
	// 201 Created
	// 201 Created
	// 201 Created
	// 200 OK: {"name":"repo","tags":["a"]}
	// </v2/repo/tags/list?last=a&n=1>; rel="next"
	// 200 OK: {"name":"repo","tags":["b","c"]}
	// 1
}

func ExampleJournal_LocationsChanged() {
	journal := new(registrytest.Journal)
	h := journal.Handler(registry.New())
	location := send(h, "POST", "/v2/repo/blobs/uploads/", "").Header.Get("Location")
	send(h, "PATCH", location+"?made=up", "data")
	fmt.Println(len(journal.LocationsChanged()))
	// Output:
	// 202 Accepted
	// 202 Accepted
	// 1
}

func ExampleJournal_CredentialsUnasked() {
	journal := new(registrytest.Journal)
	client := &http.Client{Transport: registrytest.Transport(journal.Handler(registry.New()))}
	resp, err := client.Get("http://alice:secret@registry.example/v2/")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	for _, e := range journal.CredentialsUnasked() {
		fmt.Println(e.Host, e.Auth)
	}
	// Output: registry.example Basic
}

func ExampleProfiles() {
	for _, p := range registrytest.Profiles() {
		fmt.Print(p.Name, ": ")
		send(p.Handler(), "GET", "/v2/_catalog?n=2000", "") // in process; p.NewServer(t) listens
	}
	// Output:
	// OCI 1.0: 200 OK: {"repositories":[]}
	// distribution v2: 400 Bad Request: {"errors":[{"code":"PAGINATION_NUMBER_INVALID","message":"invalid number of results requested"}]}
	// distribution v3: 400 Bad Request: {"errors":[{"code":"PAGINATION_NUMBER_INVALID","message":"invalid number of results requested"}]}
	// Docker Hub: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
	// GHCR: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
	// ECR: 401 Unauthorized: Not Authorized
	// GAR: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
	// Quay: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
	// Harbor: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
	// Artifactory: 401 Unauthorized: {"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}
}

// inTest runs f as a test, without what go test -v would print.
func inTest(f func(t *testing.T)) bool {
	stdout := os.Stdout
	os.Stdout = nil
	defer func() { os.Stdout = stdout }()
	return testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "Test", F: f}})
}

func ExampleForEachProfile() {
	ok := inTest(func(t *testing.T) {
		registrytest.ForEachProfile(t, func(t *testing.T, p registrytest.Profile) {
			s := p.NewServer(t)
			resp, err := http.Get(s.URL + "/v2/") // a client would log in with p.User and p.Password
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if wants := p.User != ""; wants != (resp.StatusCode == http.StatusUnauthorized) {
				t.Error(resp.Status)
			}
		})
	})
	fmt.Println(ok)
	// Output: true
}
