// SPDX-License-Identifier: Apache-2.0

// Uploads in several requests, and the sessions that clients share.

package bucket_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// sessionKept is how long a session is kept at least while nobody uses it: the
// store's hour, minus the time that clocks may differ.
const sessionKept = 10 * time.Minute

// session is an upload session.
type session struct {
	location  string
	cancelled bool // a client has at least tried
	disturbed bool // the outcome of a request is unknown: it may still be running
	reach     int  // the bytes that it may have, if a request with an unknown outcome takes effect
	used      time.Time
}

func (o *operation) addSession(location string) *session {
	s := &session{location: location, used: time.Now()}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions = append(o.sessions, s)
	return s
}

// mayEnd reports whether a session may have ended.
func (o *operation) mayEnd(s *session) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return s.cancelled || time.Since(s.used) > sessionKept
}

func (o *operation) use(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.used = time.Now()
}

// cancelAny cancels a session, somebody else's perhaps.
func (o *operation) cancelAny() {
	o.mu.Lock()
	n := len(o.sessions)
	if n == 0 {
		o.mu.Unlock()
		return
	}
	s := o.sessions[n-1-o.random.IntN(min(n, 4))]
	s.cancelled = true
	o.mu.Unlock()
	o.cancel(s)
}

func (o *operation) cancel(s *session) {
	o.mu.Lock()
	s.cancelled = true
	o.mu.Unlock()
	o.sendEvent(o.newEvent(opRequest), simRequest{method: "DELETE", uri: s.location}, 204, 404)
}

// upload pushes a blob in chunks, each to another replica.
func (o *operation) upload() {
	blob := simBlobs[o.blob]
	resp := o.sendEvent(o.newEvent(opRequest), simRequest{method: "POST", uri: o.uploads()}, 202)
	if resp.status != 202 {
		return
	}
	s := o.addSession(resp.header.Get("Location"))
	total := len(blob.data)
	inPut := 0 // bytes that the PUT sends
	if total < 10 {
		inPut = total
	} else if o.random.IntN(3) == 0 {
		inPut = total - total/10 - o.random.IntN(total/2)
	}
	acknowledged := 0
	for acknowledged < total-inPut {
		if o.random.IntN(20) == 0 {
			time.Sleep(o.target.pause(between(o.random, time.Minute, 100*time.Minute)))
		}
		size := total - inPut - acknowledged
		if size > 10 && o.random.IntN(2) == 0 {
			size = size/2 + 1
		}
		next, ok := o.patch(s, blob.data, acknowledged, size)
		if !ok {
			return
		}
		if next > total-inPut { // can't be, and was reported
			return
		}
		acknowledged = next
		if o.random.IntN(12) == 0 {
			o.cancel(s)
			return
		}
	}
	o.finish(s, blob, acknowledged)
}

// checkBusy checks that a 416 has a reason.
func (o *operation) checkBusy(e *event, s *session, resp response) {
	if resp.status == 416 && !s.disturbed && !o.mayEnd(s) {
		o.violate("upload", e, "%s: nobody else uses the session: %s", e, resp.body)
	}
}

func contentRange(from, size int) http.Header {
	return http.Header{"Content-Range": {fmt.Sprintf("%d-%d", from, from+size-1)}}
}

// patch sends a chunk. It returns the number of bytes in the session.
func (o *operation) patch(s *session, data []byte, from, size int) (next int, ok bool) {
	e := o.newEvent(opRequest)
	resp := o.sendEvent(e, simRequest{method: "PATCH", uri: s.location, header: contentRange(from, size), body: data[from : from+size]}, 202, 404, 416)
	switch {
	case resp.status == 202:
		o.use(s)
		if got := rangeEnd(resp.header); got != from+size {
			o.violate("upload", e, "%s: the session has %d bytes, want %d", e, got, from+size)
			return 0, false
		}
		return from + size, true
	case resp.status == 404:
		if !o.mayEnd(s) {
			o.violate("upload", e, "%s: the session is gone", e)
		}
		return 0, false
	}
	o.checkBusy(e, s, resp)
	s.disturbed = true
	s.reach = max(s.reach, from+size)
	// The outcome is unknown, or another request is in the way: ask.
	for range 5 {
		time.Sleep(o.target.pause(between(o.random, 100*time.Millisecond, 20*time.Second)))
		e := o.newEvent(opRequest)
		resp := o.sendEvent(e, simRequest{method: "GET", uri: s.location}, 204, 404)
		switch resp.status {
		case 204:
			o.use(s)
			next := rangeEnd(resp.header)
			if next < from || next > s.reach {
				o.violate("upload", e, "%s: the session has %d bytes, want %d to %d", e, next, from, s.reach)
				return 0, false
			}
			return next, true
		case 404:
			if !o.mayEnd(s) {
				o.violate("upload", e, "%s: the session is gone", e)
			}
			return 0, false
		}
	}
	return 0, false
}

// rangeEnd returns the number of bytes that a Range header announces. Chunks are
// longer than a byte, so 0-0 means none.
func rangeEnd(h http.Header) int {
	_, last, _ := strings.Cut(h.Get("Range"), "-")
	n, err := strconv.Atoi(last)
	if err != nil {
		return -1
	}
	if n == 0 {
		return 0
	}
	return n + 1
}

// finish publishes the blob. A PUT whose outcome is unknown is repeated: it must
// succeed then, unless somebody has ended the session.
func (o *operation) finish(s *session, blob simContent, from int) {
	e := o.newEvent(opUpload)
	req := simRequest{method: "PUT", uri: s.location + "?digest=" + blob.digest.String()}
	for try := range 6 {
		if size := len(blob.data) - from; size > 0 {
			req.header, req.body = contentRange(from, size), blob.data[from:]
		} else {
			req.header = make(http.Header)
		}
		if try > 0 {
			o.requests++
			e.name = fmt.Sprint(o.name, ".", o.requests)
			time.Sleep(o.target.pause(between(o.random, 100*time.Millisecond, 30*time.Second)))
		}
		resp := o.send(e, o.anyReplica(), o.random, req)
		o.expect(e, resp, 201, 404, 416)
		if resp.status == 404 && !o.mayEnd(s) {
			o.violate("upload", e, "%s: the session is gone", e)
		}
		o.checkBusy(e, s, resp)
		if e.unknown() {
			s.disturbed = true
			e.again = true
			continue
		}
		if resp.status != 416 {
			break
		}
	}
	o.record(e)
}
