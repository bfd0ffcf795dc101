// SPDX-License-Identifier: Apache-2.0

// Package auth provides middleware that restricts access to a registry. It uses
// [registry.ParseRequest] to determine the right that a request needs.
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
// [Basic] accepts passwords with each request. [Bearer] accepts tokens issued by
// a token server, in the token protocol of the Docker registry, which all
// clients speak: [TokenServer] is one. Module
// github.com/berth-oci/registry/tokens verifies the tokens of others, such as
// GitLab, Keycloak and docker_auth.
//
// A [Check] verifies passwords, and [Users] provides one; [Throttle] protects one
// that is slow. A [Policy] decides what each user may do, and [Rules] provide one.
// All report the user to [registry.Observe], also of a request that they reject.
//
// A client without credentials has only the rights that the policy grants to
// everyone. It always gets a 401 for /v2/, since that response tells clients how
// to authenticate. Mounting a blob from another repository requires the right to
// pull from there. Without it the mount becomes an ordinary upload, and reveals
// nothing about the other repository.
//
// # Failures
//
// Checks, policies and the verification of tokens may depend on a directory or a
// database. If that fails, they return an error other than [ErrCredentials],
// [registry.ErrDenied] and [ErrTokenInvalid]: the request gets 503 UNAVAILABLE,
// so that clients retry instead of discarding their credentials. The error's
// text is not sent to the client. To choose another response, return an error
// that wraps a [registry.Error]; its entire text is sent.
//
// An error that wraps [registry.ErrUnauthorized] is not a failure: it rejects
// the credentials, or denies the action.
//
// # Caveats
//
// Credentials are as safe as the connection: serve HTTPS. Access tokens are valid
// until they expire and can't be revoked. Tokens and Rules identify repositories by
// name alone, and so do not distinguish the ns parameter (section "Registry
// Proxying") or tags: only a Policy passed to Basic sees those.
package auth
