// SPDX-License-Identifier: Apache-2.0

// A registry that is seldom well, in the fake time of testing/synctest: clients
// back off for seconds that nobody waits for.

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

// unreliable is a registry, at registry.test, that has the image app:v1. Each
// path answers 503 the first time, is redirected the second, needs a token the
// third; and where cut is set each blob is cut at half, unless it is asked for
// from there on.
func unreliable(t *testing.T, cut bool) (client *http.Client, image map[string]ocispec.Descriptor, faults *registrytest.Faults) {
	store := new(registry.MemStore)
	image, err := registrytest.PushContent(t.Context(), store, "app", registrytest.Content{
		Blobs:     map[string]string{"config": `{"os":"linux","rootfs":{"type":"layers"}}`, "one": registrytest.Random(1, 10_000), "two": registrytest.Random(2, 20_000)},
		Manifests: map[string]registrytest.Manifest{"image": {Config: "config", Layers: []string{"one", "two"}}},
		Tags:      map[string]string{"v1": "image"},
	})
	qt.Assert(t, qt.IsNil(err))
	tokens := &auth.TokenServer{Service: "registry.test", Policy: auth.Rules{{User: "*", Repo: "app", Actions: []auth.Action{auth.Pull}}}.Allow}

	rules := []registrytest.Rule{
		{Nth: 1, EachPath: true, Fault: registrytest.Answer(503, "not now")},
		{Nth: 2, EachPath: true, Fault: registrytest.Redirect("http://registry.test")},
		{Nth: 3, EachPath: true, Fault: auth.Bearer("http://tokens.test", "registry.test", tokens.Verify)},
	}
	for _, blob := range []string{"config", "one", "two"} {
		whole := func(r *http.Request, _ registry.Request) bool { return cut && r.Header.Get("Range") == "" }
		rules = append(rules, registrytest.Rule{Op: registry.OpBlobGet, Reference: string(image[blob].Digest), Match: whole, Fault: registrytest.Cut(image[blob].Size/2, false)})
	}
	faults = registrytest.NewFaults(rules...)
	client = &http.Client{Transport: registrytest.Transport(registrytest.Namespaces(map[string]http.Handler{
		"registry.test": faults.Handler(registry.New(registry.WithStore(store))),
		"tokens.test":   tokens,
	}))}
	return client, image, faults
}

// A client that does all that the faults ask for gets the whole image.
func TestUnreliableResuming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, image, faults := unreliable(t, true)
		c := resuming{t: t, client: client}
		manifest := c.get("/v2/app/manifests/v1")
		qt.Assert(t, qt.Equals(digest.FromBytes(manifest), image["image"].Digest))
		for _, blob := range []string{"config", "one", "two"} {
			data := c.get("/v2/app/blobs/" + image[blob].Digest.String())
			qt.Assert(t, qt.Equals(digest.FromBytes(data), image[blob].Digest))
		}
		qt.Assert(t, qt.HasLen(faults.Unfired(), 0))
	})
}

// resuming is a small client: it tries again, follows redirects, gets itself a
// token, and goes on where a body broke off.
type resuming struct {
	t      *testing.T
	client *http.Client
	token  string
}

func (c *resuming) get(path string) (data []byte) {
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
			c.login(resp.Header.Get("Www-Authenticate"))
		case 200, 206:
			if data = append(data, body...); err == nil {
				return data
			}
		default:
			c.t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	c.t.Fatalf("%s: gave up", path)
	return nil
}

func (c *resuming) login(challenge string) {
	parameter := func(name string) string {
		_, value, _ := strings.Cut(challenge, name+`="`)
		value, _, _ = strings.Cut(value, `"`)
		return value
	}
	query := url.Values{"service": {parameter("service")}, "scope": {parameter("scope")}}
	resp, err := c.client.Get(parameter("realm") + "?" + query.Encode())
	qt.Assert(c.t, qt.IsNil(err))
	defer resp.Body.Close()
	var answer struct{ Token string }
	qt.Assert(c.t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&answer)))
	c.token = answer.Token
}

// go-containerregistry gets through all but the cuts: it does not resume, and
// does not try again, a body that breaks off.
func TestUnreliableGoContainerRegistry(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, image, faults := unreliable(t, cut)
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

// oras-go too.
func TestUnreliableORAS(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, image, faults := unreliable(t, cut)
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

func checkCut(t *testing.T, err error, cut bool) {
	t.Helper()
	if cut {
		qt.Assert(t, qt.IsTrue(errors.Is(err, io.ErrUnexpectedEOF)), qt.Commentf("%v", err))
		return
	}
	qt.Assert(t, qt.IsNil(err))
}

// checkFired checks that all faults were met, the cuts only where there were any.
func checkFired(t *testing.T, faults *registrytest.Faults, cut bool) {
	t.Helper()
	for _, rule := range faults.Unfired() {
		qt.Check(t, qt.IsTrue(!cut && rule.Op == registry.OpBlobGet), qt.Commentf("%+v", rule))
	}
}
