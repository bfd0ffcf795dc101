// SPDX-License-Identifier: Apache-2.0

// Work that a response need not wait for.

package bucket

import "sync"

// maxLater bounds the goroutines of later.
const maxLater = 32

// background counts the functions that later runs.
type background struct {
	sync.WaitGroup
	slots chan struct{}
}

// later runs a function that removes leftovers, while the request that has left
// them gets its response. If too many are running, it runs at once. GC removes the
// leftovers of a process that stops before.
func (s *Store) later(f func()) {
	select {
	case s.background.slots <- struct{}{}:
	default:
		f()
		return
	}
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		defer func() { <-s.background.slots }()
		f()
	}()
}
