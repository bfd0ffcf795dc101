// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// get sends a GET request, with a user's password or a token unless they are
// empty.
func get(url, user, password, token string) (status string, header http.Header, body string) {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp.Status, resp.Header, string(text)
}

func ExampleBasic() {
	users := auth.Users{"alice": "wonderland"}
	policy := auth.Rules{{User: "alice", Repo: "alice/**", Actions: []auth.Action{auth.Pull, auth.Push}}}
	server := httptest.NewServer(auth.Basic("registry", users.Check, policy.Allow)(registry.New()))
	defer server.Close()

	status, header, _ := get(server.URL+"/v2/", "", "", "")
	fmt.Println(status, header.Get("Www-Authenticate"))
	status, _, _ = get(server.URL+"/v2/", "alice", "wonderland", "")
	fmt.Println(status)
	status, _, body := get(server.URL+"/v2/bob/app/tags/list", "alice", "wonderland", "")
	fmt.Println(status, body)
	// Output:
	// 401 Unauthorized Basic realm="registry", charset="UTF-8"
	// 200 OK
	// 403 Forbidden {"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}
}

func ExampleBearer() {
	tokens := &auth.TokenServer{
		Service: "registry.example",
		Check:   auth.Users{"alice": "wonderland"}.Check,
		Policy: auth.Rules{
			{User: "*", Repo: "public/**", Actions: []auth.Action{auth.Pull}},
			{User: "alice", Repo: "**", Actions: []auth.Action{auth.Pull, auth.Push}},
		}.Allow,
	}
	tokenServer := httptest.NewServer(tokens)
	defer tokenServer.Close()
	server := httptest.NewServer(auth.Bearer(tokenServer.URL, "registry.example", tokens.Verify)(registry.New()))
	defer server.Close()

	_, _, body := get(tokenServer.URL+"?service=registry.example&scope=repository:public/app:pull", "", "", "")
	var response struct {
		Token string
	}
	if err := json.Unmarshal([]byte(body), &response); err != nil {
		fmt.Println(err)
		return
	}
	status, _, _ := get(server.URL+"/v2/public/app/manifests/latest", "", "", "")
	fmt.Println("without a token:", status)
	status, _, _ = get(server.URL+"/v2/public/app/manifests/latest", "", "", response.Token)
	fmt.Println("with one:", status)
	status, _, _ = get(server.URL+"/v2/private/app/manifests/latest", "", "", response.Token)
	fmt.Println("in another repository:", status)
	// Output:
	// without a token: 401 Unauthorized
	// with one: 404 Not Found
	// in another repository: 401 Unauthorized
}

func ExampleTokenServer() {
	tokens := &auth.TokenServer{
		Service: "registry.example",
		Check:   auth.Users{"alice": "wonderland"}.Check,
		Policy:  auth.Rules{{User: "alice", Repo: "alice/*", Actions: []auth.Action{auth.Pull}}}.Allow,
	}
	server := httptest.NewServer(tokens)
	defer server.Close()

	resp, err := http.PostForm(server.URL, url.Values{
		"grant_type": {"password"},
		"username":   {"alice"},
		"password":   {"wonderland"},
		"service":    {"registry.example"},
		"scope":      {"repository:alice/app:pull,push"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	var response struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&response); err != nil {
		fmt.Println(err)
		return
	}
	token, err := tokens.Verify(context.Background(), response.AccessToken)
	fmt.Println(token.User, token.Grants, response.ExpiresIn, err)
	// Output: alice [{repository alice/app [pull]}] 300 <nil>
}

func ExampleTokenServer_Verify() {
	tokens := &auth.TokenServer{Service: "registry.example"}
	_, err := tokens.Verify(context.Background(), "made up")
	fmt.Println(err)
	// Output: invalid token: malformed
}

func ExampleRules_Allow() {
	policy := auth.Rules{
		{User: "*", Repo: "public/**", Actions: []auth.Action{auth.Pull}},
		{User: "ci", Repo: "*/app", Actions: []auth.Action{auth.Pull, auth.Create}},
	}
	ctx := context.Background()
	fmt.Println(policy.Allow(ctx, "", auth.Pull, registry.Request{Repo: "public/a/b"}))
	fmt.Println(policy.Allow(ctx, "ci", auth.Push, registry.Request{Repo: "team/app"}))
	fmt.Println(policy.Allow(ctx, "ci", auth.Delete, registry.Request{Repo: "team/app"}))
	// Output:
	// <nil>
	// requested access to the resource is denied: existing tags may not be moved
	// requested access to the resource is denied
}

func ExampleUsers_Check() {
	users := auth.Users{"alice": "wonderland"}
	ctx := context.Background()
	fmt.Println(users.Check(ctx, "alice", "wonderland"))
	fmt.Println(users.Check(ctx, "alice", "guess"))
	fmt.Println(users.Check(ctx, "bob", ""))
	// Output:
	// <nil>
	// wrong user name or password
	// wrong user name or password
}

// A policy sees the entire request. This one rejects pushes of one tag.
func ExamplePolicy() {
	users := auth.Users{"alice": "wonderland"}
	policy := func(_ context.Context, user string, action auth.Action, req registry.Request) error {
		switch {
		case user == "":
			return registry.ErrDenied
		case action == auth.Push && (req.Tag == "stable" || slices.Contains(req.Tags, "stable")):
			return fmt.Errorf("%w: the tag stable is protected", registry.ErrDenied)
		}
		return nil
	}
	h := auth.Basic("registry", users.Check, policy)(registry.New())

	for _, tag := range []string{"latest", "stable"} {
		r := httptest.NewRequest("PUT", "/v2/app/manifests/"+tag, strings.NewReader("{}"))
		r.SetBasicAuth("alice", "wonderland")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(tag, w.Code)
	}
	// Output:
	// latest 201
	// stable 403
}

func ExampleUser() {
	users := auth.Users{"alice": "wonderland"}
	log := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Printf("%s: %s %s\n", auth.User(r.Context()), r.Method, r.URL)
			h.ServeHTTP(w, r)
		})
	}
	server := httptest.NewServer(auth.Basic("registry", users.Check, nil)(log(registry.New())))
	defer server.Close()
	get(server.URL+"/v2/", "alice", "wonderland", "")
	// Output: alice: GET /v2/
}

// A log in front of the authentication has each request, also those that are
// rejected.
func ExampleBasic_log() {
	users := auth.Users{"alice": "wonderland"}
	log := registry.Observe(func(e registry.Event) {
		fmt.Printf("%s: status %d, user %q, error %v\n", e.Request.Op, e.Status, e.User, e.Err)
	})
	server := httptest.NewServer(log(auth.Basic("registry", users.Check, nil)(registry.New())))
	defer server.Close()
	get(server.URL+"/v2/", "", "", "")
	get(server.URL+"/v2/", "alice", "wonderland", "")
	// Output:
	// ping: status 401, user "", error authentication required
	// ping: status 200, user "alice", error <nil>
}

// A password that takes long to verify is verified once a minute.
func ExampleThrottle() {
	calls := 0
	check := auth.Throttle(func(_ context.Context, user, password string) error {
		calls++ // and hash the password
		return nil
	}, 0, time.Minute)
	for range 3 {
		if err := check(context.Background(), "alice", "wonderland"); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(calls)
	// Output: 1
}
