// SPDX-License-Identifier: Apache-2.0

// A timeout for connections on which no bytes move.

package guard

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// At least this many bytes must move, in either direction, within the timeout.
const (
	readProgress  = 1 << 10  // of a request's body
	writeProgress = 64 << 10 // of a response, unless the socket's buffer takes it
)

// While a client takes each piece of a response in less than a share of the timeout,
// pieces are larger: a write(2) of 64 KiB takes the kernel almost twice the time for
// each byte. A fast piece may take several timeouts.
const (
	fastPiece    = 1 << 20
	fastShare    = 1000
	fastTimeouts = 4
)

// Progress is middleware that breaks connections on which the body of a request or
// its response makes no progress: 1 KiB of a body, or 64 KiB of a response, within
// the timeout, or at most an eighth longer; for a client that has been much faster
// than that until now, 1 MiB of a response within four times the timeout. The time
// that the handler itself takes does not count. A client that does make progress may
// take any time, unlike with the timeouts of an [http.Server]. A timeout of 0 means no
// limit.
//
// With HTTP/2 it ends the request, and the other requests on the connection go on. A
// connection that takes no bytes at all is broken by the WriteByteTimeout of an
// [http.HTTP2Config], which the server must set.
//
// It requires a ResponseWriter with deadlines, as that of an http.Server; with
// others it has no effect.
func Progress(timeout time.Duration) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		if timeout <= 0 {
			return h
		}
		return watchProgress(h, timeout)
	}
}

func watchProgress(h http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pw := &progressWriter{ResponseWriter: w, deadlines: deadlines{c: *http.NewResponseController(w), timeout: timeout}}
		if r.ProtoMajor >= 2 {
			pw.stream = watchStream(&pw.deadlines)
		}
		defer func() {
			// The server still reads the rest of a body that h has not read,
			// and writes the rest of the response.
			if pw.stream != nil {
				pw.stream.stop()
				pw.c.SetWriteDeadline(time.Now().Add(timeout))
			} else {
				pw.extend(timeout)
			}
			if pw.body.ReadCloser != nil && !pw.body.ended {
				pw.c.SetReadDeadline(time.Now().Add(timeout))
			}
		}()
		if r.Body != nil && r.Body != http.NoBody {
			pw.body = progressReader{ReadCloser: r.Body, pw: pw}
			other := *r
			other.Body = &pw.body
			r = &other
		}
		h.ServeHTTP(pw, r)
	})
}

// deadlines are those of a connection. They are not set for each read and write, but
// only if they have come nearer than they should be, and then a little later than that.
type deadlines struct {
	c           http.ResponseController
	timeout     time.Duration
	read, write time.Time

	stream *streamWatch // instead of them, with HTTP/2
}

// slack is how much later than due a connection may be broken.
func (d *deadlines) slack() time.Duration { return d.timeout / checksPerTimeout }

// next returns the deadline for something that must end by due. It reports whether that
// is another one than old.
func (d *deadlines) next(old, due time.Time) (time.Time, bool) {
	if wait := old.Sub(due); 0 <= wait && wait <= d.slack() {
		return old, false
	}
	return due.Add(d.slack()), true
}

// extend allows a time for the next write, and returns the current time.
func (d *deadlines) extend(allowed time.Duration) time.Time {
	now := time.Now()
	if d.stream != nil {
		d.stream.write.set(now.Add(allowed))
		return now
	}
	var changed bool
	if d.write, changed = d.next(d.write, now.Add(allowed)); changed {
		d.c.SetWriteDeadline(d.write)
	}
	return now
}

// await allows a time for the next read, from now.
func (d *deadlines) await(now time.Time, allowed time.Duration) {
	if d.stream != nil {
		d.stream.read.set(now.Add(allowed))
		return
	}
	var changed bool
	if d.read, changed = d.next(d.read, now.Add(allowed)); changed {
		d.c.SetReadDeadline(d.read)
	}
}

type progressReader struct {
	io.ReadCloser
	pw *progressWriter

	ended  bool          // Read has returned an error
	waited time.Duration // in Read, since the last progress
	moved  int           // bytes since the last progress
}

func (b *progressReader) Read(p []byte) (int, error) {
	if b.ended {
		return b.ReadCloser.Read(p)
	}
	d := &b.pw.deadlines
	start := time.Now()
	d.await(start, d.timeout-b.waited)
	n, err := b.ReadCloser.Read(p)
	if d.stream != nil {
		d.stream.read.clear()
	}
	if b.moved += n; b.moved >= readProgress {
		b.moved, b.waited = 0, 0
	} else {
		b.waited += time.Since(start)
	}
	b.ended = err != nil
	if err == io.EOF && d.stream == nil {
		// From now on the server watches the connection, and would take a
		// timeout for its end.
		d.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

type progressWriter struct {
	http.ResponseWriter
	deadlines
	fast bool // the client has taken the last piece quickly
	body progressReader
}

func (w *progressWriter) Write(p []byte) (written int, err error) {
	for {
		piece, allowed := p[:min(len(p), writeProgress)], w.timeout
		if w.fast {
			piece = p[:min(len(p), fastPiece)]
		}
		if len(piece) > writeProgress {
			allowed *= fastTimeouts
		}
		start := w.extend(allowed)
		n, err := w.ResponseWriter.Write(piece)
		if w.stream != nil {
			w.stream.write.clear()
		}
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
		w.fast = time.Since(start) < w.timeout/fastShare
	}
}

// ReadFrom keeps the connection's own way to send content, such as sendfile. A file
// goes in larger pieces, for which one deadline each would be too short for a slow
// client: a fileWatch extends it while the file is read.
func (w *progressWriter) ReadFrom(r io.Reader) (total int64, err error) {
	if w.stream != nil { // the kernel sends no files in frames
		buf := pieces.Get().(*[writeProgress]byte)
		defer pieces.Put(buf)
		return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buf[:])
	}
	w.extend(w.timeout)
	total, err = w.copyPiece(r, writeProgress)
	if err != nil || total < writeProgress {
		return total, err
	}
	size := int64(writeProgress)
	watch := w.watch(r)
	if watch != nil {
		defer watch.stop()
		size = filePiece
	}
	for {
		if watch == nil {
			w.extend(w.timeout)
		}
		n, err := w.copyPiece(r, size)
		total += n
		if err != nil || n < size {
			return total, err
		}
	}
}

// pieces are buffers for content that the kernel does not send by itself.
var pieces = sync.Pool{New: func() any { return new([writeProgress]byte) }}

// copyPiece copies size bytes, or fewer on an error or at the end of r. Since the
// connection finds a file behind one [io.LimitedReader], but not behind two, it
// limits the reader below a limit that r has.
func (w *progressWriter) copyPiece(r io.Reader, size int64) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(w.ResponseWriter, &io.LimitedReader{R: r, N: size})
	}
	n, err := io.Copy(w.ResponseWriter, &io.LimitedReader{R: limited.R, N: min(size, limited.N)})
	limited.N -= n
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *progressWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
