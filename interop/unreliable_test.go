// SPDX-License-Identifier: Apache-2.0

// Clients of an unreliable registry. They run in a bubble of testing/synctest, in
// which backing off for seconds takes no time.

package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	orascontent "oras.land/oras-go/v2/content"
	orasremote "oras.land/oras-go/v2/registry/remote"
	orasauth "oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// newUnreliable returns a client of a registry at registry.test that holds the
// image app:v1. For each path, the first request gets a 503, the second is
// redirected, and the third requires a token. If cut is set, responses with blobs
// break off halfway unless the request has a Range header.
func newUnreliable(t *testing.T, cut bool) (client *http.Client, image map[string]ocispec.Descriptor, faults *registrytest.Faults) {
	store := new(registry.MemStore)
	image, err := registrytest.PushContent(t.Context(), store, "app", registrytest.Content{
		Blobs:     map[string]string{"config": `{"os":"linux","rootfs":{"type":"layers"}}`, "one": registrytest.Random(1, 10_000), "two": registrytest.Random(2, 20_000)},
		Manifests: map[string]registrytest.Manifest{"image": {Config: "config", Layers: []string{"one", "two"}}},
		Tags:      map[string]string{"v1": "image"},
	})
	qt.Assert(t, qt.IsNil(err))
	tokens := &auth.TokenServer{Service: "registry.test", Policy: auth.Rules{{User: "*", Repo: "app", Actions: []auth.Action{auth.Pull}}}.Allow}

	rules := []registrytest.Rule{
		{Nth: 1, PerPath: true, Fault: registrytest.Respond(503, "not now")},
		{Nth: 2, PerPath: true, Fault: registrytest.Redirect("http://registry.test")},
		{Nth: 3, PerPath: true, Fault: auth.Bearer("http://tokens.test", "registry.test", tokens.Verify)},
	}
	for _, blob := range []string{"config", "one", "two"} {
		whole := func(r *http.Request, _ registry.Request) bool { return cut && r.Header.Get("Range") == "" }
		rules = append(rules, registrytest.Rule{Op: registry.OpBlobGet, Reference: string(image[blob].Digest), Match: whole, Fault: registrytest.Disconnect(image[blob].Size / 2)})
	}
	faults = registrytest.NewFaults(rules...)
	client = &http.Client{Transport: registrytest.Transport(registrytest.Namespaces(map[string]http.Handler{
		"registry.test": faults.Handler(registry.New(registry.WithStore(store))),
		"tokens.test":   tokens,
	}))}
	return client, image, faults
}

// TestUnreliableResuming checks that a client that handles each fault gets the
// entire image.
func TestUnreliableResuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, image, faults := newUnreliable(t, true)
		c := resumingClient{t: t, client: client}
		manifest := c.get("/v2/app/manifests/v1")
		qt.Assert(t, qt.Equals(digest.FromBytes(manifest), image["image"].Digest))
		for _, blob := range []string{"config", "one", "two"} {
			data := c.get("/v2/app/blobs/" + image[blob].Digest.String())
			qt.Assert(t, qt.Equals(digest.FromBytes(data), image[blob].Digest))
		}
		qt.Assert(t, qt.HasLen(faults.Unfired(), 0))
	})
}

// resumingClient is a minimal client: it retries, follows redirects, gets a token,
// and resumes a body that broke off.
type resumingClient struct {
	t      *testing.T
	client *http.Client
	token  string
}

func (c *resumingClient) get(path string) (data []byte) {
	for try := 0; try < 10; try++ {
		req, err := http.NewRequest("GET", "http://registry.test"+path, nil)
		qt.Assert(c.t, qt.IsNil(err))
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		if len(data) > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(data)))
		}
		resp, err := c.client.Do(req)
		qt.Assert(c.t, qt.IsNil(err))
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch resp.StatusCode {
		case 503:
			time.Sleep(time.Minute)
		case 401:
			c.getToken(resp.Header.Get("Www-Authenticate"))
		case 200, 206:
			if data = append(data, body...); err == nil {
				return data
			}
		default:
			c.t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	c.t.Fatalf("%s: too many attempts", path)
	return nil
}

// getToken gets the token that challenge, a WWW-Authenticate header, asks for.
func (c *resumingClient) getToken(challenge string) {
	parameter := func(name string) string {
		_, value, _ := strings.Cut(challenge, name+`="`)
		value, _, _ = strings.Cut(value, `"`)
		return value
	}
	query := url.Values{"service": {parameter("service")}, "scope": {parameter("scope")}}
	resp, err := c.client.Get(parameter("realm") + "?" + query.Encode())
	qt.Assert(c.t, qt.IsNil(err))
	defer resp.Body.Close()
	var body struct{ Token string }
	qt.Assert(c.t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&body)))
	c.token = body.Token
}

// TestUnreliableGoContainerRegistry checks that go-containerregistry handles all
// faults but one: it neither resumes nor retries a body that breaks off.
func TestUnreliableGoContainerRegistry(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, image, faults := newUnreliable(t, cut)
				ref, err := name.ParseReference("registry.test/app:v1", name.Insecure)
				qt.Assert(t, qt.IsNil(err))
				img, err := remote.Image(ref, remote.WithTransport(client.Transport))
				qt.Assert(t, qt.IsNil(err))
				got, err := img.Digest()
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(got.String(), image["image"].Digest.String()))
				_, err = img.RawConfigFile()
				checkCut(t, err, cut)
				layers, err := img.Layers()
				qt.Assert(t, qt.IsNil(err))
				for _, layer := range layers {
					body, err := layer.Compressed()
					qt.Assert(t, qt.IsNil(err))
					_, err = io.ReadAll(body)
					body.Close()
					checkCut(t, err, cut)
				}
				checkFired(t, faults, cut)
			})
		})
	}
}

// TestUnreliableORAS checks that oras-go handles the same faults, and fails if a
// body breaks off.
func TestUnreliableORAS(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, image, faults := newUnreliable(t, cut)
				repo, err := orasremote.NewRepository("registry.test/app")
				qt.Assert(t, qt.IsNil(err))
				repo.PlainHTTP = true
				repo.Client = &orasauth.Client{
					Client: &http.Client{Transport: retry.NewTransport(client.Transport)},
					Cache:  orasauth.NewCache(),
				}
				d, err := repo.Resolve(t.Context(), "v1")
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(d.Digest, image["image"].Digest))
				_, err = orascontent.FetchAll(t.Context(), repo, d)
				qt.Assert(t, qt.IsNil(err))
				for _, blob := range []string{"config", "one", "two"} {
					_, err := orascontent.FetchAll(t.Context(), repo.Blobs(), image[blob])
					checkCut(t, err, cut)
				}
				checkFired(t, faults, cut)
			})
		})
	}
}

// checkCut checks that err is io.ErrUnexpectedEOF if cut is set, and nil
// otherwise.
func checkCut(t *testing.T, err error, cut bool) {
	t.Helper()
	if cut {
		qt.Assert(t, qt.IsTrue(errors.Is(err, io.ErrUnexpectedEOF)), qt.Commentf("%v", err))
		return
	}
	qt.Assert(t, qt.IsNil(err))
}

// checkFired checks that each fault has occurred, and each cut if cut is set.
func checkFired(t *testing.T, faults *registrytest.Faults, cut bool) {
	t.Helper()
	for _, rule := range faults.Unfired() {
		qt.Check(t, qt.IsTrue(!cut && rule.Op == registry.OpBlobGet), qt.Commentf("%+v", rule))
	}
}
