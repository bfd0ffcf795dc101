// SPDX-License-Identifier: Apache-2.0

// Package notify sends notifications of pushes, pulls, mounts and deletes to an HTTP
// endpoint, in the format of distribution's notifications or as CloudEvents:
//
//	sender, err := notify.New(notify.Options{
//		URL:     "https://hooks.example/registry",
//		Secret:  secret,
//		Actions: []string{notify.Push, notify.Delete},
//		Journal: "/var/lib/berth/notify",
//	})
//	…
//	handler := registry.Observe(sender.Observe)(registry.New())
//	…
//	err = sender.Close(ctx) // after http.Server.Shutdown
//
// Use one Sender for each endpoint. The package requires only the standard library and
// the registry.
//
// # Delivery
//
// Events wait in a queue and are sent one request after the other, in the order in
// which their requests ended. A request that fails is repeated with growing pauses
// until the endpoint responds with 2xx; meanwhile later events wait. So each event is
// delivered at least once: after a response that was lost, again. Its id stays the
// same, by which a receiver can tell. If the queue is full, new events are dropped,
// counted and logged. A request to the registry never waits for an endpoint.
//
// # Journal
//
// Without [Options].Journal the queue is in memory, and lost with the process. With it,
// events are also appended to files in a directory, each as a line with a checksum, and
// synced: one sync for all events that have come since the last one. [New] continues
// with the events that are in the directory. Those of the last moments before a
// crash, in practice some milliseconds, can be missing, unless [Options].Durable makes
// each request wait for the sync of its event. The files are deleted as their events
// are delivered. If the disk fails, events are kept in memory, and the error is logged,
// until a new file with all of them can be written.
//
// # Signature
//
// With [Options].Secret, each request has the header
//
//	Berth-Signature: t=1767225600,v1=fa7eaa06bf97d7815f3f456e97cde70c9e50cb005f01660c8d10b10c21964887
//
// where t is the time of the attempt in Unix seconds and v1 is HMAC-SHA256, in hex, of
// t, a dot and the body. [Verify] checks it and rejects old ones.
package notify
