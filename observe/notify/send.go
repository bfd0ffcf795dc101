// SPDX-License-Identifier: Apache-2.0

// Sending events, one request after the other.

package notify

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// maxRetryAfter bounds Retry-After: an endpoint must not stop notifications for good.
const maxRetryAfter = time.Hour

// send sends entries until the queue is closed and empty, or the context ends.
func (s *Sender) send() {
	defer close(s.sent)
	size := s.opts.Batch // of the next request
	failures := 0        // of the first entry
	logged := uint64(0)  // drops
	closing := s.closing
	for {
		batch := s.next(size)
		if batch == nil {
			return
		}
		logged = s.logDrops(logged)
		retryAfter, status, err := s.post(batch)
		switch {
		case err == nil:
			if failures > 0 {
				s.log.Info("the endpoint accepts notifications again", "endpoint", s.endpoint, "attempts", failures+1)
			}
			s.done(batch, true)
			size, failures = s.opts.Batch, 0
			continue
		case s.ctx.Err() != nil:
			return
		}
		s.mu.Lock()
		s.stats.Failures++
		s.mu.Unlock()
		failures++
		if failures&(failures-1) == 0 { // 1, 2, 4, …
			s.log.Warn("notifications can't be delivered", "endpoint", s.endpoint, "error", err, "attempts", failures)
		}
		if len(batch) > 1 && rejectsContent(status) { // perhaps one of them
			size = len(batch) / 2
			continue
		}
		if s.opts.Attempts > 0 && failures >= s.opts.Attempts {
			s.log.Error("notifications are dropped after too many attempts", "endpoint", s.endpoint, "events", len(batch), "first", batch[0].event.ID)
			s.done(batch, false)
			size, failures = s.opts.Batch, 0
			continue
		}
		select {
		case <-time.After(max(s.backoff(failures), retryAfter)):
		case <-closing: // try at once, but only once
			closing = nil
		case <-s.ctx.Done():
			return
		}
	}
}

// rejectsContent reports whether a status may be due to one of several events, or to
// their number.
func rejectsContent(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// backoff returns the pause after a number of failures, at least 1.
func (s *Sender) backoff(failures int) time.Duration {
	d := s.opts.Backoff
	for range failures - 1 {
		if d >= s.opts.MaxBackoff/2 {
			d = s.opts.MaxBackoff
			break
		}
		d *= 2
	}
	return d - rand.N(d/2+1)
}

// next waits for entries, and returns up to n of them; nil if there will be no more.
func (s *Sender) next(n int) []*entry {
	for {
		s.mu.Lock()
		batch := slices.Clone(s.entries[:min(n, s.ready)])
		ended := s.closed && len(s.entries) == 0
		s.mu.Unlock()
		switch {
		case s.ctx.Err() != nil || ended:
			return nil
		case len(batch) > 0:
			if s.journal == nil {
				for _, e := range batch {
					s.complete(e)
				}
			}
			return batch
		}
		select {
		case <-s.wakeSend:
		case <-s.ctx.Done():
		}
	}
}

// done removes entries that were delivered or given up.
func (s *Sender) done(batch []*entry, delivered bool) {
	s.mu.Lock()
	if n := len(batch); delivered {
		s.stats.Delivered += uint64(n)
	} else {
		s.stats.Dropped += uint64(n)
	}
	clear(s.entries[:len(batch)])
	s.entries = s.entries[len(batch):]
	if len(s.entries) == 0 {
		s.entries = nil
	}
	s.ready -= len(batch)
	s.delivered = batch[len(batch)-1].seq
	s.mu.Unlock()
	if s.journal != nil {
		wake(s.wakeStore)
	}
}

// logDrops logs that events were dropped, if any since the last time.
func (s *Sender) logDrops(logged uint64) uint64 {
	s.mu.Lock()
	dropped := s.overflow
	s.mu.Unlock()
	if dropped > logged {
		s.log.Error("notifications are dropped: the queue is full", "endpoint", s.endpoint, "events", dropped-logged)
	}
	return dropped
}

// post sends entries in one request. Of a response that is not a success it returns
// the status and Retry-After.
func (s *Sender) post(batch []*entry) (retryAfter time.Duration, status int, err error) {
	body, err := s.opts.Format.encode(batch, s.origin)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	r.Header.Set("User-Agent", "berth-notify")
	r.Header["Idempotency-Key"] = nil // it is not sent, but lets net/http repeat the request if an idle connection was closed
	for name, values := range s.opts.Header {
		r.Header[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	r.Header.Set("Content-Type", s.opts.Format.contentType())
	if len(s.opts.Secret) > 0 {
		r.Header.Set(SignatureHeader, sign(s.opts.Secret, body, time.Now()))
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, 0, err // of net/url, whose text has no password
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return 0, 0, nil
	}
	return parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()), resp.StatusCode, fmt.Errorf("response %d", resp.StatusCode)
}

// parseRetryAfter returns the duration that a header asks for (RFC 9110 section
// 10.2.3), within bounds; 0 if it is missing or malformed.
func parseRetryAfter(header string, now time.Time) time.Duration {
	d := time.Duration(0)
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
