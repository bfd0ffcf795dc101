// SPDX-License-Identifier: Apache-2.0

// A hash that is computed while content is read.

package registry

import (
	"encoding"
	"hash"
)

// asyncHash is the hash of incoming content. If there is much, a goroutine
// computes it: one processor reads the connection while another hashes, and may
// still do so after the response to the request.
type asyncHash struct {
	hash  hash.Hash
	tasks chan hashTask // to the goroutine; nil without one
	done  chan struct{} // closed when the latest goroutine has ended; nil without one
}

// hashTask hashes a piece, or saves the hash's state.
type hashTask struct {
	piece []byte // must not be changed
	save  *[]byte
}

func (t hashTask) apply(h hash.Hash) {
	if t.save != nil {
		*t.save, _ = h.(encoding.BinaryMarshaler).MarshalBinary() // never fails in the standard library
		return
	}
	h.Write(t.piece)
}

const (
	asyncHashFrom = 256 << 10 // bytes of content that are worth a goroutine
	hashTasks     = 64        // the maximum that may wait; their bytes are in memory anyway
)

// submit schedules t after all tasks before it: in a goroutine if async is set,
// otherwise at once unless some still wait.
func (h *asyncHash) submit(t hashTask, async bool) {
	if h.tasks == nil {
		if !async && !h.busy() {
			t.apply(h.hash)
			return
		}
		h.start()
	}
	h.tasks <- t
}

// start starts a goroutine, which runs after the previous one, if any, has
// ended.
func (h *asyncHash) start() {
	tasks, done, previous := make(chan hashTask, hashTasks), make(chan struct{}), h.done
	h.tasks, h.done = tasks, done
	go func() {
		defer close(done)
		if previous != nil {
			<-previous
		}
		for t := range tasks {
			t.apply(h.hash)
		}
	}()
}

// busy reports whether tasks remain.
func (h *asyncHash) busy() bool {
	if h.done == nil {
		return false
	}
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// end lets the goroutine end once it has done all tasks.
func (h *asyncHash) end() {
	if h.tasks != nil {
		close(h.tasks)
		h.tasks = nil
	}
}

// wait waits until all tasks are done.
func (h *asyncHash) wait() {
	h.end()
	if h.done != nil {
		<-h.done
	}
}
