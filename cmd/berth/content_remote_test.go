// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// remoteServer serves a store through middleware, and returns its address.
func remoteServer(t *testing.T, middleware func(http.Handler) http.Handler, opts ...registry.Option) (store *registry.MemStore, address string) {
	t.Helper()
	store = new(registry.MemStore)
	h := http.Handler(registry.New(append(opts, registry.WithStore(store))...))
	if middleware != nil {
		h = middleware(h)
	}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return store, server.URL
}

// copyStore copies all content between stores.
func copyStore(t *testing.T, from, to registry.Store) {
	t.Helper()
	job := newCopier(4)
	job.from, job.to = from, to
	if err := job.list(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	err := errors.Join(job.run(t.Context(), newScreen(&log)), job.failures.err())
	job.failures.print(&log)
	if err != nil {
		t.Fatal(err, log.String())
	}
}

// TestRemoteFaults copies to and from a registry that fails often, in chunks.
func TestRemoteFaults(t *testing.T) {
	data := make([]byte, 2*chunkSize+1000)
	rand.NewChaCha8([32]byte{}).Read(data)
	for name, rules := range map[string][]registrytest.Rule{
		"none":             nil,
		"busy":             {{Op: registry.OpUploadPatch, Nth: 1, Fault: registrytest.Reject(registry.ErrUnavailable)}},
		"lost_chunk":       {{Op: registry.OpUploadPatch, Nth: 2, Fault: registrytest.DropRequest()}},
		"lost_response":    {{Op: registry.OpUploadPatch, Nth: 1, Fault: registrytest.DropResponse()}},
		"lost_publication": {{Op: registry.OpUploadPut, Nth: 1, Fault: registrytest.DropResponse()}},
		"broken_download":  {{Op: registry.OpBlobGet, Nth: 1, Fault: registrytest.Disconnect(chunkSize)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, address := remoteServer(t, registrytest.NewFaults(rules...).Handler)
			from := new(registry.MemStore)
			if err := pushImages(t.Context(), from); err != nil {
				t.Fatal(err)
			}
			d := digest.FromBytes(data)
			if err := registry.PushBlob(t.Context(), from, "app", d, bytes.NewReader(data)); err != nil {
				t.Fatal(err)
			}
			_, err := registry.PushManifest(t.Context(), from, "app", registry.ManifestPush{MediaType: "application/vnd.oci.image.manifest.v1+json", Tags: []string{"big"},
				Content: []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"` + d.String() + `","size":1},"layers":[]}`)})
			if err != nil {
				t.Fatal(err)
			}
			s, err := openRemote(t.Context(), address, remoteFlags{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			copyStore(t, from, s)
			back := new(registry.MemStore)
			copyStore(t, s, back)
			checkSame(t, from, back)
		})
	}
}

// TestRemoteWithoutReferrers copies to a registry of OCI 1.0: the lists of referrers
// are tags.
func TestRemoteWithoutReferrers(t *testing.T) {
	_, address := remoteServer(t, nil, registry.WithReferrersSupport(false))
	from := new(registry.MemStore)
	if err := pushImages(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	s, err := openRemote(t.Context(), address, remoteFlags{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	copyStore(t, from, s)
	index, err := s.GetTag(t.Context(), "app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r, err := range s.Referrers(t.Context(), "app", index.Digest, "") {
		if err != nil || r.ArtifactType != "example/signature" {
			t.Error(r, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d referrers", n)
	}
}

// TestRemoteUsers logs in with each kind of credentials, by password and by token.
func TestRemoteUsers(t *testing.T) {
	check := func(_ context.Context, user, password string) error {
		if user == "ann" && password == "secret" {
			return nil
		}
		return auth.ErrCredentials
	}
	_, address := remoteServer(t, auth.Basic("test", check, nil))
	host := strings.TrimPrefix(address, "http://")
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	for _, test := range []struct {
		name, user, env, config string
		want                    string // "" for no error
	}{
		{name: "flag", user: "ann:secret"},
		{name: "environment", user: "ann", env: "secret"},
		{name: "docker_login", config: `{"auths":{"` + host + `":{"auth":"YW5uOnNlY3JldA=="}}}`},
		{name: "wrong_password", user: "ann:guess", want: "401"},
		{name: "other_host", config: `{"auths":{"other":{"auth":"YW5uOnNlY3JldA=="}}}`, want: "run docker login, or use --user"},
		{name: "no_password", user: "ann", want: "--user requires NAME:PASSWORD"},
		{name: "malformed_config", config: "{", want: "the credentials of docker login"},
	} {
		t.Run(test.name, func(t *testing.T) {
			os.Unsetenv("BERTH_PASSWORD")
			if test.env != "" {
				t.Setenv("BERTH_PASSWORD", test.env)
			}
			if err := os.WriteFile(config+"/config.json", []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.config == "" {
				os.Remove(config + "/config.json")
			}
			s, err := openRemote(t.Context(), address, remoteFlags{User: test.user})
			if err == nil {
				defer s.Close()
				for _, listErr := range s.Repositories(t.Context(), "") {
					err = listErr
				}
			}
			switch {
			case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// TestRemoteTokens lets a token server give access to one repository at a time.
func TestRemoteTokens(t *testing.T) {
	var tokens atomic.Int64
	var realm string
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		tokens.Add(1)
		user, password, _ := r.BasicAuth()
		if user != "ann" || password != "secret" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"token":"for ` + strings.Join(r.URL.Query()["scope"], " ") + `"}`))
	})
	store := new(registry.MemStore)
	h := registry.New(registry.WithStore(store))
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		req, err := registry.ParseRequest(r)
		token := r.Header.Get("Authorization")
		if err != nil || !strings.HasPrefix(token, "Bearer ") || req.Repo != "" && !strings.Contains(token, "repository:"+req.Repo+":") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`/token",service="test"`)
			registry.WriteError(w, r, registry.ErrUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	realm = server.URL
	from := new(registry.MemStore)
	if err := pushImages(t.Context(), from); err != nil {
		t.Fatal(err)
	}
	s, err := openRemote(t.Context(), server.URL, remoteFlags{User: "ann:secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	copyStore(t, from, s)
	checkSame(t, from, store)
	if tokens.Load() == 0 {
		t.Error("no token was asked for")
	}
}

// TestCleanTokenErrors checks that what a token server says does not control the
// terminal.
func TestCleanTokenErrors(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errors":[{"code":"DENIED","message":"\u001b[2J"}]}`)
	})
	s, err := openRemote(t.Context(), server.URL, remoteFlags{User: "ann:secret"})
	if err == nil {
		defer s.Close()
		_, err = s.GetTag(t.Context(), "app", "v1")
	}
	if err == nil || strings.Contains(err.Error(), "\x1b") || !strings.Contains(err.Error(), "?[2J") {
		t.Errorf("%q", err)
	}
}
