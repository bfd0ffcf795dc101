// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
)

// recorded is the requests that a server has got.
type recorded struct {
	mu   sync.Mutex
	all  []*http.Request
	next http.HandlerFunc
}

func (s *recorded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.all = append(s.all, r.Clone(r.Context()))
	s.mu.Unlock()
	s.next(w, r)
}

// TestSecrets pulls with a client's own credentials from an upstream with tokens, which
// redirects blobs to another host: no secret reaches where it does not belong.
func TestSecrets(t *testing.T) {
	const text = "a blob"
	blob := digest.FromString(text)
	files := &recorded{next: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }}
	fileServer := httptest.NewServer(files)
	defer fileServer.Close()
	var origin *httptest.Server
	tokens := 0
	upstream := &recorded{next: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session=upstream-secret")
		switch user, password, _ := r.BasicAuth(); {
		case r.URL.Path == "/token" && user == "robot" && password == "upstream-password":
			tokens++
			fmt.Fprintf(w, `{"token":"upstream-token","expires_in":300}`)
		case r.Header.Get("Authorization") != "Bearer upstream-token":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="upstream",scope="repository:library/nginx:pull"`, origin.URL))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Redirect(w, r, fileServer.URL+"/file?signature=upstream-signature", http.StatusTemporaryRedirect)
		}
	}}
	origin = httptest.NewServer(upstream)
	defer origin.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.json")
	write := func(text string) { qt.Assert(t, qt.IsNil(os.WriteFile(config, []byte(text), 0o600))) }
	write(`{}`)
	credential, err := mirror.DockerCredentials(config)
	qt.Assert(t, qt.IsNil(err))
	c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
		opts.Upstreams[0].URL, opts.Transport = origin.URL, nil
		opts.Upstreams[0].Credential = credential
	})
	const secret = "Authorization: Bearer client-secret"
	path := "/v2/docker.io/nginx/blobs/" + string(blob)
	got := c.do(http.MethodGet, path, secret, "")
	qt.Check(t, qt.Equals(got.status, 403))
	// The credentials are those in the file now; a helper has them.
	helper := "#!/bin/sh\n[ \"$1\" = get ] && host=$(cat) && echo '{\"ServerURL\":\"'$host'\",\"Username\":\"robot\",\"Secret\":\"upstream-password\"}'\n"
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o700)))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write(`{"credsStore":"none"}`)
	got = c.do(http.MethodGet, path, secret, "")
	qt.Check(t, qt.Equals(got.status, 502))
	qt.Check(t, qt.StringContains(got.body, "the upstream docker.io requires credentials, which can't be read"))
	write(`{"credsStore":"test"}`)
	got = c.do(http.MethodGet, path, secret, "")
	qt.Check(t, qt.Equals(got.status, 200), qt.Commentf("%s", got.body))
	qt.Check(t, qt.Equals(got.body, text))
	qt.Check(t, qt.Equals(c.do(http.MethodHead, "/v2/docker.io/nginx/blobs/"+string(digest.FromString("2")), secret, "").status, 200))
	qt.Check(t, qt.Equals(tokens, 1)) // it is kept

	for _, r := range append(upstream.all, files.all...) {
		all := fmt.Sprint(r.Header, r.URL)
		qt.Check(t, qt.IsFalse(strings.Contains(all, "client-secret")))
		if r.URL.Path != "/token" {
			qt.Check(t, qt.Equals(r.Header.Get("Accept-Encoding"), "identity"), qt.Commentf("%s", r.URL))
		}
	}
	for _, r := range files.all {
		qt.Check(t, qt.Equals(r.Header.Get("Authorization"), ""))
		qt.Check(t, qt.Equals(r.Header.Get("Cookie"), ""))
	}
	for name, values := range got.header {
		qt.Check(t, qt.IsFalse(strings.Contains(name+fmt.Sprint(values), "upstream")), qt.Commentf("%s", name))
	}
}

// TestExpiredURL has an upstream whose signed URLs expire at once: the blob is requested
// again, for a new one.
func TestExpiredURL(t *testing.T) {
	const text = "a blob"
	used := make(map[string]bool)
	signed := 0
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signature := r.URL.Query().Get("signature")
		if used[signature] = true; len(used) == 1 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, text)
	}))
	defer files.Close()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed++
		http.Redirect(w, r, fmt.Sprintf("%s/?signature=%d", files.URL, signed), http.StatusTemporaryRedirect)
	}))
	defer origin.Close()
	c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
		opts.Upstreams[0].URL, opts.Transport = origin.URL, nil
	})
	got := c.get("/v2/docker.io/nginx/blobs/" + string(digest.FromString(text)))
	qt.Check(t, qt.Equals(got.status, 200))
	qt.Check(t, qt.Equals(got.body, text))
}

// TestRateLimit reads what the upstream tells of its limit.
func TestRateLimit(t *testing.T) {
	o := newOrigin()
	o.push(t, "library/nginx", "1", "a layer")
	o.set(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("RateLimit-Limit", "100;w=21600")
			w.Header().Set("RateLimit-Remaining", "76;w=21600")
			h.ServeHTTP(w, r)
		})
	})
	c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Hour })
	stats := c.mirror.Stats()["docker.io"]
	qt.Check(t, qt.Equals(stats.RateRemaining, -1))
	c.get("/v2/docker.io/nginx/manifests/1")
	c.get("/v2/docker.io/nginx/manifests/1")
	stats = c.mirror.Stats()["docker.io"]
	qt.Check(t, qt.IsTrue(stats.Bytes > 0))
	stats.Bytes, stats.Time = 0, 0
	qt.Check(t, qt.Equals(stats, mirror.Stats{Hits: 1, Misses: 1, Calls: 1, RateLimit: 100, RateRemaining: 76}))
}

// TestWrongUpstreams has the errors of New.
func TestWrongUpstreams(t *testing.T) {
	for _, test := range []struct {
		upstreams   []mirror.Upstream
		defaultName string
		want        string
	}{
		{[]mirror.Upstream{{Name: "docker.io", URL: "registry-1.docker.io"}}, "", `mirror: upstream "docker.io": the URL "registry-1.docker.io" has no http:// or https:// and a host`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "https://user:secret@docker.io"}}, "", `mirror: upstream "docker.io": the URL "https://user:xxxxx@docker.io" has more than a host and a path`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "https://docker.io?x"}}, "", `mirror: upstream "docker.io": .* more than a host and a path`},
		{[]mirror.Upstream{{Name: "", URL: "https://docker.io"}}, "", `mirror: upstream "": the name is not that of a host`},
		{[]mirror.Upstream{{Name: "a/b", URL: "https://docker.io"}}, "", `mirror: upstream "a/b": the name is not that of a host`},
		{[]mirror.Upstream{{Name: "mirror.cache", URL: "https://docker.io"}}, "", `mirror: upstream "mirror.cache": the name is not that of a host`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "https://a"}, {Name: "index.docker.io", URL: "https://b"}}, "", `mirror: upstream "index.docker.io": there are two with this name`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "https://a", Repositories: []string{"["}}}, "", `mirror: upstream "docker.io": the pattern "\[": .*`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "https://a"}}, "ghcr.io", `mirror: the default "ghcr.io" is none of the upstreams`},
	} {
		_, err := mirror.New(&registry.MemStore{}, mirror.Options{Upstreams: test.upstreams, Default: test.defaultName})
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}
