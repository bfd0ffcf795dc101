// SPDX-License-Identifier: Apache-2.0

// The stream of records to open pages (server-sent events).

package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	batchTime  = 100 * time.Millisecond // between two messages
	batchSize  = 100                    // records in a message
	busyTime   = 2 * time.Second        // after more than batchSize, of which
	busySize   = 25                     // are sent, the newest: nobody can read more
	firstBatch = 1000                   // of a page that has just been opened
	keepAlive  = 15 * time.Second
	maxStreams = 32
)

// message is a message of the stream.
type message struct {
	Server  string    `json:"server"` // another one has other records with the same IDs
	Records []*record `json:"records"`
	Missed  int       `json:"missed,omitempty"` // records before these that were left out
}

// serveEvents sends the records, and each new one. They are sent together, so that a busy
// registry is not slowed by an open page.
func (i *Inspector) serveEvents(w http.ResponseWriter, r *http.Request) {
	select {
	case i.streams <- struct{}{}:
		defer func() { <-i.streams }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	// After a break, the browser says which record it has seen last.
	last, ok := i.parseEventID(r.Header.Get("Last-Event-ID"))
	if !ok {
		last, _ = i.parseEventID(r.URL.Query().Get("after"))
	}
	limit, keep := firstBatch, firstBatch
	c := http.NewResponseController(w)
	defer c.SetWriteDeadline(time.Time{})
	for {
		records, newest, changed := i.timeline.since(last)
		c.SetWriteDeadline(time.Now().Add(keepAlive))
		missed, err := i.send(r.Context(), w, records, newest, &last, limit, keep)
		if err != nil {
			return
		}
		pause := batchTime
		if missed > 0 {
			pause = busyTime
		}
		if c.Flush() != nil {
			return
		}
		limit, keep = batchSize, busySize
		if !i.wait(r.Context(), changed, keepAlive) || !i.wait(r.Context(), nil, pause) {
			return
		}
	}
}

// parseEventID returns the ID of the record that an event has ended with. It reports false if
// there is none, or if that was of another server, such as this one before it was restarted.
func (i *Inspector) parseEventID(s string) (uint64, bool) {
	server, number, _ := strings.Cut(s, "-")
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil || server != i.timeline.server {
		return 0, false
	}
	return id, true
}

// send sends a message with the records that the user may see: if they are more than limit,
// the newest, of which there are as many as keep. It returns how many it has left out.
func (i *Inspector) send(ctx context.Context, w http.ResponseWriter, records []*record, newest uint64, last *uint64, limit, keep int) (int, error) {
	m := message{Server: i.timeline.server, Records: []*record{}}
	if *last == 0 { // the page has just been opened
		*last = newest - uint64(len(records))
	}
	if n := len(records); n > limit {
		records = records[n-keep:]
	}
	if newest > *last {
		m.Missed = int(newest-*last) - len(records)
		*last = newest
	}
	for _, record := range records {
		if i.maySee(ctx, record) {
			m.Records = append(m.Records, record)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fprintf(w, "id: %s-%d\ndata: %s\n\n", i.timeline.server, *last, data)
	return m.Missed, err
}

// wait waits for changed, or for a time. It reports false if the stream must end.
func (i *Inspector) wait(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return false
	case <-i.closed.Done():
		return false
	}
	return true
}
