// SPDX-License-Identifier: Apache-2.0

// Package retention removes content that a registry no longer needs, while clients
// push and pull: garbage, and what rules say.
//
//	report, err := retention.Collect(ctx, store, retention.Options{
//		Rules: []retention.Rule{
//			{Name: "releases", Tags: []string{"v*"}, Keep: retention.Keep{All: true}},
//			{Name: "nightly", Tags: []string{"nightly-*"}, Keep: retention.Keep{Newest: 7}},
//		},
//	})
//
// [Collect] works with every [registry.Store] that implements [registry.Collector]:
// a [registry.MemStore], package ocidir and module bucket do. [Evict] lets a MemStore
// that is full collect before it rejects a push.
//
// # Garbage
//
// The roots of a repository are its tags, and the manifests that were used within the
// grace period. Live are the roots, the manifests that they name, and the manifests
// whose subject is live, and so on. All other manifests are garbage, and so are blobs
// that no live manifest names and that were not used within the grace period.
// Uploads that were given up, repositories without content, and what crashes have
// left are removed too.
//
// # Races
//
// A push first makes sure that the repository has the content that a manifest names,
// by pushing it or by a HEAD, and then pushes the manifest. Each of these is a use of
// the content, which the store notes. A collection lists the tags and manifests, and
// then has the store delete content unless it has been used since the beginning of the
// grace period. The store does both, look for a use and delete, in one step. So:
//
//   - Content that a client has found is kept for the grace period.
//   - If a manifest was pushed before the lists, its content is live. If it was pushed
//     after them, the push was a use of the content that it names, and that content is
//     kept; or the content was gone before, and the push is rejected with
//     MANIFEST_BLOB_UNKNOWN. For that, a store without a minimum of the grace period
//     notes the use once the manifest is visible.
//   - Manifests are deleted before those that they name, and before their referrers. If
//     one of them is kept, since it was used meanwhile, then so is all that it leads to.
//   - A tag is deleted only if it still points at the manifest that the rules were
//     applied to.
//
// If a manifest can't be read, its repository keeps everything, and Collect returns an
// error after the other repositories.
package retention
