// SPDX-License-Identifier: Apache-2.0

// Progress of a stream of HTTP/2.

package guard

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// streamWatch breaks a stream if a read or a write takes too long. The deadlines of
// net/http can't do that: they end a stream when they pass, even if the handler neither
// reads nor writes then; and each one that is set takes time of the goroutine that moves
// the frames of all streams.
type streamWatch struct {
	c           *http.ResponseController
	interval    time.Duration
	read, write due

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	stopped bool
}

// due is when an operation must have ended, if one is in progress.
type due struct {
	start time.Time
	after atomic.Int64 // time since start; 0 means that none is in progress
}

func (d *due) set(t time.Time) { d.after.Store(max(1, int64(t.Sub(d.start)))) }

func (d *due) clear() { d.after.Store(0) }

func (d *due) passed() bool {
	after := d.after.Load()
	return after != 0 && int64(time.Since(d.start)) > after
}

func watchStream(d *deadlines) *streamWatch {
	s := &streamWatch{c: &d.c, interval: max(d.slack(), time.Millisecond)}
	s.read.start = time.Now()
	s.write.start = s.read.start
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(s.interval, s.check)
	return s
}

func (s *streamWatch) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	if s.read.passed() {
		s.c.SetReadDeadline(past)
	}
	if s.write.passed() {
		s.c.SetWriteDeadline(past)
		return // there is nothing left of the stream
	}
	s.timer.Reset(s.interval)
}

// stop ends the watch. It sets no deadline afterwards: the ResponseWriter must not be used
// after the handler has returned.
func (s *streamWatch) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.timer.Stop()
}
