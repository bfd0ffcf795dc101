// SPDX-License-Identifier: Apache-2.0

// Package guard is middleware that protects a registry from clients that stall,
// and from web pages.
//
//	h := registry.New()
//	h = guard.Hosts(guard.Local())(h)
//	h = guard.Progress(time.Minute)(h)
//	http.ListenAndServe("127.0.0.1:5000", h)
//
// [Progress] disconnects clients that stall: without it each of them holds a
// connection, and an upload with the bytes that have arrived, for as long as it
// likes. It complements [http.Server.ReadHeaderTimeout] and
// [http.Server.IdleTimeout]; an http.Server's ReadTimeout and WriteTimeout would
// also disconnect slow clients.
//
// [Hosts] rejects requests for other hosts than the registry's. A registry on
// loopback needs it because of DNS rebinding: a web page can have the browser
// resolve the page's own host name to a loopback address, and then read and write
// there. CrossOrigin (with Go 1.25 and newer) rejects requests by which a web page
// of another origin would change something.
package guard
