// SPDX-License-Identifier: Apache-2.0

// Real clients that are recorded on tapes, and replayed without a network.

package interop

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"github.com/regclient/regclient/scheme/reg"
	"github.com/sirupsen/logrus"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	orasauth "oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/registrytest"
)

// tapePassword is the password of alice, which no file of a tape may contain.
const tapePassword = "planted-Passw0rd/with+signs"

// tapeUpstream is a registry to record, with a token server.
type tapeUpstream struct {
	url    string
	close  func()
	mu     sync.Mutex
	tokens []string // that were issued
}

// note notes the tokens in the responses of h.
func (u *tapeUpstream) note(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		var doc map[string]any
		if json.Unmarshal(rec.Body.Bytes(), &doc) == nil {
			u.mu.Lock()
			for _, name := range []string{"token", "access_token", "refresh_token"} {
				if token, ok := doc[name].(string); ok {
					u.tokens = append(u.tokens, token)
				}
			}
			u.mu.Unlock()
		}
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	})
}

// tapeUpstreams are the registries that are recorded.
var tapeUpstreams = map[string]func(t *testing.T) *tapeUpstream{
	"berth": func(t *testing.T) *tapeUpstream {
		u := new(tapeUpstream)
		server := &auth.TokenServer{
			Service: "registry.test",
			Check:   auth.Users{"alice": tapePassword}.Check,
			Known:   func(context.Context, string) error { return nil },
			Policy:  auth.Rules{{User: "alice", Repo: "**", Actions: []auth.Action{auth.Pull, auth.Push}}}.Allow,
		}
		tokens := httptest.NewServer(u.note(server))
		s := httptest.NewServer(auth.Bearer(localhost(tokens.URL)+"/token", "registry.test", server.Verify)(newRegistry(t)))
		u.url, u.close = s.URL, func() { s.Close(); tokens.Close() }
		return u
	},
	"distribution": func(t *testing.T) *tapeUpstream {
		u := new(tapeUpstream)
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		qt.Assert(t, qt.IsNil(err))
		tokens := httptest.NewServer(u.note(grantAll(key)))
		keys, err := json.Marshal(map[string]any{"keys": []any{jwk(key, "key", "sig", "RS256")}})
		qt.Assert(t, qt.IsNil(err))
		keyFile := filepath.Join(t.TempDir(), "keys.json")
		qt.Assert(t, qt.IsNil(os.WriteFile(keyFile, keys, 0o600)))
		logrus.SetOutput(io.Discard)
		c := &configuration.Configuration{Storage: configuration.Storage{
			"inmemory": configuration.Parameters{},
			"delete":   configuration.Parameters{"enabled": true},
		}}
		c.Auth = configuration.Auth{"token": configuration.Parameters{
			"realm": localhost(tokens.URL) + "/token", "service": "registry.test", "issuer": "issuer", "jwks": keyFile,
		}}
		c.Catalog.MaxEntries = 1000
		c.HTTP.Secret = "s"
		c.Log.AccessLog.Disabled = true
		c.Log.Level = "panic"
		ctx, cancel := context.WithCancel(context.Background())
		s := httptest.NewServer(handlers.NewApp(ctx, c))
		u.url, u.close = s.URL, func() { s.Close(); tokens.Close(); cancel() }
		return u
	},
}

// localhost returns a URL on loopback by name: go-containerregistry sends no password to
// the address.
func localhost(url string) string { return strings.Replace(url, "127.0.0.1", "localhost", 1) }

// grantAll returns a token server that grants alice everything. It knows only GET.
func grantAll(key *rsa.PrivateKey) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.NotFound(w, r)
			return
		}
		if user, password, _ := r.BasicAuth(); user != "alice" || password != tapePassword {
			w.Header().Set("Www-Authenticate", `Basic realm="tokens"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		access := []any{}
		for _, scope := range strings.Fields(strings.Join(r.URL.Query()["scope"], " ")) {
			parts := strings.Split(scope, ":")
			access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
		}
		now := time.Now().Unix()
		signed := encodeJSON(map[string]any{"alg": "RS256", "typ": "JWT", "kid": "key"}) + "." + encodeJSON(map[string]any{
			"iss": "issuer", "sub": "alice", "aud": "registry.test", "iat": now, "nbf": now - 10, "exp": now + 300, "access": access,
		})
		sum := sha256.Sum256([]byte(signed))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		json.NewEncoder(w).Encode(bothDoc(signed + "." + base64.RawURLEncoding.EncodeToString(signature)))
	})
}

// tapeContent returns an index of two platforms, and a referrer of it.
var tapeContent = sync.OnceValues(func() (c *content, referrer ocispec.Descriptor) {
	c = newContent("v1")
	c.root = c.addIndex(map[string]string{"linux/amd64": "net/url", "linux/arm64": "net/textproto"}, false)
	referrer = c.addArtifact(digest.SHA256, []byte(`{"bomFormat":"CycloneDX"}`), &c.root)
	return c, referrer
})

// tapeEnd is a client's end: the registry's host, and the transport of clients in Go,
// nil for those that use the tape's handler.
type tapeEnd struct {
	host      string
	transport http.RoundTripper
}

func (e tapeEnd) client() *http.Client { return &http.Client{Transport: e.transport} }

// tapeClients push an index with its referrer, where they can, and pull it.
var tapeClients = map[string]func(t *testing.T, e tapeEnd, dir string, c *content, referrer ocispec.Descriptor){
	"crane": func(t *testing.T, e tapeEnd, dir string, c *content, referrer ocispec.Descriptor) {
		opts := []remote.Option{remote.WithAuth(&authn.Basic{Username: "alice", Password: tapePassword}), remote.WithTransport(e.transport)}
		path, err := layout.FromPath(dir)
		qt.Assert(t, qt.IsNil(err))
		all, err := path.ImageIndex()
		qt.Assert(t, qt.IsNil(err))
		index, err := all.ImageIndex(ggcrHash(t, c.root.Digest))
		qt.Assert(t, qt.IsNil(err))
		ref := ggcrRef(t, e.host+"/team/app:v1")
		qt.Assert(t, qt.IsNil(remote.WriteIndex(ref, index, opts...)))
		artifact, err := all.Image(ggcrHash(t, referrer.Digest))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.Write(ref.Context().Digest(referrer.Digest.String()), artifact, opts...)))

		pulled, err := remote.Index(ref, opts...)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(validate.Index(pulled)))
		_, err = remote.Referrers(ref.Context().Digest(c.root.Digest.String()), opts...)
		qt.Assert(t, qt.IsNil(err))
	},
	"skopeo": func(t *testing.T, e tapeEnd, dir string, c *content, _ ocispec.Descriptor) {
		s := newSkopeo(t)
		ref := "docker://" + e.host + "/team/app:v1"
		s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds=alice:"+tapePassword, "oci:"+dir+":v1", ref)
		to := t.TempDir()
		s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--src-tls-verify=false", "--src-creds=alice:"+tapePassword, ref, "oci:"+to+":v1")
		index := *c
		index.bytes = maps.Clone(c.bytes)
		for _, d := range slices.Concat(c.manifests[3:], c.blobs[4:]) { // the referrer's
			delete(index.bytes, d.Digest)
		}
		index.checkLayout(t, to)
		s.run(t, "inspect", "--tls-verify=false", "--creds=alice:"+tapePassword, ref)
	},
	"oras": func(t *testing.T, e tapeEnd, dir string, c *content, referrer ocispec.Descriptor) {
		from, err := oci.NewFromFS(t.Context(), os.DirFS(dir))
		qt.Assert(t, qt.IsNil(err))
		repo := orasRepo(t, e.host, "team/app")
		repo.Client = &orasauth.Client{
			Client:     e.client(),
			Credential: orasauth.StaticCredential(e.host, orasauth.Credential{Username: "alice", Password: tapePassword}),
		}
		_, err = oras.ExtendedCopy(t.Context(), from, "v1", repo, "v1", oras.DefaultExtendedCopyOptions)
		qt.Assert(t, qt.IsNil(err))
		pulled := t.TempDir()
		to, err := oci.New(pulled)
		qt.Assert(t, qt.IsNil(err))
		_, err = oras.ExtendedCopy(t.Context(), repo, "v1", to, "v1", oras.DefaultExtendedCopyOptions)
		qt.Assert(t, qt.IsNil(err))
		c.checkLayout(t, pulled)
	},
	"containerd": func(t *testing.T, e tapeEnd, _ string, c *content, referrer ocispec.Descriptor) {
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
			docker.WithPlainHTTP(docker.MatchAllHosts),
			docker.WithClient(e.client()),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(e.client()), docker.WithAuthCreds(func(string) (string, string, error) { return "alice", tapePassword, nil }))),
		)})
		ref := e.host + "/team/app:v1"
		for _, d := range slices.Concat(c.blobs, c.manifests) {
			target := e.host + "/team/app@" + d.Digest.String()
			if d.Digest == c.root.Digest {
				target = ref
			}
			pusher, err := resolver.Pusher(t.Context(), target)
			qt.Assert(t, qt.IsNil(err))
			_, err = remotes.PushHandler(pusher, provider(c.bytes))(t.Context(), d)
			qt.Assert(t, qt.IsNil(err))
		}
		resolved, root, err := resolver.Resolve(t.Context(), ref)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(root.Digest, c.root.Digest))
		fetcher, err := resolver.Fetcher(t.Context(), resolved)
		qt.Assert(t, qt.IsNil(err))
		for _, d := range slices.Concat(c.blobs, c.manifests) {
			r, err := fetcher.Fetch(t.Context(), d)
			qt.Assert(t, qt.IsNil(err))
			got, err := digest.FromReader(r)
			r.Close()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, d.Digest))
		}
	},
	"regclient": func(t *testing.T, e tapeEnd, dir string, c *content, referrer ocispec.Descriptor) {
		rc := regclient.New(
			regclient.WithConfigHost(config.Host{Name: e.host, Hostname: e.host, TLS: config.TLSDisabled, User: "alice", Pass: tapePassword, BlobChunk: 10_000, BlobMax: 20_000}),
			regclient.WithRegOpts(reg.WithDelay(10*time.Millisecond, 100*time.Millisecond), reg.WithHTTPClient(e.client())),
		)
		repo := regclientRef(t, e.host+"/team/app:v1")
		qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), regclientRef(t, "ocidir://"+dir+":v1"), repo)))
		qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), regclientRef(t, "ocidir://"+dir+"@"+referrer.Digest.String()), regclientRef(t, e.host+"/team/app@"+referrer.Digest.String()))))
		pulled := t.TempDir()
		to := regclientRef(t, "ocidir://"+pulled+":v1")
		qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), repo, to, regclient.ImageWithForceRecursive())))
		// Not ImageWithReferrers: it lists those of all manifests at once, but when a
		// registry lacks the API, like distribution, only until the first 404. So
		// which lists it requests is up to chance.
		_, err := rc.ReferrerList(t.Context(), regclientRef(t, e.host+"/team/app@"+c.root.Digest.String()))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), regclientRef(t, e.host+"/team/app@"+referrer.Digest.String()), regclientRef(t, "ocidir://"+pulled+"@"+referrer.Digest.String()))))
		qt.Assert(t, qt.IsNil(rc.Close(t.Context(), to)))
		c.checkLayout(t, pulled)
	},
}

// runTape runs a client with a tape, as its transport or as its registry.
func runTape(t *testing.T, tape *registrytest.Tape, client, form string) {
	e := tapeEnd{tape.Host, tape}
	if form == "handler" {
		s := httptest.NewServer(tape)
		defer s.Close()
		e = tapeEnd{strings.TrimPrefix(s.URL, "http://"), s.Client().Transport}
	}
	c, referrer := tapeContent()
	dir := c.writeLayout(t)
	// The layout names the referrer too, so that clients find it.
	index := readIndex(t, dir)
	index.Manifests = append(index.Manifests, referrer)
	data, err := json.Marshal(index)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, ocispec.ImageIndexFile), data, 0o644)))
	tapeClients[client](t, e, dir, c, referrer)
}

// TestTapes records each client with each registry, once as a transport and once as a
// handler, and replays the tape when the registry and its token server are gone.
func TestTapes(t *testing.T) {
	for _, upstream := range slices.Sorted(maps.Keys(tapeUpstreams)) {
		for _, client := range slices.Sorted(maps.Keys(tapeClients)) {
			for _, form := range []string{"transport", "handler"} {
				if client == "skopeo" && form == "transport" {
					continue // it is a program
				}
				t.Run(upstream+"/"+client+"/"+form, func(t *testing.T) {
					dir := filepath.Join(t.TempDir(), "tape")
					u := tapeUpstreams[upstream](t)
					t.Run("record", func(t *testing.T) { runTape(t, registrytest.Record(t, u.url, dir, nil), client, form) })
					u.close()
					if t.Failed() {
						return
					}
					// As a handler in any case: a tape is of both forms.
					for _, replayed := range slices.Compact([]string{form, "handler"}) {
						t.Run("replay_"+replayed, func(t *testing.T) { runTape(t, registrytest.Replay(t, os.DirFS(dir), nil), client, replayed) })
					}
					qt.Check(t, qt.Not(qt.HasLen(u.tokens, 0)))
					checkTape(t, dir, append(u.tokens, tapePassword, base64.StdEncoding.EncodeToString([]byte("alice:"+tapePassword))))
				})
			}
		}
	}
}

// TestTapesAreReproducible records each client several times, with other ports, tokens and
// IDs of uploads each time, and checks that the tapes are the same.
func TestTapesAreReproducible(t *testing.T) {
	for _, upstream := range slices.Sorted(maps.Keys(tapeUpstreams)) {
		for _, client := range slices.Sorted(maps.Keys(tapeClients)) {
			t.Run(upstream+"/"+client, func(t *testing.T) {
				var tapes []map[string]string
				for _, name := range []string{"a", "b", "c"} {
					dir := filepath.Join(t.TempDir(), "tape")
					u := tapeUpstreams[upstream](t)
					t.Run(name, func(t *testing.T) { runTape(t, registrytest.Record(t, u.url, dir, nil), client, "handler") })
					u.close()
					tapes = append(tapes, readTape(t, dir))
				}
				qt.Check(t, qt.DeepEquals(tapes[1], tapes[0]))
				qt.Check(t, qt.DeepEquals(tapes[2], tapes[0]))
			})
		}
	}
}

// TestTapesOfProfiles records each client with each profile, with its redirects to storage and
// its forms of Locations, and replays it.
func TestTapesOfProfiles(t *testing.T) {
	registrytest.ForEachProfile(t, func(t *testing.T, p registrytest.Profile) {
		for _, client := range slices.Sorted(maps.Keys(profileClients)) {
			t.Run(client, func(t *testing.T) {
				run := func(t *testing.T, tape *registrytest.Tape) {
					s := httptest.NewServer(tape)
					defer s.Close()
					err := profileClients[client](t, p, strings.TrimPrefix(s.URL, "http://"), contents()["image"])
					qt.Assert(t, qt.IsNil(err))
				}
				dir := filepath.Join(t.TempDir(), "tape")
				t.Run("record", func(t *testing.T) { run(t, registrytest.Record(t, p.NewServer(t).URL, dir, nil)) })
				t.Run("replay", func(t *testing.T) { run(t, registrytest.Replay(t, os.DirFS(dir), nil)) })
			})
		}
	})
}

// readTape returns the files of a tape.
func readTape(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	qt.Assert(t, qt.IsNil(fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(data)
		return err
	})))
	return files
}

func readIndex(t *testing.T, dir string) (index ocispec.Index) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, &index)))
	return index
}

// checkTape checks that no file of a tape contains a secret, and that OCI tools can open
// it.
func checkTape(t *testing.T, dir string, secrets []string) {
	t.Helper()
	for name, data := range readTape(t, dir) {
		for _, secret := range secrets {
			if strings.Contains(data, secret) {
				t.Errorf("%s contains the secret %s", name, secret)
			}
		}
	}
	c, _ := tapeContent()
	m, err := ocidir.FS(os.DirFS(dir)).GetTag(t.Context(), ocidir.RootName, "v1")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m.Digest, c.root.Digest))

	store, err := oci.NewFromFS(t.Context(), os.DirFS(dir))
	qt.Assert(t, qt.IsNil(err))
	d, err := store.Resolve(t.Context(), "v1")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(d.Digest, c.root.Digest))

	path, err := layout.FromPath(dir)
	qt.Assert(t, qt.IsNil(err))
	all, err := path.ImageIndex()
	qt.Assert(t, qt.IsNil(err))
	index, err := all.ImageIndex(ggcrHash(t, c.root.Digest))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(validate.Index(index)))

	s := newSkopeo(t)
	to := t.TempDir()
	s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "oci:"+dir+":v1", "oci:"+to+":v1")
	qt.Check(t, qt.Equals(readIndex(t, to).Manifests[0].Digest, c.root.Digest))
}
