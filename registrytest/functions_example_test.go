// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// data is the content of the blob that the examples of faults pull.
const data = "hello, registry"

// getBlob pulls the blob from a registry with the given fault, and prints the
// response.
func getBlob(fault func(http.Handler) http.Handler) *http.Response {
	store := new(registry.MemStore)
	d := digest.FromString(data)
	if err := registry.PushBlob(context.Background(), store, "repo", d, strings.NewReader(data)); err != nil {
		fmt.Println(err)
	}
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpBlobGet, Fault: fault})
	return send(faults.Handler(registry.New(registry.WithStore(store))), "GET", "/v2/repo/blobs/"+d.String(), "")
}

// send sends a request in process, and prints the response.
func send(h http.Handler, method, path, body string) *http.Response {
	req, err := http.NewRequest(method, "http://registry.example"+path, strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return nil
	}
	resp, err := registrytest.Transport(h).RoundTrip(req)
	if err != nil {
		fmt.Println("no response")
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	line := []string{resp.Status, strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))}
	if err != nil {
		line = append(line, err.Error())
	}
	fmt.Println(strings.TrimRight(strings.Join(line, ": "), ": "))
	return resp
}

func ExampleReject() {
	getBlob(registrytest.Reject(fmt.Errorf("%w: quarantined", registry.ErrDenied)))
	// Output: 403 Forbidden: {"errors":[{"code":"DENIED","message":"requested access to the resource is denied: quarantined"}]}
}

func ExampleRespond() {
	getBlob(registrytest.Respond(502, "bad gateway"))
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

func ExampleThrottle() {
	getBlob(registrytest.Throttle(10_000))
	// Output: 200 OK: hello, registry
}

func ExampleDropRequest() {
	h := registry.New()
	faults := registrytest.NewFaults(registrytest.Rule{Nth: 1, Fault: registrytest.DropRequest()})
	send(faults.Handler(h), "PUT", "/v2/repo/manifests/latest", "a manifest")
	send(h, "GET", "/v2/repo/manifests/latest", "")
	// Output:
	// no response
	// 404 Not Found: {"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}
}

// The registry has stored the manifest, although the client gets no response.
func ExampleDropResponse() {
	h := registry.New()
	faults := registrytest.NewFaults(registrytest.Rule{Nth: 1, Fault: registrytest.DropResponse()})
	send(faults.Handler(h), "PUT", "/v2/repo/manifests/latest", "a manifest")
	send(h, "GET", "/v2/repo/manifests/latest", "")
	// Output:
	// no response
	// 200 OK: a manifest
}

func ExampleDisconnect() {
	getBlob(registrytest.Disconnect(5))
	// Output: 200 OK: hello: unexpected EOF
}

func ExampleTruncate() {
	getBlob(registrytest.Truncate(5))
	// Output: 200 OK: hello
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
	stale := registrytest.NewFaults(registrytest.Rule{Nth: 1, Fault: registrytest.StaleTag(digest.FromString("old"))}).Handler(h)
	send(stale, "GET", "/v2/repo/manifests/latest", "")
	send(stale, "GET", "/v2/repo/manifests/latest", "")
	// Output:
	// 201 Created
	// 201 Created
	// 200 OK: old
	// 200 OK: new
}

func ExampleExpiredToken() {
	// This registry accepts one token, "good".
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

// One request in ten fails. The same requests fail in each run of the test.
func ExampleSometimes() {
	faults := registrytest.NewFaults(registrytest.Rule{
		Match: registrytest.Sometimes(0.1, 1),
		Fault: registrytest.Respond(503, "unavailable"),
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
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpTags, Fault: registrytest.Respond(503, "unavailable")})
	send(faults.Handler(registry.New()), "GET", "/v2/repo/tags/list", "")
	fmt.Println(len(faults.Unfired()))
	// Output:
	// 503 Service Unavailable: unavailable
	// 0
}

// exampleTB takes the place of a test's *testing.T.
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
	t := new(exampleTB) // in a test, its *testing.T; this one has failed
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
	// requests to the registry:
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
	// POST /v2/repo/blobs/uploads/: upload is neither completed nor cancelled (SHOULD, "Cancel a blob upload")
	// PUT /v2/repo/manifests/latest: no Content-Type (SHOULD, "Pushing Manifests")
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

func ExampleJournal_IgnoredLinks() {
	journal := new(registrytest.Journal)
	h := registry.New()
	for _, tag := range []string{"a", "b", "c"} {
		send(h, "PUT", "/v2/repo/manifests/"+tag, "a manifest")
	}
	h = journal.Handler(h)
	resp := send(h, "GET", "/v2/repo/tags/list?n=1", "")
	fmt.Println(resp.Header.Get("Link"))
	send(h, "GET", "/v2/repo/tags/list?n=2&last=a", "") // a URL that the client built
	fmt.Println(len(journal.IgnoredLinks()))
	// Output:
	// 201 Created
	// 201 Created
	// 201 Created
	// 200 OK: {"name":"repo","tags":["a"]}
	// </v2/repo/tags/list?last=a&n=1>; rel="next"
	// 200 OK: {"name":"repo","tags":["b","c"]}
	// 1
}

func ExampleJournal_IgnoredLocations() {
	journal := new(registrytest.Journal)
	h := journal.Handler(registry.New())
	location := send(h, "POST", "/v2/repo/blobs/uploads/", "").Header.Get("Location")
	send(h, "PATCH", location+"?made=up", "data")
	fmt.Println(len(journal.IgnoredLocations()))
	// Output:
	// 202 Accepted
	// 202 Accepted
	// 1
}

func ExampleJournal_UnsolicitedCredentials() {
	journal := new(registrytest.Journal)
	client := &http.Client{Transport: registrytest.Transport(journal.Handler(registry.New()))}
	resp, err := client.Get("http://alice:secret@registry.example/v2/")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	for _, e := range journal.UnsolicitedCredentials() {
		fmt.Println(e.Host, e.Auth)
	}
	// Output: registry.example Basic
}

func ExampleProfiles() {
	for _, p := range registrytest.Profiles() {
		fmt.Print(p.Name, ": ")
		send(p.Handler(), "GET", "/v2/_catalog?n=2000", "") // in process; p.NewServer(t) starts a server
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

// inTest runs f as a test, without the output of go test -v.
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
			if requiresLogin := p.User != ""; requiresLogin != (resp.StatusCode == http.StatusUnauthorized) {
				t.Error(resp.Status)
			}
		})
	})
	fmt.Println(ok)
	// Output: true
}
