// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// tokenResponse is the response of a token server.
type tokenResponse struct {
	Token        string    `json:"token"`
	AccessToken  string    `json:"access_token"`
	ExpiresIn    int       `json:"expires_in"`
	IssuedAt     time.Time `json:"issued_at"`
	RefreshToken string    `json:"refresh_token"`
}

func TestTokenServer(t *testing.T) {
	tokens := newTokenServer()
	tokens.Lifetime = 90 * time.Second
	refresh := func(user string) string {
		a := call(t, tokens, "GET", "/token?service=registry.test&offline_token=true", "", as(user))
		var g tokenResponse
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &g)))
		return g.RefreshToken
	}
	const ns = "repository:ns/image:pull,push"
	post := func(pairs ...string) string {
		v := make(url.Values)
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return v.Encode()
	}
	type grants = []auth.Grant
	repo := func(name string, actions ...string) auth.Grant {
		return auth.Grant{Type: "repository", Name: name, Actions: actions}
	}
	for _, test := range []struct {
		name    string
		method  string
		query   string
		body    string
		header  []string
		want    int
		user    string
		grants  grants
		offline bool
	}{
		{name: "no_credentials", method: "GET", query: "service=registry.test", want: 200, grants: grants{}},
		{name: "no_credentials_pull_from_a_public_repository", method: "GET", query: "service=registry.test&scope=repository:public/a:pull,push", want: 200, grants: grants{repo("public/a", "pull")}},
		{name: "no_credentials_no_refresh_token", method: "GET", query: "service=registry.test&offline_token=true", want: 200, grants: grants{}},
		{name: "no_credentials_pull_from_a_private_repository", method: "GET", query: "service=registry.test&scope=" + ns, want: 200, grants: grants{}},
		{name: "empty_credentials_of_skopeo", method: "GET", query: "service=registry.test", header: []string{basic("", "")}, want: 200, grants: grants{}},
		{name: "a_user", method: "GET", query: "account=alice&service=registry.test&scope=" + ns, header: []string{as("alice")}, want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push")}},
		{name: "without_a_service", method: "GET", query: "scope=" + ns, header: []string{as("alice")}, want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push")}},
		{name: "another_service", method: "GET", query: "service=other&scope=" + ns, header: []string{as("alice")}, want: 400},
		{name: "several_scopes", method: "GET", query: "service=registry.test&scope=" + ns + "&scope=repository:public/x:pull&scope=repository:bob/x:pull", header: []string{as("alice")}, want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push"), repo("public/x", "pull")}},
		{name: "several_scopes_in_one_parameter", method: "GET", query: "service=registry.test&scope=" + url.QueryEscape(ns+" repository:public/x:pull"), header: []string{as("alice")}, want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push"), repo("public/x", "pull")}},
		{name: "all_actions", method: "GET", query: "service=registry.test&scope=repository:alice/x:*&scope=repository:ns/x:*", header: []string{as("alice")}, want: 200, user: "alice", grants: grants{repo("alice/x", "pull", "push", "delete"), repo("ns/x", "pull", "push")}},
		{name: "create", method: "GET", query: "service=registry.test&scope=" + ns, header: []string{as("maker")}, want: 200, user: "maker", grants: grants{repo("ns/image", "pull", "create")}},
		{name: "the_catalog", method: "GET", query: "service=registry.test&scope=registry:catalog:*", header: []string{as("root")}, want: 200, user: "root", grants: grants{{Type: "registry", Name: "catalog", Actions: []string{"*"}}}},
		{name: "the_catalog_denied", method: "GET", query: "service=registry.test&scope=registry:catalog:*", header: []string{as("alice")}, want: 200, user: "alice", grants: grants{}},
		{name: "an_unknown_type", method: "GET", query: "service=registry.test&scope=repository(plugin):a:pull&scope=registry:other:*", header: []string{as("root")}, want: 200, user: "root", grants: grants{}},
		{name: "an_unknown_action", method: "GET", query: "service=registry.test&scope=repository:a:fly,,create,catalog", header: []string{as("root")}, want: 200, user: "root", grants: grants{}},
		{name: "a_name_with_a_port", method: "GET", query: "service=registry.test&scope=repository:host:5000/a:pull", header: []string{as("root")}, want: 200, user: "root", grants: grants{repo("host:5000/a", "pull")}},
		{name: "colons_in_a_password", method: "GET", query: "service=registry.test", header: []string{as("colon")}, want: 200, user: "colon", grants: grants{}},
		{name: "UTF-8", method: "GET", query: "service=registry.test", header: []string{as("zoë")}, want: 200, user: "zoë", grants: grants{}},
		{name: "offline", method: "GET", query: "service=registry.test&offline_token=true", header: []string{as("alice")}, want: 200, user: "alice", grants: grants{}, offline: true},
		{name: "wrong_password", method: "GET", query: "service=registry.test", header: []string{basic("alice", "no")}, want: 401},
		{name: "no_such_user", method: "GET", query: "service=registry.test", header: []string{basic("carol", "")}, want: 401},
		{name: "malformed_scope", method: "GET", query: "service=registry.test&scope=repository", want: 400},
		{name: "scope_without_a_name", method: "GET", query: "service=registry.test&scope=repository::pull", want: 400},
		{name: "a_long_name", method: "GET", query: "service=registry.test&scope=repository:" + strings.Repeat("a", 256) + ":pull", want: 400},
		{name: "many_scopes", method: "GET", query: "service=registry.test&scope=" + strings.Repeat("repository:a:pull+", 101), want: 400},
		{name: "malformed_query", method: "GET", query: "service=%zz", want: 400},

		{name: "password", method: "POST", header: []string{form}, body: post("grant_type", "password", "service", "registry.test", "client_id", "test", "username", "alice", "password", "wonderland", "scope", ns), want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push")}},
		{name: "password_offline", method: "POST", header: []string{form}, body: post("grant_type", "password", "service", "registry.test", "username", "alice", "password", "wonderland", "access_type", "offline"), want: 200, user: "alice", grants: grants{}, offline: true},
		{name: "refresh_token", method: "POST", header: []string{form}, body: post("grant_type", "refresh_token", "service", "registry.test", "refresh_token", refresh("alice"), "scope", ns+" repository:public/x:pull"), want: 200, user: "alice", grants: grants{repo("ns/image", "pull", "push"), repo("public/x", "pull")}},
		{name: "wrong_password", method: "POST", header: []string{form}, body: post("grant_type", "password", "service", "registry.test", "username", "alice", "password", "no"), want: 401},
		{name: "password_without_a_user", method: "POST", header: []string{form}, body: post("grant_type", "password", "service", "registry.test"), want: 401},
		{name: "a_password_in_the_URL", method: "POST", query: "grant_type=password&service=registry.test&username=alice&password=wonderland", header: []string{form}, want: 400},
		{name: "an_access_token_to_refresh", method: "POST", header: []string{form}, body: post("grant_type", "refresh_token", "refresh_token", tokenFor(t, tokens, "alice", ns)), want: 401},
		{name: "an_invalid_refresh_token", method: "POST", header: []string{form}, body: post("grant_type", "refresh_token", "refresh_token", "no.such.token"), want: 401},
		{name: "another_grant_type", method: "POST", header: []string{form}, body: post("grant_type", "client_credentials"), want: 400},
		{name: "no_form", method: "POST", body: "{}", header: []string{"Content-Type: application/json"}, want: 400},
		{name: "a_malformed_form", method: "POST", body: "%zz", header: []string{form}, want: 400},
		{name: "a_huge_form", method: "POST", body: "grant_type=password&x=" + strings.Repeat("a", 1<<20), header: []string{form}, want: 400},
		{name: "another_service", method: "POST", header: []string{form}, body: post("grant_type", "password", "service", "other", "username", "alice", "password", "wonderland"), want: 400},
		{name: "another_method", method: "PUT", want: 405},
	} {
		t.Run(test.method+"_"+test.name, func(t *testing.T) {
			a := call(t, tokens, test.method, "/token?"+test.query, test.body, test.header...)
			qt.Assert(t, qt.Equals(a.StatusCode, test.want), qt.Commentf("%s", a.body))
			switch test.want {
			case 401:
				qt.Assert(t, qt.Equals(a.code(), "UNAUTHORIZED"))
				qt.Assert(t, qt.StringContains(a.Header.Get("Www-Authenticate"), "Basic "))
				return
			case 400, 405:
				qt.Assert(t, qt.Equals(a.code(), "UNSUPPORTED"))
				return
			}
			qt.Assert(t, qt.Equals(a.Header.Get("Cache-Control"), "no-store"))
			var g tokenResponse
			qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &g)))
			qt.Assert(t, qt.Equals(g.AccessToken, g.Token))
			qt.Assert(t, qt.Equals(g.ExpiresIn, 90))
			qt.Assert(t, qt.IsFalse(g.IssuedAt.IsZero()))
			qt.Assert(t, qt.Equals(g.RefreshToken != "", test.offline))
			token, err := tokens.Verify(t.Context(), g.Token)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(token.User, test.user))
			qt.Assert(t, qt.DeepEquals(token.Grants, test.grants))
			if test.offline {
				_, err := tokens.Verify(t.Context(), g.RefreshToken)
				qt.Assert(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
			}
		})
	}
}

// forger signs tokens that no token server would issue.
type forger struct {
	key ed25519.PrivateKey
}

func (f forger) token(header, claims string) string {
	signed := b64(header) + "." + b64(claims)
	return signed + "." + b64(string(ed25519.Sign(f.key, []byte(signed))))
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// badCredentials returns Authorization headers that authenticate no user, not even
// for /v2/.
func badCredentials(t testing.TB, tokens *auth.TokenServer, f forger) map[string][]string {
	now := time.Now().Unix()
	const good = `{"typ":"JWT","alg":"EdDSA"}`
	claims := func(aud string, nbf, exp int64) string {
		return fmt.Sprintf(`{"sub":"alice","aud":%q,"nbf":%d,"exp":%d,"access":[{"type":"repository","name":"ns/image","actions":["*"]}]}`, aud, nbf, exp)
	}
	current := claims("registry.test", now-60, now+60)
	valid := tokenFor(t, tokens, "alice", "repository:ns/image:pull,push")
	parts := strings.Split(valid, ".")
	es, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	qt.Assert(t, qt.IsNil(err))
	foreign := newTokenServer()
	foreign.Key = es
	public := string(f.key.Public().(ed25519.PublicKey))
	mac := sha256.Sum256([]byte(public))

	all := map[string][]string{
		"empty":                     {""},
		"no_scheme":                 {valid},
		"another_scheme":            {"Digest " + valid},
		"no_token":                  {"Bearer"},
		"an_empty_token":            {"Bearer "},
		"not_three_parts":           {"Bearer a.b"},
		"four_parts":                {"Bearer " + valid + ".x"},
		"not_base64":                {"Bearer !.!.!"},
		"not_JSON":                  {"Bearer " + f.token("x", "x")},
		"JSON_of_another_type":      {"Bearer " + f.token(`[]`, `[]`)},
		"oversized":                 {"Bearer " + strings.Repeat("a", 100<<10)},
		"two_headers":               {"Bearer " + valid, "Bearer " + valid},
		"alg_none":                  {"Bearer " + b64(`{"alg":"none"}`) + "." + b64(current) + "."},
		"alg_None":                  {"Bearer " + b64(`{"alg":"None"}`) + "." + b64(current) + "." + b64("x")},
		"alg_none_signed":           {"Bearer " + f.token(`{"typ":"JWT","alg":"none"}`, current)},
		"alg_ES256_signed_EdDSA":    {"Bearer " + f.token(`{"typ":"JWT","alg":"ES256"}`, current)},
		"alg_HS256_by_public_key":   {"Bearer " + b64(`{"alg":"HS256"}`) + "." + b64(current) + "." + b64(string(mac[:]))},
		"no_alg":                    {"Bearer " + f.token(`{"typ":"JWT"}`, current)},
		"a_critical_extension":      {"Bearer " + f.token(`{"typ":"JWT","alg":"EdDSA","crit":["x"]}`, current)},
		"a_refresh_token":           {"Bearer " + f.token(`{"typ":"refresh+jwt","alg":"EdDSA"}`, current)},
		"another_key":               {"Bearer " + tokenFor(t, foreign, "alice")},
		"another_signature":         {"Bearer " + parts[0] + "." + parts[1] + "." + b64(strings.Repeat("x", 64))},
		"no_signature":              {"Bearer " + parts[0] + "." + parts[1] + "."},
		"other_claims":              {"Bearer " + parts[0] + "." + b64(current) + "." + parts[2]},
		"padded":                    {"Bearer " + valid + "=="},
		"a_line_break":              {"Bearer " + parts[0] + "\r\n ." + parts[1] + "." + parts[2]},
		"expired":                   {"Bearer " + f.token(good, claims("registry.test", now-60, now))},
		"not_yet_valid":             {"Bearer " + f.token(good, claims("registry.test", now+60, now+120))},
		"a_foreign_audience":        {"Bearer " + f.token(good, claims("other", now-60, now+60))},
		"no_audience":               {"Bearer " + f.token(good, fmt.Sprintf(`{"sub":"alice","exp":%d}`, now+60))},
		"aud_null":                  {"Bearer " + f.token(good, fmt.Sprintf(`{"sub":"alice","aud":null,"exp":%d}`, now+60))},
		"audience_of_another_type":  {"Bearer " + f.token(good, fmt.Sprintf(`{"sub":"alice","aud":5,"exp":%d}`, now+60))},
		"no_exp":                    {"Bearer " + f.token(good, `{"sub":"alice","aud":"registry.test"}`)},
		"exp_of_another_type":       {"Bearer " + f.token(good, `{"sub":"alice","aud":"registry.test","exp":"never"}`)},
		"exp_out_of_range":          {"Bearer " + f.token(good, `{"sub":"alice","aud":"registry.test","exp":1e300}`)},
		"exp_below_the_range":       {"Bearer " + f.token(good, `{"sub":"alice","aud":"registry.test","exp":-1e300}`)},
		"nbf_out_of_range":          {"Bearer " + f.token(good, fmt.Sprintf(`{"sub":"alice","aud":"registry.test","exp":%d,"nbf":1e300}`, now+60))},
		"exp_overflows_a_float":     {"Bearer " + f.token(good, `{"sub":"alice","aud":"registry.test","exp":1e999}`)},
		"exp_largest_integer":       {"Bearer " + f.token(good, fmt.Sprintf(`{"sub":"alice","aud":"registry.test","exp":%d}`, int64(math.MaxInt64)))},
		"basic_not_base64":          {"Basic !!"},
		"basic_without_a_colon":     {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice"))},
		"basic_wrong_password":      {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"))},
		"basic_no_such_user":        {"Basic " + base64.StdEncoding.EncodeToString([]byte("carol:"))},
		"basic_no_user":             {"Basic " + base64.StdEncoding.EncodeToString([]byte(":wonderland"))},
		"basic_cut_at_a_colon":      {"Basic " + base64.StdEncoding.EncodeToString([]byte("colon:a"))},
		"basic_UTF-8_decomposed":    {"Basic " + base64.StdEncoding.EncodeToString([]byte("zoe\u0308:pässwörd ☂"))},
		"basic_invalid_UTF-8":       {"Basic " + base64.StdEncoding.EncodeToString([]byte("zo\xff:p\xff"))},
		"basic_zero_bytes":          {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice\x00:wonderland"))},
		"basic_password_and_a_zero": {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:wonderland\x00"))},
		"basic_oversized":           {"Basic " + strings.Repeat("YWxp", 100<<10)},
		"basic_twice":               {strings.TrimPrefix(as("alice"), "Authorization: "), strings.TrimPrefix(as("alice"), "Authorization: ")},
	}
	return all
}

// TestBadCredentials checks that invalid credentials never reach the registry.
func TestBadCredentials(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	qt.Assert(t, qt.IsNil(err))
	tokens := newTokenServer()
	tokens.Key = key
	opaque := newTokenServer()
	opaque.Key, opaque.Opaque = key, true
	f := forger{key}
	store := newStore(t)
	reached := false
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reached = true
		registry.New(registry.WithStore(store)).ServeHTTP(w, r)
	})

	// Valid credentials are accepted, so each entry of badCredentials fails for the
	// reason that its name gives.
	good := f.token(`{"alg":"EdDSA"}`, fmt.Sprintf(`{"sub":"alice","aud":["x","registry.test"],"exp":%d.5}`, time.Now().Unix()+60))
	for _, h := range []http.Handler{auth.Bearer("r", "registry.test", tokens.Verify)(h)} {
		for _, token := range []string{good, tokenFor(t, tokens, "alice")} {
			for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
				qt.Assert(t, qt.Equals(call(t, h, "GET", "/v2/", "", "Authorization: "+scheme+token).StatusCode, 200))
			}
		}
	}
	qt.Assert(t, qt.Equals(call(t, auth.Bearer("r", "registry.test", opaque.Verify)(h), "GET", "/v2/", "", bearer(tokenFor(t, opaque, "alice"))).StatusCode, 200))
	qt.Assert(t, qt.Equals(call(t, auth.Bearer("r", "registry.test", opaque.Verify)(h), "GET", "/v2/", "", bearer(good)).StatusCode, 401))

	handlers := map[string]http.Handler{
		"basic":  auth.Basic("r", users.Check, rules.Allow)(h),
		"bearer": auth.Bearer("r", "registry.test", tokens.Verify)(h),
		"opaque": auth.Bearer("r", "registry.test", opaque.Verify)(h),
		"token":  tokens,
	}
	for name, headers := range badCredentials(t, tokens, f) {
		for kind, h := range handlers {
			t.Run(kind+"/"+name, func(t *testing.T) {
				reached = false
				for _, target := range []string{"/v2/", "/v2/ns/image/manifests/latest", "/v2/public/image/manifests/latest", "/x"} {
					req, err := http.NewRequest("GET", target, nil)
					qt.Assert(t, qt.IsNil(err))
					req.Header["Authorization"] = headers
					w := newRecorder()
					h.ServeHTTP(w, req)
					qt.Assert(t, qt.Equals(w.status, 401))
					qt.Assert(t, qt.StringContains(w.body.String(), `"UNAUTHORIZED"`))
					qt.Assert(t, qt.IsFalse(reached))
				}
			})
		}
	}
}

// recorder is a ResponseWriter like that of net/http/httptest.
type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func newRecorder() *recorder { return &recorder{header: make(http.Header)} }

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.WriteHeader(200)
	return r.body.Write(p)
}

// FuzzAuthorization checks that an Authorization header gets a 401 unless its
// credentials are valid.
func FuzzAuthorization(f *testing.F) {
	_, key, err := ed25519.GenerateKey(nil)
	qt.Assert(f, qt.IsNil(err))
	tokens := newTokenServer()
	tokens.Key = key
	forge := forger{key}
	for _, headers := range badCredentials(f, tokens, forge) {
		f.Add(headers[0])
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(299) })
	opaque := newTokenServer()
	opaque.Opaque = true
	handlers := []http.Handler{
		auth.Basic("r", users.Check, rules.Allow)(h),
		auth.Bearer("r", "registry.test", tokens.Verify)(h),
		auth.Bearer("r", "registry.test", opaque.Verify)(h),
		tokens,
	}
	f.Fuzz(func(t *testing.T, header string) {
		req := &http.Request{Method: "GET", URL: &url.URL{Path: "/v2/ns/image/tags/list"}, Header: http.Header{"Authorization": {header}}}
		// The fuzzer may find valid credentials, since the seeds have some.
		user, password, ok := req.BasicAuth()
		right := ok && (users.Check(t.Context(), user, password) == nil || user == "" && password == "")
		if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") {
			if _, err := tokens.Verify(t.Context(), strings.TrimLeft(token, " ")); err == nil {
				right = true
			} else if !errors.Is(err, auth.ErrTokenInvalid) {
				t.Fatal(err)
			}
		}
		for i, h := range handlers {
			w := newRecorder()
			h.ServeHTTP(w, req)
			if w.status != 401 && !right {
				t.Fatalf("handler %d responds to %q with %d", i, header, w.status)
			}
		}
	})
}

// FuzzTokenRequest checks that a token server grants only rights that the policy
// allows.
func FuzzTokenRequest(f *testing.F) {
	tokens := newTokenServer()
	seed := tokenFor(f, tokens, "alice", "repository:ns/image:pull,push")
	f.Add("service=registry.test&scope=repository:ns/image:pull,push", "")
	f.Add("service=registry.test&scope=registry:catalog:*&scope=repository:a:*", "")
	f.Add("", "grant_type=password&username=alice&password=wonderland&scope=repository:bob/x:*&access_type=offline")
	f.Add("", "grant_type=refresh_token&refresh_token="+seed)
	f.Add("scope=:::&scope=repository:a:", "grant_type=")
	f.Fuzz(func(t *testing.T, query, form string) {
		req := &http.Request{Method: "GET", URL: &url.URL{Path: "/token", RawQuery: query}, Header: make(http.Header)}
		if form != "" {
			req.Method = "POST"
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Body = readCloser{strings.NewReader(form)}
		}
		w := newRecorder()
		tokens.ServeHTTP(w, req)
		switch w.status {
		case 400, 401:
			return
		case 200:
		default:
			t.Fatalf("status %d", w.status)
		}
		var g tokenResponse
		if err := json.Unmarshal([]byte(w.body.String()), &g); err != nil {
			t.Fatal(err)
		}
		token, err := tokens.Verify(t.Context(), g.Token)
		if err != nil {
			t.Fatal(err)
		}
		for _, grant := range token.Grants {
			for _, action := range grant.Actions {
				repo, a := grant.Name, auth.Action(action)
				if grant.Type == "registry" {
					repo, a = "", auth.Catalog
				}
				if rules.Allow(t.Context(), token.User, a, registry.Request{Repo: repo}) != nil {
					t.Fatalf("%q got %v", token.User, grant)
				}
			}
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
