// SPDX-License-Identifier: Apache-2.0

// Package inspect shows in a browser what a registry holds, and what its clients have just
// done. An [Inspector] serves the page beside any registry:
//
//	store := new(registry.MemStore)
//	page := inspect.New(store, inspect.Options{})
//	defer page.Close()
//	http.ListenAndServe("127.0.0.1:5000", page.Handler(registry.New(registry.WithStore(store))))
//
// The page is at /inspect/, which a browser is sent to from /.
//
// The content of a registry is hostile: it comes from whoever may push. The page treats it
// as text, loads nothing from elsewhere, and has a Content-Security-Policy that would stop
// scripts and styles in it. All that a request may cost has a limit, and the recorded
// requests have one in bytes.
//
// Whoever can send requests to the page sees what [Options.Policy] lets them see: everything
// without one. A page without a policy belongs on a loopback address, behind
// [github.com/berth-oci/registry/guard.Hosts].
package inspect
