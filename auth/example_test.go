// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// get asks for a URL, with a user's password or a token where they are not
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
	var answer struct {
		Token string
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		fmt.Println(err)
		return
	}
	status, _, _ := get(server.URL+"/v2/public/app/manifests/latest", "", "", "")
	fmt.Println("without a token:", status)
	status, _, _ = get(server.URL+"/v2/public/app/manifests/latest", "", "", answer.Token)
	fmt.Println("with one:", status)
	status, _, _ = get(server.URL+"/v2/private/app/manifests/latest", "", "", answer.Token)
	fmt.Println("elsewhere:", status)
	// Output:
	// without a token: 401 Unauthorized
	// with one: 404 Not Found
	// elsewhere: 401 Unauthorized
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
	var answer struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		fmt.Println(err)
		return
	}
	token, err := tokens.Verify(answer.AccessToken)
	fmt.Println(token.User, token.Grants, answer.ExpiresIn, err)
	// Output: alice [{repository alice/app [pull]}] 300 <nil>
}

func ExampleTokenServer_Verify() {
	tokens := &auth.TokenServer{Service: "registry.example"}
	_, err := tokens.Verify("made up")
	fmt.Println(err)
	// Output: invalid token
}

func ExampleJWT() {
	// The key of a token server elsewhere, of which the registry has the
	// public half.
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	elsewhere := httptest.NewServer(&auth.TokenServer{Service: "registry.example", Key: key})
	defer elsewhere.Close()
	keys := []crypto.PublicKey{key.Public()}
	server := httptest.NewServer(auth.Bearer(elsewhere.URL, "registry.example", auth.JWT{Service: "registry.example", Keys: keys}.Verify)(registry.New()))
	defer server.Close()

	_, _, body := get(elsewhere.URL, "", "", "")
	var answer struct {
		Token string
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		fmt.Println(err)
		return
	}
	status, _, _ := get(server.URL+"/v2/", "", "", answer.Token)
	fmt.Println(status)
	// Output: 200 OK
}

func ExampleJWT_Verify() {
	_, err := auth.JWT{Service: "registry.example"}.Verify("eyJhbGciOiJub25lIn0.e30.")
	fmt.Println(err)
	// Output: invalid token
}

func ExampleRules_Allow() {
	policy := auth.Rules{
		{User: "*", Repo: "public/**", Actions: []auth.Action{auth.Pull}},
		{User: "ci", Repo: "*/app", Actions: []auth.Action{auth.Pull, auth.Create}},
	}
	fmt.Println(policy.Allow("", "public/a/b", auth.Pull))
	fmt.Println(policy.Allow("ci", "team/app", auth.Create))
	fmt.Println(policy.Allow("ci", "team/app", auth.Push))
	// Output:
	// true
	// true
	// false
}

func ExampleUsers_Check() {
	users := auth.Users{"alice": "wonderland"}
	fmt.Println(users.Check("alice", "wonderland"), users.Check("alice", "guess"), users.Check("bob", ""))
	// Output: true false false
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
