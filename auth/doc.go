// SPDX-License-Identifier: Apache-2.0

// Package auth puts a registry behind authentication, as middleware that asks
// [registry.ParseRequest] what a request needs.
//
//	tokens := &auth.TokenServer{
//		Service: "registry.example",
//		Check:   auth.Users{"alice": "secret"}.Check,
//		Policy:  auth.Rules{{User: "alice", Repo: "alice/**", Actions: []auth.Action{auth.Pull, auth.Push}}}.Allow,
//	}
//	http.Handle("/token", tokens)
//	http.Handle("/v2/", auth.Bearer("https://registry.example/token", "registry.example", tokens.Verify)(registry.New()))
//
// # Basics
//
// [Basic] takes passwords with each request. [Bearer] takes tokens that a
// token server gave, by the token protocol of the Docker registry, which all
// clients speak: [TokenServer] is one, and [JWT] verifies the tokens of
// another. Who may do what is a [Policy]; [Rules] is one.
//
// Without credentials, nothing of the registry answers but what the policy
// grants to everyone, and /v2/ never does: clients learn from its 401 how to
// authenticate. A mount of a blob from another
// repository needs the right to pull there, and is an ordinary upload without
// it: what a client may not pull, it is told nothing of.
//
// # Caveats
//
// Credentials are as safe as the connection: serve HTTPS. Tokens hold until
// they expire; nothing revokes one. The ns parameter (section "Registry
// Proxying") is no part of a policy, which sees the repository's name alone.
package auth
