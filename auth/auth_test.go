// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// users and rules are shared by all tests.
var users = auth.Users{
	"alice": "wonderland",
	"bob":   "builder",
	"colon": "a:b:c",
	"zoë":   "pässwörd ☂",
	"maker": "m",
	"root":  "toor",
	"guest": "g",
}

var rules = auth.Rules{
	{User: "*", Repo: "public/**", Actions: []auth.Action{auth.Pull}},
	{User: "alice", Repo: "ns/*", Actions: []auth.Action{auth.Pull, auth.Push}},
	{User: "alice", Repo: "alice/**", Actions: []auth.Action{auth.Pull, auth.Push, auth.Delete}},
	{User: "bob", Repo: "bob/**", Actions: []auth.Action{auth.Pull, auth.Push}},
	{User: "colon", Repo: "**", Actions: []auth.Action{auth.Pull}},
	{User: "zoë", Repo: "**", Actions: []auth.Action{auth.Pull}},
	{User: "maker", Repo: "ns/*", Actions: []auth.Action{auth.Pull, auth.Create}},
	{User: "root", Repo: "**", Actions: []auth.Action{auth.Pull, auth.Push, auth.Delete, auth.Catalog}},
}

// response is a response with its body.
type response struct {
	*http.Response
	body string
}

// code returns the spec's error code.
func (r response) code() string {
	var doc struct{ Errors []struct{ Code string } }
	if json.Unmarshal([]byte(r.body), &doc) != nil || len(doc.Errors) == 0 {
		return ""
	}
	return doc.Errors[0].Code
}

// call sends a request to h. Each header has the form "Name: value".
func call(t testing.TB, h http.Handler, method, target, body string, headers ...string) response {
	t.Helper()
	req, err := http.NewRequest(method, "http://registry.test"+target, strings.NewReader(body))
	qt.Assert(t, qt.IsNil(err))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Add(name, value)
	}
	resp, err := registrytest.Transport(h).RoundTrip(req)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	return response{resp, string(text)}
}

// basic returns the Authorization header of a user.
func basic(user, password string) string {
	r := http.Request{Header: make(http.Header)}
	r.SetBasicAuth(user, password)
	return "Authorization: " + r.Header.Get("Authorization")
}

// as returns the Authorization header of one of users.
func as(user string) string { return basic(user, users[user]) }

// bearer returns the Authorization header of a token.
func bearer(token string) string { return "Authorization: Bearer " + token }

// tokenFor requests a token for one of users, or without credentials if user is
// empty.
func tokenFor(t testing.TB, s *auth.TokenServer, user string, scopes ...string) string {
	t.Helper()
	query := url.Values{"service": {s.Service}, "scope": scopes}
	var header []string
	if user != "" {
		header = []string{as(user)}
	}
	a := call(t, s, "GET", "/token?"+query.Encode(), "", header...)
	qt.Assert(t, qt.Equals(a.StatusCode, 200), qt.Commentf("%s", a.body))
	var doc struct{ Token string }
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &doc)))
	return doc.Token
}

// newStore returns a store with an image tagged latest in each of public/image,
// ns/image and alice/secret.
func newStore(t testing.TB) *registry.MemStore {
	s := new(registry.MemStore)
	for i, repo := range []string{"public/image", "ns/image", "alice/secret"} {
		_, err := registrytest.PushRandomImage(context.Background(), s, repo, "latest", uint64(i), 1, 100)
		qt.Assert(t, qt.IsNil(err))
	}
	return s
}

func newTokenServer() *auth.TokenServer {
	return &auth.TokenServer{Service: "registry.test", Check: users.Check, Known: users.Known, Policy: rules.Allow}
}

// accessTests are requests, with and without a user, and the responses behind Basic
// and Bearer.
var accessTests = []struct {
	user   string
	method string
	target string
	scope  string // in the challenge
	want   int    // the status if granted; 0 if denied
}{
	{"", "GET", "/v2/", "", 0},
	{"alice", "GET", "/v2/", "", 200},
	{"guest", "GET", "/v2/", "", 200},
	{"", "GET", "/v2/public/image/tags/list", "repository:public/image:pull", 200},
	{"", "GET", "/v2/public/image/manifests/latest", "repository:public/image:pull", 200},
	{"", "HEAD", "/v2/public/image/manifests/latest", "repository:public/image:pull", 200},
	{"", "GET", "/v2/public/image/manifests/none", "repository:public/image:pull", 404},
	{"", "GET", "/v2/public/image/referrers/" + string(missing), "repository:public/image:pull", 200},
	{"", "GET", "/v2/public/image/blobs/" + string(missing), "repository:public/image:pull", 404},
	{"", "POST", "/v2/public/image/blobs/uploads/", "repository:public/image:pull,push", 0},
	{"", "PATCH", "/v2/public/image/blobs/uploads/x", "repository:public/image:pull,push", 0},
	{"", "DELETE", "/v2/public/image/manifests/latest", "repository:public/image:delete", 0},
	{"", "GET", "/v2/ns/image/tags/list", "repository:ns/image:pull", 0},
	{"", "GET", "/v2/_catalog", "registry:catalog:*", 0},
	{"", "GET", "/v2/Bad/tags/list", "", 0},
	{"", "GET", "/elsewhere", "", 0},
	{"", "TRACE", "/v2/ns/image/tags/list", "", 0},
	{"alice", "GET", "/v2/Bad/tags/list", "", 400},
	{"alice", "GET", "/elsewhere", "", 404},
	{"alice", "GET", "/v2/public/image/tags/list", "repository:public/image:pull", 200},
	{"alice", "GET", "/v2/ns/image/tags/list", "repository:ns/image:pull", 200},
	{"alice", "GET", "/v2/ns/image/deeper/tags/list", "repository:ns/image/deeper:pull", 0},
	{"alice", "POST", "/v2/ns/image/blobs/uploads/", "repository:ns/image:pull,push", 202},
	{"alice", "DELETE", "/v2/ns/image/blobs/uploads/none", "repository:ns/image:pull,push", 404},
	{"alice", "PUT", "/v2/ns/image/blobs/uploads/none", "repository:ns/image:pull,push", 404},
	{"alice", "GET", "/v2/ns/image/blobs/uploads/none", "repository:ns/image:pull,push", 404},
	{"alice", "DELETE", "/v2/ns/image/manifests/latest", "repository:ns/image:delete", 0},
	{"alice", "DELETE", "/v2/ns/image/blobs/" + string(missing), "repository:ns/image:delete", 0},
	{"alice", "DELETE", "/v2/alice/secret/manifests/latest", "repository:alice/secret:delete", 202},
	{"alice", "POST", "/v2/alice/a/b/c/blobs/uploads/", "repository:alice/a/b/c:pull,push", 202},
	{"alice", "POST", "/v2/alice/blobs/uploads/", "repository:alice:pull,push", 0},
	{"alice", "GET", "/v2/_catalog", "registry:catalog:*", 0},
	{"root", "GET", "/v2/_catalog", "registry:catalog:*", 200},
	{"bob", "GET", "/v2/alice/secret/manifests/latest", "repository:alice/secret:pull", 0},
	// A denied request does not reveal whether the repository exists.
	{"bob", "GET", "/v2/alice/none/manifests/latest", "repository:alice/none:pull", 0},
	{"colon", "GET", "/v2/alice/secret/manifests/latest", "repository:alice/secret:pull", 200},
	{"zoë", "GET", "/v2/alice/secret/manifests/latest", "repository:alice/secret:pull", 200},
	{"zoë", "PUT", "/v2/alice/secret/manifests/latest", "repository:alice/secret:pull,push", 0},
}

const missing = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

func TestBasic(t *testing.T) {
	for _, test := range accessTests {
		t.Run(test.user+"_"+test.method+"_"+test.target, func(t *testing.T) {
			h := auth.Basic("the registry", users.Check, rules.Allow)(registry.New(registry.WithStore(newStore(t))))
			var header []string
			if test.user != "" {
				header = []string{as(test.user)}
			}
			a := call(t, h, test.method, test.target, "", header...)
			switch {
			case test.want != 0:
				qt.Assert(t, qt.Equals(a.StatusCode, test.want))
				return
			case test.user != "":
				qt.Assert(t, qt.Equals(a.StatusCode, 403))
				qt.Assert(t, qt.Equals(a.code(), "DENIED"))
			default:
				qt.Assert(t, qt.Equals(a.StatusCode, 401))
				qt.Assert(t, qt.Equals(a.code(), "UNAUTHORIZED"))
				qt.Assert(t, qt.Equals(a.Header.Get("Www-Authenticate"), `Basic realm="the registry", charset="UTF-8"`))
			}
			qt.Assert(t, qt.Equals(a.Header.Get("Docker-Distribution-Api-Version"), "registry/2.0"))
		})
	}
}

func TestBearer(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		for _, test := range accessTests {
			name := map[bool]string{false: "jwt_", true: "opaque_"}[opaque]
			t.Run(name+test.user+"_"+test.method+"_"+test.target, func(t *testing.T) {
				tokens := newTokenServer()
				tokens.Opaque = opaque
				h := auth.Bearer("https://tokens.test/token", "registry.test", tokens.Verify)(registry.New(registry.WithStore(newStore(t))))

				// Like a client: first without a token, then with one for the
				// scope of the challenge.
				challenge := `Bearer realm="https://tokens.test/token",service="registry.test"`
				if test.scope != "" {
					challenge += `,scope="` + test.scope + `"`
				}
				a := call(t, h, test.method, test.target, "")
				qt.Assert(t, qt.Equals(a.StatusCode, 401))
				qt.Assert(t, qt.Equals(a.Header.Get("Www-Authenticate"), challenge))
				qt.Assert(t, qt.Equals(a.Header.Get("Docker-Distribution-Api-Version"), "registry/2.0"))
				if test.user == "" && test.scope == "" {
					return // any token suffices: see below
				}
				var scopes []string
				if test.scope != "" {
					scopes = []string{test.scope}
				}
				a = call(t, h, test.method, test.target, "", bearer(tokenFor(t, tokens, test.user, scopes...)))
				if test.want != 0 {
					qt.Assert(t, qt.Equals(a.StatusCode, test.want))
					return
				}
				qt.Assert(t, qt.Equals(a.StatusCode, 401))
				qt.Assert(t, qt.Equals(a.code(), "UNAUTHORIZED"))
				qt.Assert(t, qt.Equals(a.Header.Get("Www-Authenticate"), challenge+`,error="insufficient_scope"`))
			})
		}
	}

	t.Run("a_ping_with_a_token_without_a_user", func(t *testing.T) {
		tokens := newTokenServer()
		h := auth.Bearer("https://tokens.test/token", "registry.test", tokens.Verify)(registry.New())
		qt.Assert(t, qt.Equals(call(t, h, "GET", "/v2/", "", bearer(tokenFor(t, tokens, ""))).StatusCode, 200))
	})
}

// TestMount checks that a mount reveals nothing about a repository that the user
// may not pull from, not even that it has a blob.
func TestMount(t *testing.T) {
	const secret = "a secret"
	d := digest.FromString(secret)
	ctx := context.Background()
	for _, test := range []struct {
		name string
		user string
		from string
		want int
	}{
		{"from_an_allowed_repository", "alice", "&from=alice/secret", 201},
		{"from_any_repository_finds_an_allowed_one", "alice", "", 201},
		{"from_a_forbidden_repository", "bob", "&from=alice/secret", 202},
		{"from_any_repository_skips_a_forbidden_one", "bob", "", 202},
		{"from_a_repository_without_the_blob", "bob", "&from=public/image", 202},
		{"from_an_unknown_repository", "bob", "&from=alice/none", 202},
	} {
		target := "/v2/" + test.user + "/mine/blobs/uploads/?mount=" + string(d) + test.from
		new := func(t *testing.T) *registry.MemStore {
			s := newStore(t)
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "alice/secret", d, strings.NewReader(secret))))
			return s
		}
		check := func(t *testing.T, h http.Handler, header string) {
			a := call(t, h, "POST", target, "", header)
			qt.Assert(t, qt.Equals(a.StatusCode, test.want))
			qt.Assert(t, qt.Equals(a.Header.Get("Docker-Content-Digest") != "", test.want == 201))
		}
		t.Run("basic/"+test.name, func(t *testing.T) {
			check(t, auth.Basic("r", users.Check, rules.Allow)(registry.New(registry.WithStore(new(t)))), as(test.user))
		})
		t.Run("bearer/"+test.name, func(t *testing.T) {
			tokens := newTokenServer()
			token := tokenFor(t, tokens, test.user, "repository:"+test.user+"/mine:pull,push", "repository:alice/secret:pull", "repository:public/image:pull")
			check(t, auth.Bearer("r", "registry.test", tokens.Verify)(registry.New(registry.WithStore(new(t)))), bearer(token))
		})
	}
}

// TestCreate checks that a user who may create tags but not move them can't move
// one in any way.
func TestCreate(t *testing.T) {
	const (
		octets = "application/octet-stream"
		first  = "first"
		second = "second"
	)
	tests := []struct {
		name, target, body string
		header             []string
		want               int
		latest             string // afterwards
	}{
		{"a_new_tag", "manifests/new", second, nil, 201, first},
		{"an_existing_tag", "manifests/latest", second, nil, 403, first},
		{"an_existing_tag_with_the_same_manifest", "manifests/latest", first, nil, 201, first},
		{"by_digest", "manifests/" + string(digest.FromString(second)), second, nil, 201, first},
		{"by_digest_with_an_existing_tag", "manifests/" + string(digest.FromString(second)) + "?tag=new&tag=latest", second, nil, 403, first},
		{"with_the_right_If-Match", "manifests/latest", second, []string{`If-Match: "` + string(digest.FromString(first)) + `"`}, 403, first},
		{"with_the_wrong_If-Match", "manifests/new", second, []string{`If-Match: "` + string(digest.FromString(first)) + `"`}, 412, first},
	}
	for _, test := range tests {
		for name, user := range map[string]string{"create": "maker", "push": "alice"} {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				s := new(registry.MemStore)
				_, err := registry.PushManifest(context.Background(), s, "ns/image", registry.ManifestPush{MediaType: octets, Content: []byte(first), Tags: []string{"latest"}})
				qt.Assert(t, qt.IsNil(err))
				tokens := newTokenServer()
				token := tokenFor(t, tokens, user, "repository:ns/image:pull,push")
				for name, h := range map[string]http.Handler{
					as(user):      auth.Basic("r", users.Check, rules.Allow)(registry.New(registry.WithStore(s.Clone()))),
					bearer(token): auth.Bearer("r", "registry.test", tokens.Verify)(registry.New(registry.WithStore(s.Clone()))),
				} {
					header := append([]string{name, "Content-Type: " + octets}, test.header...)
					a := call(t, h, "PUT", "/v2/ns/image/"+test.target, test.body, header...)
					if user == "alice" { // may move it
						qt.Assert(t, qt.Equals(a.StatusCode == 403, false))
						continue
					}
					qt.Assert(t, qt.Equals(a.StatusCode, test.want), qt.Commentf("%s", a.body))
					a = call(t, h, "GET", "/v2/ns/image/manifests/latest", "", name)
					qt.Assert(t, qt.Equals(a.body, test.latest))
					if test.want == 403 {
						a = call(t, h, "GET", "/v2/ns/image/manifests/new", "", name)
						qt.Assert(t, qt.Equals(a.StatusCode, 404))
					}
				}
			})
		}
	}
}

func TestRules(t *testing.T) {
	for _, test := range []struct {
		pattern, repo string
		want          bool
	}{
		{"**", "a", true},
		{"**", "a/b/c", true},
		{"a", "a", true},
		{"a", "a/b", false},
		{"a/*", "a/b", true},
		{"a/*", "a", false},
		{"a/*", "a/b/c", false},
		{"*/x", "team/x", true},
		{"a/**", "a", false},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c", true},
		{"a/**", "ab/c", false},
		{"*/ci/**", "team/ci/x/y", true},
		{"*/ci/**", "team/cd/x/y", false},
		{"team-*", "team-a", true},
		{"[", "[", false}, // malformed
		{"", "a", false},
	} {
		r := auth.Rules{{User: "u", Repo: test.pattern, Actions: []auth.Action{auth.Pull}}}
		allow := func(user string, action auth.Action) bool {
			err := r.Allow(t.Context(), user, action, registry.Request{Repo: test.repo})
			qt.Check(t, qt.IsTrue(err == nil || err == registry.ErrDenied))
			return err == nil
		}
		qt.Check(t, qt.Equals(allow("u", auth.Pull), test.want), qt.Commentf("%q %q", test.pattern, test.repo))
		qt.Check(t, qt.IsFalse(allow("u", auth.Push)))
		qt.Check(t, qt.IsFalse(allow("other", auth.Pull)))
		qt.Check(t, qt.IsFalse(allow("", auth.Pull)))
	}
}

// TestNilPolicy checks that without a policy users may do everything, and clients
// without credentials nothing.
func TestNilPolicy(t *testing.T) {
	tokens := &auth.TokenServer{Service: "s", Check: users.Check}
	h := auth.Bearer("r", "registry.test", tokens.Verify)(registry.New(registry.WithStore(newStore(t))))
	const target = "/v2/alice/secret/manifests/latest"
	qt.Assert(t, qt.Equals(call(t, h, "DELETE", target, "", bearer(tokenFor(t, tokens, "", "repository:alice/secret:*"))).StatusCode, 401))
	qt.Assert(t, qt.Equals(call(t, h, "DELETE", target, "", bearer(tokenFor(t, tokens, "bob", "repository:alice/secret:*"))).StatusCode, 202))
	h = auth.Basic("r", users.Check, nil)(registry.New(registry.WithStore(newStore(t))))
	qt.Assert(t, qt.Equals(call(t, h, "DELETE", target, "").StatusCode, 401))
	qt.Assert(t, qt.Equals(call(t, h, "DELETE", target, "", as("bob")).StatusCode, 202))
}
