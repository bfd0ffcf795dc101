// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
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

// Profile is a registry with the habits of a real one: what it does otherwise
// than a registry of this module, so that a client that copes with all
// profiles has a chance with all those registries. It has only what is known of
// them from their sources, their documentation or reports with traces; each
// habit names its own in the code.
type Profile struct {
	// Name is the registry's, such as "Docker Hub".
	Name string

	// User and Password are those of an account that may do everything,
	// empty where anybody may.
	User, Password string

	options []registry.Option
	habits  []Rule                                   // the first outermost
	uploads [2]func(path string) string              // from the registry's own paths of uploads to this one's, and back
	content int                                      // the status that blobs are redirected by to another host, if they are
	login   func(Profile, http.Handler) http.Handler // nil: anybody may do everything
}

// Handler returns a registry that has the profile's habits and the given
// options. Where they contradict each other, it is as the options have it.
//
// It knows its own address from the requests. Blobs that are kept on another
// host are at "localhost" if the registry is at 127.0.0.1, else at the
// registry's host with "content." before it.
func (p Profile) Handler(opts ...registry.Option) http.Handler {
	plain := registry.New(append(slices.Clone(p.options), opts...)...)
	h := NewFaults(p.habits...).Handler(plain)
	if p.login != nil {
		h = p.login(p, h)
	}
	if p.uploads[0] != nil {
		h = uploadsAt(p.uploads[0], p.uploads[1], h)
	}
	if p.content != 0 {
		h = elsewhere(p.content, h, plain)
	}
	return h
}

// NewServer starts a registry that has the profile's habits, as the function
// NewServer does one without.
func (p Profile) NewServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, p.Handler, opts, (*httptest.Server).Start)
}

// ForEachProfile runs f as a subtest for each profile.
func ForEachProfile(t *testing.T, f func(t *testing.T, p Profile)) {
	for _, p := range Profiles() {
		t.Run(strings.ReplaceAll(p.Name, " ", "_"), func(t *testing.T) { f(t, p) })
	}
}

// Profiles returns all profiles.
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

// bearer puts h behind tokens that the registry gives at path. Anybody may
// pull, where public says so.
func bearer(path, service string, policy func(h http.Handler) auth.Policy, habits ...func(http.Handler) http.Handler) func(Profile, http.Handler) http.Handler {
	return func(p Profile, h http.Handler) http.Handler {
		tokens := &auth.TokenServer{
			Service: service,
			Check:   auth.Users{p.User: p.Password}.Check,
			Policy:  policy(h),
		}
		var answers http.Handler = tokens
		for _, habit := range habits {
			answers = habit(answers)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				answers.ServeHTTP(w, r)
				return
			}
			auth.Bearer(origin(r)+path, service, tokens.Verify)(h).ServeHTTP(w, r)
		})
	}
}

// public lets everybody pull from the repositories that there are, and users do
// what allowed has.
func public(allowed ...auth.Action) func(h http.Handler) auth.Policy {
	return func(h http.Handler) auth.Policy {
		return func(user, repo string, action auth.Action) bool {
			if user != "" {
				return slices.Contains(allowed, action)
			}
			return action == auth.Pull && inside(h, httptest.NewRequest("GET", "/", nil), "GET", registry.Request{Op: registry.OpTags, Repo: repo, N: 0}.URL()).Code == http.StatusOK
		}
	}
}

// private lets users do what allowed has, and others nothing.
func private(allowed ...auth.Action) func(h http.Handler) auth.Policy {
	return func(http.Handler) auth.Policy {
		return func(user, _ string, action auth.Action) bool { return user != "" && slices.Contains(allowed, action) }
	}
}

// only leaves of a token server's answers the fields with the given names.
func only(names ...string) func(http.Handler) http.Handler {
	return answered(func(_ *http.Request, a *httptest.ResponseRecorder) {
		var fields map[string]any
		if a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &fields) != nil {
			return
		}
		for name := range fields {
			if !slices.Contains(names, name) {
				delete(fields, name)
			}
		}
		a.Body.Reset()
		json.NewEncoder(a.Body).Encode(fields)
	})
}

// noPost has a token server refuse POST.
func noPost(err error) func(http.Handler) http.Handler {
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

// uploadsAt moves uploads to other paths.
func uploadsAt(out, in func(path string) string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.Clone(r.Context())
		r.URL.Path = in(r.URL.Path)
		h.ServeHTTP(&editor{ResponseWriter: w, header: func(int) bool {
			if location := w.Header().Get("Location"); location != "" {
				w.Header().Set("Location", out(location))
			}
			return true
		}}, r)
	})
}

// elsewhere has h redirect a GET of a blob to another host, where plain serves
// it to whoever has the link. As the object stores behind real registries do,
// that host refuses a request that is signed and has credentials too.
func elsewhere(status int, h, plain http.Handler) http.Handler {
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
		// Whether the client may, and there is one, h says.
		head := r.Clone(r.Context())
		head.Method = http.MethodHead
		a := httptest.NewRecorder()
		h.ServeHTTP(a, head)
		if a.Code != http.StatusOK {
			h.ServeHTTP(w, r)
			return
		}
		other := *r
		other.Host = otherHost(r.Host)
		w.Header().Set("Location", origin(&other)+prefix+r.URL.Path+"?"+signature)
		w.WriteHeader(status)
	})
}

func otherHost(host string) string {
	if name, port, err := net.SplitHostPort(host); err == nil && name == "127.0.0.1" {
		return net.JoinHostPort("localhost", port)
	}
	return "content." + host
}
