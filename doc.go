// SPDX-License-Identifier: Apache-2.0

// Package registry is an OCI distribution registry as one [http.Handler].
//
//	server := httptest.NewServer(registry.New())
//
// is a whole registry: every endpoint of the [OCI distribution-spec], on its
// main branch, over a store in memory. It is made to be embedded: in the unit
// tests of code that talks to registries, and in programs that need a registry
// of their own.
//
// # Basics
//
// [New] returns the handler; its options bound it ([WithLimits]), relax it
// ([AllowSparse], [ClientUploadIDs]), restrict it ([ReadOnly], [NoDelete]) and
// log ([Logger], [WithSlog]). It must be served at the root of a host: all
// paths begin with /v2/.
//
// What a registry holds is in a [Store]: by default a [MemStore]. Make one and
// pass it by [WithStore] to fill it without HTTP, with [PushBlob] and
// [PushManifest], which check what the handlers check but for the limits, or to
// fork it, with [MemStore.Clone], for each of many tests. Package storetest
// tests other implementations of Store.
//
// Middleware is a func([http.Handler]) [http.Handler]. It learns from
// [ParseRequest] what a request asks for, and refuses one by [WriteError].
//
// # Caveats
//
// Whoever reaches the handler may push and delete: package auth is for that.
// Without limits, memory is bounded only by what clients push. All content is
// gone with the process. Blobs that no manifest names any more stay until they
// are deleted.
//
// [OCI distribution-spec]: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
package registry
