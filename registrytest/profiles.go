// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// Profile imitates a well-known registry: it deviates from this module's registry
// as the real one does, in pagination, redirects, upload URLs, error codes, login
// and the like. A client that works with all profiles has a good chance of working
// with the real registries.
//
// A profile has the quirks that are documented by the registry's source, by its
// documentation, or by reports that show requests and responses; the code names the
// source of each. It is not a complete imitation.
type Profile struct {
	// Name is the registry's name, such as "Docker Hub".
	Name string

	// User and Password are the credentials of an account that may pull and
	// push. They are empty if the registry requires no login.
	User, Password string

	options      []registry.Option
	quirks       []Rule // the first is outermost
	uploadPaths  pathMapping
	blobRedirect int                                      // the status that redirects blobs to another host; 0 for no redirect
	login        func(Profile, http.Handler) http.Handler // nil: no access control
}

// pathMapping maps paths of the handler to the paths that clients see, and back.
type pathMapping struct {
	toClient, toHandler func(path string) string
}

// Handler returns a registry with the profile's quirks and the given options,
// which take precedence over the profile's own.
//
// The handler derives its own address from the requests. A profile that redirects
// blobs to another host redirects to "localhost" if the registry's host is
// 127.0.0.1, and otherwise to the registry's host prefixed with "content.". The
// handler serves that host too.
func (p Profile) Handler(opts ...registry.Option) http.Handler {
	plain := registry.New(append(slices.Clone(p.options), opts...)...)
	h := NewFaults(p.quirks...).Handler(plain)
	if p.login != nil {
		h = p.login(p, h)
	}
	if p.uploadPaths.toClient != nil {
		h = moveUploads(p.uploadPaths, h)
	}
	if p.blobRedirect != 0 {
		h = redirectBlobs(p.blobRedirect, h, plain)
	}
	return h
}

// NewServer is like the function NewServer, but starts a registry with the
// profile's quirks.
func (p Profile) NewServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, p.Handler, opts, (*httptest.Server).Start)
}

// ForEachProfile runs f in a subtest for each profile of [Profiles].
func ForEachProfile(t *testing.T, f func(t *testing.T, p Profile)) {
	for _, p := range Profiles() {
		t.Run(strings.ReplaceAll(p.Name, " ", "_"), func(t *testing.T) { f(t, p) })
	}
}

// Profiles returns the profiles of all registries that the package imitates: a
// registry of OCI 1.0, distribution versions 2 and 3, Docker Hub, GitHub's
// Container Registry (GHCR), Amazon's Elastic Container Registry (ECR), Google's
// Artifact Registry (GAR), Quay, Harbor and Artifactory.
func Profiles() []Profile {
	return []Profile{
		oci10(),
		distribution2(),
		distribution3(),
		dockerHub(),
		ghcr(),
		ecr(),
		gar(),
		quay(),
		harbor(),
		artifactory(),
	}
}

// bearer returns a login with bearer tokens, issued by a token server at path. The
// quirks are the token server's.
func bearer(path, service string, policy func(h http.Handler) auth.Policy, quirks ...func(http.Handler) http.Handler) func(Profile, http.Handler) http.Handler {
	return func(p Profile, h http.Handler) http.Handler {
		tokens := &auth.TokenServer{
			Service: service,
			Check:   auth.Users{p.User: p.Password}.Check,
			Policy:  policy(h),
		}
		var tokenHandler http.Handler = tokens
		for _, quirk := range quirks {
			tokenHandler = quirk(tokenHandler)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				tokenHandler.ServeHTTP(w, r)
				return
			}
			auth.Bearer(origin(r)+path, service, tokens.Verify)(h).ServeHTTP(w, r)
		})
	}
}

// publicPull is a policy that lets anyone pull from repositories that exist, and
// lets users take the allowed actions.
func publicPull(allowed ...auth.Action) func(h http.Handler) auth.Policy {
	return func(h http.Handler) auth.Policy {
		users := usersOnly(allowed...)(h)
		return func(ctx context.Context, user string, action auth.Action, req registry.Request) error {
			tags := registry.Request{Op: registry.OpTags, Repo: req.Repo, N: 0}
			if user == "" && action == auth.Pull && subrequest(h, httptest.NewRequest("GET", "/", nil), "GET", tags.RequestURI()).Code == http.StatusOK {
				return nil
			}
			return users(ctx, user, action, req)
		}
	}
}

// usersOnly is a policy that lets only users take the allowed actions.
func usersOnly(allowed ...auth.Action) func(h http.Handler) auth.Policy {
	return func(http.Handler) auth.Policy {
		return func(_ context.Context, user string, action auth.Action, _ registry.Request) error {
			if user == "" || !slices.Contains(allowed, action) {
				return registry.ErrDenied
			}
			return nil
		}
	}
}

// keepMembers removes all members except the given ones from a token server's
// responses.
func keepMembers(names ...string) func(http.Handler) http.Handler {
	return rewriteResponse(func(_ *http.Request, resp *httptest.ResponseRecorder) {
		var members map[string]any
		if resp.Code != http.StatusOK || json.Unmarshal(resp.Body.Bytes(), &members) != nil {
			return
		}
		for name := range members {
			if !slices.Contains(names, name) {
				delete(members, name)
			}
		}
		resp.Body.Reset()
		json.NewEncoder(resp.Body).Encode(members)
	})
}

// rejectPost rejects POST requests with err.
func rejectPost(err error) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				registry.WriteError(w, r, err)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// moveUploads serves h's uploads at other paths.
func moveUploads(paths pathMapping, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path = paths.toHandler(r.URL.Path)
		h.ServeHTTP(&editor{ResponseWriter: w, header: func(int) bool {
			if location := w.Header().Get("Location"); location != "" {
				w.Header().Set("Location", paths.toClient(location))
			}
			return true
		}}, r)
	})
}

// redirectBlobs redirects a GET of a blob that h would serve to a signed URL at
// another host, where plain serves it without a login. Like the object stores
// behind real registries, that host rejects a signed request with credentials.
func redirectBlobs(status int, h, plain http.Handler) http.Handler {
	const prefix, signature = "/content", "signature=5ea1"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path, ok := strings.CutPrefix(r.URL.Path, prefix); ok {
			switch {
			case r.URL.RawQuery != signature:
				http.Error(w, "no signature", http.StatusForbidden)
			case r.Header.Get("Authorization") != "":
				// S3's InvalidArgument: "Only one auth mechanism allowed".
				http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
			default:
				r = r.Clone(r.Context())
				r.URL.Path, r.URL.RawQuery = path, ""
				plain.ServeHTTP(w, r)
			}
			return
		}
		req, err := registry.ParseRequest(r)
		if err != nil || req.Op != registry.OpBlobGet {
			h.ServeHTTP(w, r)
			return
		}
		// h decides whether the client may pull the blob, and whether it exists.
		head := r.Clone(r.Context())
		head.Method = http.MethodHead
		resp := httptest.NewRecorder()
		h.ServeHTTP(resp, head)
		if resp.Code != http.StatusOK {
			h.ServeHTTP(w, r)
			return
		}
		other := *r
		other.Host = blobHost(r.Host)
		w.Header().Set("Location", origin(&other)+prefix+r.URL.Path+"?"+signature)
		w.WriteHeader(status)
	})
}

// blobHost returns the host that serves a registry's blobs.
func blobHost(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && name == "127.0.0.1" {
		return net.JoinHostPort("localhost", port)
	}
	return "content." + host
}
