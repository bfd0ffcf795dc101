// SPDX-License-Identifier: Apache-2.0

// containerd's resolver with plain HTTP and TLS, each kind of authentication, and
// several hosts.

package interop

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/go-quicktest/qt"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// resolverSetup is the setup of a test of the resolver.
type resolverSetup struct {
	ref   string // of the image
	hosts docker.RegistryHosts
	// check checks the requests that the servers received; it may be nil.
	check func(t *testing.T)
	// wantErr is the expected error, if any.
	wantErr error
}

func TestContainerdResolver(t *testing.T) {
	users := auth.Users{"alice": "wonderland"}
	policy := auth.Rules{
		{User: "alice", Repo: "team/**", Actions: []auth.Action{auth.Pull}},
		{User: "*", Repo: "public/**", Actions: []auth.Action{auth.Pull}},
	}.Allow
	store := new(registry.MemStore)
	images := map[string]registry.Manifest{}
	for _, repo := range []string{"team/app", "public/app"} {
		m, err := registrytest.PushRandomImage(t.Context(), store, repo, "v1", 1, 1, 50_000)
		qt.Assert(t, qt.IsNil(err))
		images[repo] = m
	}
	content := registry.New(registry.WithStore(store))

	serve := func(t *testing.T, h http.Handler) (j *registrytest.Journal, s *httptest.Server) {
		j = registrytest.NewJournal(t)
		s = httptest.NewServer(j.Handler(h))
		t.Cleanup(s.Close)
		return j, s
	}
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	// singleHost configures the host in the reference.
	singleHost := func(s *httptest.Server, repo string, opts ...docker.RegistryOpt) resolverSetup {
		opts = append(opts, docker.WithPlainHTTP(docker.MatchAllHosts))
		return resolverSetup{ref: host(s) + "/" + repo + ":v1", hosts: docker.ConfigureDefaultRegistries(opts...)}
	}
	credentials := func(user, secret string) docker.RegistryOpt {
		return docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) { return user, secret, nil })))
	}
	// withTokens starts a registry that requires tokens, and the token server,
	// which rejects requests with the given method with 405. The journal
	// records the requests to the token server.
	withTokens := func(t *testing.T, rejected string) (s *httptest.Server, j *registrytest.Journal) {
		ts := &auth.TokenServer{Service: "registry.test", Check: users.Check, Known: users.Known, Policy: policy}
		j, tokenHost := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == rejected {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			ts.ServeHTTP(w, r)
		}))
		_, s = serve(t, auth.Bearer(tokenHost.URL+"/token", "registry.test", ts.Verify)(content))
		return s, j
	}
	checkMethods := func(j *registrytest.Journal, want ...string) func(*testing.T) {
		return func(t *testing.T) {
			var methods []string
			for _, e := range j.Entries() {
				methods = append(methods, e.Method)
			}
			slices.Sort(methods)
			qt.Check(t, qt.DeepEquals(slices.Compact(methods), want))
		}
	}
	// hostList configures several hosts for the name in the reference.
	hostList := func(hosts ...docker.RegistryHost) resolverSetup {
		for i := range hosts {
			if hosts[i].Client == nil {
				hosts[i].Client = http.DefaultClient
			}
			if hosts[i].Scheme == "" {
				hosts[i].Scheme = "http"
			}
			hosts[i].Path = "/v2"
			hosts[i].Capabilities = docker.HostCapabilityPull | docker.HostCapabilityResolve
		}
		return resolverSetup{ref: "source.test/team/app:v1", hosts: func(string) ([]docker.RegistryHost, error) { return hosts, nil }}
	}
	deadHost := func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		qt.Assert(t, qt.IsNil(err))
		defer l.Close()
		return l.Addr().String()
	}

	for _, test := range []struct {
		name  string
		setUp func(t *testing.T) resolverSetup
	}{
		{"plain_HTTP", func(t *testing.T) resolverSetup {
			_, s := serve(t, content)
			return singleHost(s, "team/app")
		}},
		{"HTTPS", func(t *testing.T) resolverSetup {
			s := registrytest.NewTLSServer(t, registry.WithStore(store))
			return resolverSetup{ref: s.Host + "/team/app:v1", hosts: docker.ConfigureDefaultRegistries(docker.WithClient(s.Client()))}
		}},
		{"Basic", func(t *testing.T) resolverSetup {
			_, s := serve(t, auth.Basic("registry", users.Check, policy)(content))
			return singleHost(s, "team/app", credentials("alice", "wonderland"))
		}},
		{"Basic_with_wrong_password", func(t *testing.T) resolverSetup {
			_, s := serve(t, auth.Basic("registry", users.Check, policy)(content))
			r := singleHost(s, "team/app", credentials("alice", ""))
			r.wantErr = docker.ErrInvalidAuthorization
			return r
		}},
		{"anonymous_token", func(t *testing.T) resolverSetup {
			s, j := withTokens(t, "")
			r := singleHost(s, "public/app", docker.WithAuthorizer(docker.NewDockerAuthorizer()))
			r.check = checkMethods(j, "GET")
			return r
		}},
		{"token_by_GET_with_password", func(t *testing.T) resolverSetup {
			s, j := withTokens(t, "POST")
			r := singleHost(s, "team/app", credentials("alice", "wonderland"))
			r.check = checkMethods(j, "GET", "POST")
			return r
		}},
		{"token_by_POST_with_refresh_token", func(t *testing.T) resolverSetup {
			s, j := withTokens(t, "GET")
			r := singleHost(s, "team/app", credentials("", refreshToken(t, s, "alice", "wonderland")))
			r.check = checkMethods(j, "POST")
			return r
		}},
		{"token_by_POST_with_password", func(t *testing.T) resolverSetup {
			s, j := withTokens(t, "GET")
			r := singleHost(s, "team/app", credentials("alice", "wonderland"))
			r.check = checkMethods(j, "POST")
			return r
		}},
		{"token_with_insufficient_scope", func(t *testing.T) resolverSetup {
			s, _ := withTokens(t, "")
			r := singleHost(s, "team/app", docker.WithAuthorizer(docker.NewDockerAuthorizer()))
			r.wantErr = docker.ErrInvalidAuthorization
			return r
		}},
		{"fallback_from_dead_host", func(t *testing.T) resolverSetup {
			j, s := serve(t, content)
			r := hostList(docker.RegistryHost{Host: deadHost(t)}, docker.RegistryHost{Host: host(s)})
			r.check = func(t *testing.T) { qt.Check(t, qt.Not(qt.Equals(j.Count(), 0))) }
			return r
		}},
		{"fallback_from_TLS_to_second_host", func(t *testing.T) resolverSetup {
			plain, s := serve(t, content) // without TLS
			j, second := serve(t, content)
			r := hostList(docker.RegistryHost{Host: host(s), Scheme: "https"}, docker.RegistryHost{Host: host(second)})
			r.check = func(t *testing.T) {
				qt.Check(t, qt.Equals(plain.Count(), 0))
				qt.Check(t, qt.Not(qt.Equals(j.Count(), 0)))
			}
			return r
		}},
		{"mirror_with_ns", func(t *testing.T) resolverSetup {
			mirror, s := serve(t, registrytest.Namespaces(map[string]http.Handler{"source.test": content, "other.test": registry.New()}))
			source, origin := serve(t, content)
			r := hostList(docker.RegistryHost{Host: host(s)}, docker.RegistryHost{Host: host(origin)})
			r.check = func(t *testing.T) {
				for _, e := range mirror.Entries() {
					qt.Check(t, qt.Equals(e.Namespace, "source.test"))
				}
				qt.Check(t, qt.Equals(source.Count(), 0))
			}
			return r
		}},
		{"fallback_from_mirror_to_source", func(t *testing.T) resolverSetup {
			mirror, s := serve(t, registrytest.Namespaces(map[string]http.Handler{"source.test": registry.New()}))
			source, origin := serve(t, content)
			r := hostList(docker.RegistryHost{Host: host(s)}, docker.RegistryHost{Host: host(origin)})
			r.check = func(t *testing.T) {
				qt.Check(t, qt.Not(qt.Equals(mirror.Count(registry.OpManifestHead, registry.OpManifestGet), 0)))
				qt.Check(t, qt.Not(qt.Equals(source.Count(), 0)))
			}
			return r
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			r := test.setUp(t)
			resolver := docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts})
			name, d, err := resolver.Resolve(ctx, r.ref)
			if r.wantErr != nil {
				qt.Assert(t, qt.ErrorIs(err, r.wantErr))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			m := images["team/app"]
			if test.name == "anonymous_token" {
				m = images["public/app"]
			}
			qt.Assert(t, qt.Equals(d.Digest, m.Digest))
			qt.Assert(t, qt.Equals(d.MediaType, m.MediaType))
			qt.Assert(t, qt.Equals(d.Size, int64(len(m.Content))))

			fetcher, err := resolver.Fetcher(ctx, name)
			qt.Assert(t, qt.IsNil(err))
			fetch := func(d ocispec.Descriptor) []byte {
				t.Helper()
				body, err := fetcher.Fetch(ctx, d)
				qt.Assert(t, qt.IsNil(err))
				defer body.Close()
				data, err := io.ReadAll(body)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(d.Digest.Algorithm().FromBytes(data), d.Digest))
				qt.Assert(t, qt.Equals(d.Size, int64(len(data))))
				return data
			}
			var image ocispec.Manifest
			qt.Assert(t, qt.IsNil(json.Unmarshal(fetch(d), &image)))
			fetch(image.Config)
			fetch(image.Layers[0])
			if r.check != nil {
				r.check(t)
			}
		})
	}
}

// refreshToken logs in by POST, and returns the refresh token.
func refreshToken(t *testing.T, s *httptest.Server, user, password string) string {
	resp, err := http.Get(s.URL + "/v2/")
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	_, realm, _ := strings.Cut(resp.Header.Get("Www-Authenticate"), `realm="`)
	realm, _, _ = strings.Cut(realm, `"`)
	resp, err = http.PostForm(realm, url.Values{
		"grant_type": {"password"}, "service": {"registry.test"}, "client_id": {"test"},
		"username": {user}, "password": {password}, "access_type": {"offline"},
	})
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&body)))
	qt.Assert(t, qt.Not(qt.Equals(body.RefreshToken, "")))
	return body.RefreshToken
}
