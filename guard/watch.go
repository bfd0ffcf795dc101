// SPDX-License-Identifier: Apache-2.0

// Progress of a response that the kernel sends from a file.

package guard

import (
	"io"
	"io/fs"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// filePiece is the size of the pieces in which the kernel sends a file. The file's
// position advances no later than at the end of a piece.
const filePiece = 1 << 20

// checksPerTimeout is how often a fileWatch checks a file's position within the
// timeout.
const checksPerTimeout = 8

// file is an [os.File], also as its WriteTo passes it on: with WriteTo hidden.
type file interface {
	io.Seeker
	syscall.Conn
	Stat() (fs.FileInfo, error)
}

// fileWatch extends the deadline of a response while the position of the file that
// it is read from advances. The deadline of a piece could not be extended once it
// has passed: net/http can't resume a write.
type fileWatch struct {
	w        *progressWriter
	file     file
	interval time.Duration

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	at      int64 // position of the file at the last progress
	stopped bool
}

// watch watches the file that r reads. It returns nil if r reads no file, or on a
// system other than Linux: Go's sendfile advances the position only at the end there.
func (w *progressWriter) watch(r io.Reader) *fileWatch {
	if limited, ok := r.(*io.LimitedReader); ok {
		r = limited.R
	}
	f, ok := r.(file)
	if !ok || runtime.GOOS != "linux" {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	watch := &fileWatch{w: w, file: f, interval: max(w.slack(), time.Millisecond), at: at}
	watch.extend()
	watch.mu.Lock()
	defer watch.mu.Unlock()
	watch.timer = time.AfterFunc(watch.interval, watch.check)
	return watch
}

// extend adds the time between two checks, by which progress may be noticed late.
func (f *fileWatch) extend() {
	f.w.c.SetWriteDeadline(time.Now().Add(f.w.timeout + f.interval))
}

func (f *fileWatch) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	if at, err := f.file.Seek(0, io.SeekCurrent); err == nil && at >= f.at+writeProgress {
		f.at = at
		f.extend()
	}
	f.timer.Reset(f.interval)
}

// stop ends the watch. It sets no deadline afterwards.
func (f *fileWatch) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.timer.Stop()
	f.w.write = time.Time{} // unknown
}
