// SPDX-License-Identifier: Apache-2.0

// Package registry implements an OCI distribution registry as one
// [http.Handler].
//
//	server := httptest.NewServer(registry.New())
//
// starts a complete registry: every endpoint of the [OCI distribution-spec], as
// on its main branch, with a store in memory. It is designed to be embedded: in
// unit tests of code that talks to registries, and in programs that need a
// registry of their own.
//
// # Basics
//
// [New] returns the handler. Its options bound it ([WithLimits]), relax it
// ([AllowSparse], [ClientUploadIDs]), restrict it ([ReadOnly], [NoDelete]) and
// log requests ([Logger], [WithSlog]). It must be served at the root of a host:
// all paths begin with /v2/.
//
// A [Store] holds the registry's content: by default a [MemStore]. Create one and
// pass it to [WithStore] to bound it ([MemStore.Limits]), to fill it without HTTP
// ([PushBlob] and [PushManifest], which make the handlers' checks except for the
// limits), or to clone it for each of many tests ([MemStore.Clone]). Package
// storetest tests other implementations of Store.
//
// Middleware is a func([http.Handler]) [http.Handler]. It parses a request with
// [ParseRequest], and rejects one with [WriteError].
//
// # Caveats
//
// Anyone who can reach the handler may push and delete: package auth restricts
// that. Without limits, clients can fill the memory. Content in a MemStore is lost
// when the process ends. Blobs stay until they are deleted, even if no manifest
// refers to them: package retention collects those. Package quota limits what
// repositories hold.
//
// [OCI distribution-spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
package registry
