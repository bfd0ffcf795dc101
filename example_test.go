// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// A registry for a test: push a blob, and pull it.
func Example() {
	server := httptest.NewServer(registry.New())
	defer server.Close()

	const text = "hello, registry"
	d := digest.FromString(text)
	resp, err := http.Post(server.URL+"/v2/my/repo/blobs/uploads/?digest="+d.String(), "application/octet-stream", strings.NewReader(text))
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)

	resp, err = http.Get(server.URL + resp.Header.Get("Location"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s: %s\n", resp.Status, body)
	// Output:
	// 201 Created
	// 200 OK: hello, registry
}

// Fill a store without HTTP, with the same checks, and serve it.
func ExamplePushManifest() {
	ctx := context.Background()
	store := new(registry.MemStore)

	config := []byte("{}")
	if err := registry.PushBlob(ctx, store, "my/repo", digest.FromBytes(config), strings.NewReader("{}")); err != nil {
		fmt.Println(err)
		return
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	push := func(layer digest.Digest) {
		_, err := registry.PushManifest(ctx, store, "my/repo", registry.ManifestPush{
			MediaType: mediaType,
			Content: fmt.Appendf(nil, `{
				"schemaVersion": 2,
				"mediaType": %q,
				"config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": %q},
				"layers": [{"mediaType": "text/plain", "size": 2, "digest": %q}]
			}`, mediaType, digest.FromBytes(config), layer),
			Tags: []string{"latest"},
		})
		fmt.Println(err)
	}
	push(digest.FromString("a layer that was not pushed"))
	push(digest.FromBytes(config))

	w := httptest.NewRecorder()
	registry.New(registry.WithStore(store)).ServeHTTP(w, httptest.NewRequest("GET", "/v2/my/repo/tags/list", nil))
	fmt.Println(w.Body)
	// Output:
	// manifest references a manifest or blob unknown to registry: blob sha256:0c4d8a11a625c71504a02c8f4d2f72b80cad8d284c1277f1a7844f7192093a78
	// <nil>
	// {"name":"my/repo","tags":["latest"]}
}

// Fill a store once, and clone it for each test: a clone shares the content, but not
// its changes.
func ExampleMemStore_Clone() {
	ctx := context.Background()
	seed := new(registry.MemStore)
	d := digest.FromString("shared")
	registry.PushBlob(ctx, seed, "repo", d, strings.NewReader("shared"))

	fork := seed.Clone()
	fmt.Println(fork.DeleteBlob(ctx, "repo", d))
	_, err := fork.OpenBlob(ctx, "repo", d)
	fmt.Println(err)
	_, err = seed.OpenBlob(ctx, "repo", d)
	fmt.Println(err)
	// Output:
	// <nil>
	// repository name not known to registry
	// <nil>
}

// Middleware parses a request, and rejects it with an error in the spec's shape.
func ExampleParseRequest() {
	inner := registry.New()
	frozen := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := registry.ParseRequest(r)
		if err == nil && req.Op == registry.OpManifestPut && req.Tag == "stable" {
			registry.WriteError(w, r, fmt.Errorf("%w: %s is frozen", registry.ErrDenied, req.Tag))
			return
		}
		inner.ServeHTTP(w, r)
	})

	w := httptest.NewRecorder()
	frozen.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/my/repo/manifests/stable", strings.NewReader("{}")))
	fmt.Println(w.Code, w.Body)
	// Output:
	// 403 {"errors":[{"code":"DENIED","message":"requested access to the resource is denied: stable is frozen"}]}
}

// TestReadmeExample checks that the README's example compiles and runs.
func TestReadmeExample(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(readme), "```go\nfunc Example")
	code, _, ok := strings.Cut("func Example"+code, "```")
	if !ok || !strings.Contains(string(examples), code) {
		t.Errorf("not in example_test.go:\n%s", code)
	}
}
