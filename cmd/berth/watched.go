// SPDX-License-Identifier: Apache-2.0

// Values that are read from files again when these change.

package main

import (
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkFiles is how often files are checked for changes at most.
const checkFiles = 10 * time.Second

// watched is a value that is read from files. It is read again when they have changed;
// if that fails, the old value stays in use.
type watched[T any] struct {
	files []string
	read  func() (*T, error)
	log   *slog.Logger
	every time.Duration // checkFiles, except in tests

	value atomic.Pointer[T]

	mu      sync.Mutex // guards the fields below
	checked time.Time
	seen    []fs.FileInfo // the files that value was read from
	failure string        // of the last attempt to read it
}

// watch reads a value for the first time.
func watch[T any](log *slog.Logger, read func() (*T, error), files ...string) (*watched[T], error) {
	w := &watched[T]{files: files, read: read, log: log, every: checkFiles}
	return w, w.Reload()
}

// get returns the value, and checks the files first if that is due. One caller does so;
// the others do not wait for it.
func (w *watched[T]) get() *T {
	if w.mu.TryLock() {
		defer w.mu.Unlock()
		if time.Since(w.checked) >= w.every {
			w.check()
		}
	}
	return w.value.Load()
}

// check reads the value again if the files have changed, or if that has failed before.
func (w *watched[T]) check() {
	w.checked = time.Now()
	if w.failure == "" && !w.changed() {
		return
	}
	before := w.failure
	switch err := w.load(); {
	case err == nil:
		w.log.Info("changed files were read", "files", w.files)
	case err.Error() != before:
		w.log.Error("changed files can't be used, their old content stays in use", "files", w.files, "error", err)
	}
}

// changed reports whether a file is another one than that which was read. It follows
// symbolic links, as those of volumes of Kubernetes.
func (w *watched[T]) changed() bool {
	for i, name := range w.files {
		info, err := os.Stat(name)
		if err != nil {
			return true
		}
		old := w.seen[i]
		if !os.SameFile(old, info) || !old.ModTime().Equal(info.ModTime()) || old.Size() != info.Size() {
			return true
		}
	}
	return false
}

// Reload reads the value again. If it returns an error, the old value stays in use.
func (w *watched[T]) Reload() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checked = time.Now()
	return w.load()
}

func (w *watched[T]) load() (err error) {
	defer func() {
		w.failure = ""
		if err != nil {
			w.failure = err.Error()
		}
	}()
	// A change after this is noticed by the next check.
	var seen []fs.FileInfo
	for _, name := range w.files {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		seen = append(seen, info)
	}
	value, err := w.read()
	if err != nil {
		return err
	}
	w.seen = seen
	w.value.Store(value)
	return nil
}
