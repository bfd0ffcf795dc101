// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

const (
	form     = "Content-Type: application/x-www-form-urlencoded"
	internal = "ldap.internal"
)

// allowAll is a policy for tests of checks.
func allowAll(context.Context, string, auth.Action, registry.Request) error { return nil }

// TestFailures checks that the failure of a directory is not mistaken for wrong
// credentials or a denial, and that its error is not revealed.
func TestFailures(t *testing.T) {
	const tags = "/v2/ns/image/tags/list"
	scope := url.Values{"scope": {"repository:ns/image:pull"}}.Encode()
	password := "grant_type=password&username=alice&password=wonderland&" + scope
	unreachable := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the registry was reached") })
	failingCheck := func(err error) auth.Check {
		return func(context.Context, string, string) error { return err }
	}
	failingPolicy := func(err error) auth.Policy {
		return func(context.Context, string, auth.Action, registry.Request) error { return err }
	}
	basicCheck := func(err error) http.Handler { return auth.Basic("r", failingCheck(err), allowAll)(unreachable) }
	basicPolicy := func(err error) http.Handler { return auth.Basic("r", users.Check, failingPolicy(err))(unreachable) }
	tokenCheck := func(err error) http.Handler {
		return &auth.TokenServer{Service: "s", Check: failingCheck(err), Policy: allowAll}
	}
	tokenPolicy := func(err error) http.Handler {
		return &auth.TokenServer{Service: "s", Check: users.Check, Policy: failingPolicy(err)}
	}
	refreshKnown := func(err error) http.Handler {
		known := users.Known // until the token has been issued
		s := &auth.TokenServer{Service: "s", Check: users.Check, Known: func(ctx context.Context, user string) error { return known(ctx, user) }}
		token := refreshToken(t, s)
		known = func(context.Context, string) error { return err }
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader("grant_type=refresh_token&refresh_token=" + token))
			s.ServeHTTP(w, r)
		})
	}
	refresh := func(err error) http.Handler {
		s := &auth.TokenServer{Service: "s", Check: users.Check, Known: users.Known, Policy: failingPolicy(err)}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := call(t, s, "GET", "/token?offline_token=true", "", as("alice"))
			var token tokenResponse
			qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &token)))
			resp := call(t, s, "POST", "/token", "grant_type=refresh_token&refresh_token="+token.RefreshToken+"&"+scope, form)
			for name, values := range resp.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(resp.StatusCode)
			w.Write([]byte(resp.body))
		})
	}
	bearerVerify := func(err error) http.Handler {
		return auth.Bearer("r", "s", func(context.Context, string) (auth.Token, error) { return auth.Token{}, err })(unreachable)
	}

	// The statuses of the errors that reject a request instead of reporting a
	// failure.
	wrong := map[string]int{"credentials": 401}
	denied := map[string]int{"denied": 403, "create_only": 403}
	challenged := map[string]int{"denied": 401, "create_only": 401}
	ungranted := map[string]int{"denied": 200, "create_only": 200, "unauthorized": 200}
	invalid := map[string]int{"token_invalid": 401}
	for _, place := range []struct {
		name           string
		handler        func(error) http.Handler
		method, target string
		body           string
		header         []string
		rejections     map[string]int
	}{
		{"basic_check", basicCheck, "GET", tags, "", []string{as("alice")}, wrong},
		{"basic_check_of_a_ping", basicCheck, "GET", "/v2/", "", []string{as("alice")}, wrong},
		{"basic_policy", basicPolicy, "GET", tags, "", []string{as("alice")}, denied},
		{"basic_policy_of_a_delete", basicPolicy, "DELETE", "/v2/ns/image/manifests/latest", "", []string{as("alice")}, denied},
		{"basic_policy_without_credentials", basicPolicy, "GET", tags, "", nil, challenged},
		{"token_GET_check", tokenCheck, "GET", "/token?" + scope, "", []string{as("alice")}, wrong},
		{"token_GET_policy", tokenPolicy, "GET", "/token?" + scope, "", []string{as("alice")}, ungranted},
		{"token_GET_policy_without_credentials", tokenPolicy, "GET", "/token?" + scope, "", nil, ungranted},
		{"token_GET_policy_of_the_catalog", tokenPolicy, "GET", "/token?scope=registry:catalog:*", "", []string{as("alice")}, ungranted},
		{"token_POST_check", tokenCheck, "POST", "/token", password, []string{form}, wrong},
		{"token_POST_policy", tokenPolicy, "POST", "/token", password, []string{form}, ungranted},
		{"token_POST_refresh_policy", refresh, "POST", "/token", "", nil, ungranted},
		{"token_POST_refresh_known", refreshKnown, "POST", "/token", "", []string{form}, wrong},
		{"bearer_verify", bearerVerify, "GET", tags, "", []string{bearer("x")}, invalid},
		{"bearer_verify_of_a_ping", bearerVerify, "GET", "/v2/", "", []string{bearer("x")}, invalid},
	} {
		for _, failure := range []struct {
			name  string
			err   error
			want  int    // unless it is one of the place's rejections
			shown string // in the body
		}{
			{"internal", errors.New(internal + ": connection refused"), 503, "authentication is unavailable"},
			{"timeout", fmt.Errorf("%s: %w", internal, context.DeadlineExceeded), 503, "authentication is unavailable"},
			{"joined", errors.Join(errors.New(internal), registry.ErrTooManyRequests), 429, "too many requests"},
			{"unavailable", registry.ErrUnavailable, 503, registry.ErrUnavailable.Message},
			{"too_many_requests", fmt.Errorf("%w: try again at noon", registry.ErrTooManyRequests), 429, "try again at noon"},
			{"unauthorized", registry.ErrUnauthorized, 401, ""},
			{"credentials", fmt.Errorf("%s: %w", internal, auth.ErrCredentials), 503, ""},
			{"token_invalid", fmt.Errorf("%s: %w", internal, auth.ErrTokenInvalid), 503, ""},
			{"denied", fmt.Errorf("%w: not today", registry.ErrDenied), 403, ""},
			{"create_only", auth.ErrCreateOnly, 403, ""},
		} {
			t.Run(place.name+"/"+failure.name, func(t *testing.T) {
				want, ok := place.rejections[failure.name]
				if !ok {
					want = failure.want
				}
				a := call(t, place.handler(failure.err), place.method, place.target, place.body, place.header...)
				qt.Assert(t, qt.Equals(a.StatusCode, want), qt.Commentf("%s", a.body))
				qt.Check(t, qt.Not(qt.StringContains(a.body, internal)))
				qt.Check(t, qt.Equals(a.Header.Get("Www-Authenticate") != "", want == 401))
				qt.Check(t, qt.Equals(a.Header.Get("Retry-After") != "", want == 503))
				qt.Check(t, qt.StringContains(a.body, failure.shown))
				if want == 503 {
					qt.Check(t, qt.Equals(a.code(), "UNAVAILABLE"))
				}
				if want == 200 {
					qt.Check(t, qt.StringContains(a.body, `"access_token"`))
				}
			})
		}
	}
}

// TestNilIsAnErrorAtConstruction checks that a nil function is not found out by the
// first request, except that a token server without a Check knows no users.
func TestNilIsAnErrorAtConstruction(t *testing.T) {
	qt.Check(t, qt.PanicMatches(func() { auth.Basic("r", nil, rules.Allow) }, "auth: Basic requires a Check"))
	qt.Check(t, qt.PanicMatches(func() { auth.Bearer("r", "s", nil) }, "auth: Bearer requires a function that verifies tokens"))
	qt.Check(t, qt.PanicMatches(func() { auth.Throttle(nil, 0, 0) }, "auth: Throttle requires a Check"))
	tokens := &auth.TokenServer{Service: "s"}
	qt.Check(t, qt.Equals(call(t, tokens, "GET", "/token", "", as("alice")).StatusCode, 401))
	qt.Check(t, qt.Equals(call(t, tokens, "POST", "/token", "grant_type=password&username=alice", form).StatusCode, 401))
}

// policyCall is a call of a recorded policy.
type policyCall struct {
	User   string
	Action auth.Action
	Req    registry.Request
}

// TestPolicyRequest checks which requests a policy sees, and that it sees the
// context of the HTTP request.
func TestPolicyRequest(t *testing.T) {
	type key struct{}
	const blob = "a blob"
	d := digest.FromString(blob)
	for _, test := range []struct {
		name, method, target string
		want                 []policyCall
	}{
		{"ping", "GET", "/v2/", nil},
		{"tag", "GET", "/v2/ns/image/manifests/latest?ns=docker.io", []policyCall{{"alice", auth.Pull, registry.Request{Op: registry.OpManifestGet, Repo: "ns/image", Tag: "latest", Namespace: "docker.io", N: -1}}}},
		{"tags", "PUT", "/v2/ns/image/manifests/" + string(missing) + "?tag=a&tag=b", []policyCall{{"alice", auth.Push, registry.Request{Op: registry.OpManifestPut, Repo: "ns/image", Digest: missing, Tags: []string{"a", "b"}, N: -1}}}},
		{"catalog", "GET", "/v2/_catalog?n=5", []policyCall{{"alice", auth.Catalog, registry.Request{Op: registry.OpCatalog, N: 5}}}},
		{"mount", "POST", "/v2/ns/image/blobs/uploads/?from=alice/secret&mount=" + string(d), []policyCall{
			{"alice", auth.Push, registry.Request{Op: registry.OpBlobMount, Repo: "ns/image", From: "alice/secret", Digest: d, N: -1}},
			{"alice", auth.Pull, registry.Request{Repo: "alice/secret"}},
		}},
		{"token_repeated_actions", "GET", "/token?scope=repository:ns/image:push,pull,pull,push,pull", []policyCall{
			{"alice", auth.Pull, registry.Request{Repo: "ns/image"}},
			{"alice", auth.Push, registry.Request{Repo: "ns/image"}},
		}},
		{"token_catalog", "GET", "/token?scope=registry:catalog:*", []policyCall{{"alice", auth.Catalog, registry.Request{}}}},
		{"token_unknown", "GET", "/token?scope=registry:other:*&scope=plugin:x:*", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []policyCall
			policy := func(ctx context.Context, user string, action auth.Action, req registry.Request) error {
				qt.Check(t, qt.Equals(ctx.Value(key{}), any("value")))
				got = append(got, policyCall{user, action, req})
				return nil
			}
			check := func(ctx context.Context, user, password string) error {
				qt.Check(t, qt.Equals(ctx.Value(key{}), any("value")))
				return users.Check(ctx, user, password)
			}
			var h http.Handler = auth.Basic("r", check, policy)(registry.New())
			if strings.HasPrefix(test.target, "/token") {
				h = &auth.TokenServer{Service: "s", Check: check, Policy: policy}
			}
			withValue := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "value")))
			})
			call(t, withValue, test.method, test.target, "", as("alice"))
			qt.Assert(t, qt.DeepEquals(got, test.want))
		})
	}
}

// TestMountPolicyFails checks that a mount becomes an ordinary upload if the policy
// fails.
func TestMountPolicyFails(t *testing.T) {
	const secret = "a secret"
	d := digest.FromString(secret)
	s := newStore(t)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, "alice/secret", d, strings.NewReader(secret))))
	policy := func(_ context.Context, _ string, action auth.Action, _ registry.Request) error {
		if action == auth.Pull {
			return errors.New("the directory is down")
		}
		return nil
	}
	h := auth.Basic("r", users.Check, policy)(registry.New(registry.WithStore(s)))
	for _, from := range []string{"", "&from=alice/secret"} {
		a := call(t, h, "POST", "/v2/ns/image/blobs/uploads/?mount="+string(d)+from, "", as("alice"))
		qt.Assert(t, qt.Equals(a.StatusCode, 202))
	}
}
