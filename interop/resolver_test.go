// SPDX-License-Identifier: Apache-2.0

// containerd's resolver against each way in that a registry may have.

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

// resolved is what a case of the resolver's table sets up.
type resolved struct {
	ref   string // of the image
	hosts docker.RegistryHosts
	// check looks at what the registries were asked.
	check func(t *testing.T)
	// fails is the error where it is one.
	fails error
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
	// at is a single host, with its name in the reference.
	at := func(s *httptest.Server, repo string, opts ...docker.RegistryOpt) resolved {
		opts = append(opts, docker.WithPlainHTTP(docker.MatchAllHosts))
		return resolved{ref: host(s) + "/" + repo + ":v1", hosts: docker.ConfigureDefaultRegistries(opts...)}
	}
	credentials := func(user, secret string) docker.RegistryOpt {
		return docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) { return user, secret, nil })))
	}
	// tokens serves a registry behind tokens, and the token server, whose
	// requests with the methods in refuse it answers with 405.
	tokens := func(t *testing.T, refuse string) (s *httptest.Server, asked *registrytest.Journal) {
		ts := &auth.TokenServer{Service: "registry.test", Check: users.Check, Policy: policy}
		asked, tokenHost := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == refuse {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			ts.ServeHTTP(w, r)
		}))
		_, s = serve(t, auth.Bearer(tokenHost.URL+"/token", "registry.test", ts.Verify)(content))
		return s, asked
	}
	by := func(j *registrytest.Journal, want ...string) func(*testing.T) {
		return func(t *testing.T) {
			var methods []string
			for _, e := range j.Entries() {
				methods = append(methods, e.Method)
			}
			slices.Sort(methods)
			qt.Check(t, qt.DeepEquals(slices.Compact(methods), want))
		}
	}
	// list is several hosts for one name in references.
	list := func(hosts ...docker.RegistryHost) resolved {
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
		return resolved{ref: "source.test/team/app:v1", hosts: func(string) ([]docker.RegistryHost, error) { return hosts, nil }}
	}
	deadHost := func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		qt.Assert(t, qt.IsNil(err))
		defer l.Close()
		return l.Addr().String()
	}

	for _, test := range []struct {
		name string
		set  func(t *testing.T) resolved
	}{
		{"plain_HTTP", func(t *testing.T) resolved {
			_, s := serve(t, content)
			return at(s, "team/app")
		}},
		{"HTTPS", func(t *testing.T) resolved {
			s := registrytest.NewTLSServer(t, registry.WithStore(store))
			return resolved{ref: s.Host + "/team/app:v1", hosts: docker.ConfigureDefaultRegistries(docker.WithClient(s.Client()))}
		}},
		{"Basic", func(t *testing.T) resolved {
			_, s := serve(t, auth.Basic("registry", users.Check, policy)(content))
			return at(s, "team/app", credentials("alice", "wonderland"))
		}},
		{"Basic_wrong", func(t *testing.T) resolved {
			_, s := serve(t, auth.Basic("registry", users.Check, policy)(content))
			r := at(s, "team/app", credentials("alice", ""))
			r.fails = docker.ErrInvalidAuthorization
			return r
		}},
		{"anonymous_token", func(t *testing.T) resolved {
			s, asked := tokens(t, "")
			r := at(s, "public/app", docker.WithAuthorizer(docker.NewDockerAuthorizer()))
			r.check = by(asked, "GET")
			return r
		}},
		{"Basic_to_token_by_GET", func(t *testing.T) resolved {
			s, asked := tokens(t, "POST")
			r := at(s, "team/app", credentials("alice", "wonderland"))
			r.check = by(asked, "GET", "POST")
			return r
		}},
		{"refresh_token_by_POST", func(t *testing.T) resolved {
			s, asked := tokens(t, "GET")
			r := at(s, "team/app", credentials("", refreshToken(t, s, "alice", "wonderland")))
			r.check = by(asked, "POST")
			return r
		}},
		{"password_by_POST", func(t *testing.T) resolved {
			s, asked := tokens(t, "GET")
			r := at(s, "team/app", credentials("alice", "wonderland"))
			r.check = by(asked, "POST")
			return r
		}},
		{"a_token_of_insufficient_scope", func(t *testing.T) resolved {
			s, _ := tokens(t, "")
			r := at(s, "team/app", docker.WithAuthorizer(docker.NewDockerAuthorizer()))
			r.fails = docker.ErrInvalidAuthorization
			return r
		}},
		{"falls_back_from_a_dead_host", func(t *testing.T) resolved {
			j, s := serve(t, content)
			r := list(docker.RegistryHost{Host: deadHost(t)}, docker.RegistryHost{Host: host(s)})
			r.check = func(t *testing.T) { qt.Check(t, qt.Not(qt.Equals(j.Count(), 0))) }
			return r
		}},
		{"falls_back_from_TLS_to_a_second_host", func(t *testing.T) resolved {
			plain, s := serve(t, content) // which speaks no TLS
			j, second := serve(t, content)
			r := list(docker.RegistryHost{Host: host(s), Scheme: "https"}, docker.RegistryHost{Host: host(second)})
			r.check = func(t *testing.T) {
				qt.Check(t, qt.Equals(plain.Count(), 0))
				qt.Check(t, qt.Not(qt.Equals(j.Count(), 0)))
			}
			return r
		}},
		{"a_mirror_asked_with_ns", func(t *testing.T) resolved {
			mirror, s := serve(t, registrytest.Namespaces(map[string]http.Handler{"source.test": content, "other.test": registry.New()}))
			source, origin := serve(t, content)
			r := list(docker.RegistryHost{Host: host(s)}, docker.RegistryHost{Host: host(origin)})
			r.check = func(t *testing.T) {
				for _, e := range mirror.Entries() {
					qt.Check(t, qt.Equals(e.Namespace, "source.test"))
				}
				qt.Check(t, qt.Equals(source.Count(), 0))
			}
			return r
		}},
		{"a_mirror_that_lacks_it_and_the_source", func(t *testing.T) resolved {
			mirror, s := serve(t, registrytest.Namespaces(map[string]http.Handler{"source.test": registry.New()}))
			source, origin := serve(t, content)
			r := list(docker.RegistryHost{Host: host(s)}, docker.RegistryHost{Host: host(origin)})
			r.check = func(t *testing.T) {
				qt.Check(t, qt.Not(qt.Equals(mirror.Count(registry.OpManifestHead, registry.OpManifestGet), 0)))
				qt.Check(t, qt.Not(qt.Equals(source.Count(), 0)))
			}
			return r
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := t.Context()
			r := test.set(t)
			resolver := docker.NewResolver(docker.ResolverOptions{Hosts: r.hosts})
			name, d, err := resolver.Resolve(ctx, r.ref)
			if r.fails != nil {
				qt.Assert(t, qt.ErrorIs(err, r.fails))
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

// refreshToken is what a login gives, by POST.
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
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&answer)))
	qt.Assert(t, qt.Not(qt.Equals(answer.RefreshToken, "")))
	return answer.RefreshToken
}
