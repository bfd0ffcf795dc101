// SPDX-License-Identifier: Apache-2.0

// What stands between the connections and the registry: clients that stall,
// handlers that panic, and what is answered without the registry.

package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/berth-oci/registry"
)

// Bytes must move at least so far, in either direction, within the progress
// timeout. The time that the registry itself takes does not count.
const (
	readProgress  = 1 << 10  // of a request's body
	writeProgress = 64 << 10 // of an answer, unless the socket's buffer takes it
)

// watchProgress breaks off connections on which a request's body or its answer
// makes no progress. However slow a client is that does, it may take an hour.
func watchProgress(h http.Handler, timeout time.Duration) http.Handler {
	if timeout <= 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		body := &progressReader{ReadCloser: r.Body, c: c, timeout: timeout}
		pw := &progressWriter{ResponseWriter: w, c: c, timeout: timeout}
		defer func() {
			// For what the server reads and writes yet: the rest of a body that
			// nobody wanted, and of the answer.
			now := time.Now()
			if !body.ended {
				c.SetReadDeadline(now.Add(timeout))
			}
			c.SetWriteDeadline(now.Add(timeout))
		}()
		if r.Body != nil && r.Body != http.NoBody {
			other := *r
			other.Body = body
			r = &other
		} else {
			body.ended = true
		}
		h.ServeHTTP(pw, r)
	})
}

type progressReader struct {
	io.ReadCloser
	c       *http.ResponseController
	timeout time.Duration

	ended  bool          // in whatever way
	waited time.Duration // for the bytes in moved
	moved  int
}

func (b *progressReader) Read(p []byte) (int, error) {
	if b.ended {
		return b.ReadCloser.Read(p)
	}
	start := time.Now()
	b.c.SetReadDeadline(start.Add(b.timeout - b.waited))
	n, err := b.ReadCloser.Read(p)
	b.waited += time.Since(start)
	if b.moved += n; b.moved >= readProgress {
		b.moved, b.waited = 0, 0
	}
	b.ended = err != nil
	if err == io.EOF {
		// The server watches the connection from here on, and takes a timeout
		// for its end.
		b.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

type progressWriter struct {
	http.ResponseWriter
	c       *http.ResponseController
	timeout time.Duration
}

func (w *progressWriter) Write(p []byte) (written int, err error) {
	for {
		piece := p[:min(len(p), writeProgress)]
		w.c.SetWriteDeadline(time.Now().Add(w.timeout))
		n, err := w.ResponseWriter.Write(piece)
		written += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return written, err
		}
	}
}

// ReadFrom keeps the connection's own way to send a file.
func (w *progressWriter) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		w.c.SetWriteDeadline(time.Now().Add(w.timeout))
		n, err := io.CopyN(w.ResponseWriter, r, writeProgress)
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (w *progressWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// giveBack gives memory back to the system when deletes have paused for a
// while. Go's collector does so when it next runs, and in a server with nothing
// to do that may take many minutes.
func giveBack(h http.Handler, pause time.Duration) http.Handler {
	timer := time.AfterFunc(pause, debug.FreeOSMemory)
	timer.Stop()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if r.Method == http.MethodDelete {
			timer.Reset(pause)
		}
	})
}

// catchPanics answers 500 where h panics, and logs it once. An answer that has
// begun is broken off.
func catchPanics(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := &begunWriter{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil || p == http.ErrAbortHandler {
				if p != nil {
					panic(p)
				}
				return
			}
			req, _ := registry.ParseRequest(r)
			log.Error("panic", "op", string(req.Op), "method", r.Method, "url", r.URL.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if begun.yes {
				panic(http.ErrAbortHandler)
			}
			registry.WriteError(w, r, fmt.Errorf("panic: %v", p))
		}()
		h.ServeHTTP(begun, r)
	})
}

// logRedirects logs what h redirects, which the registry does not see.
func logRedirects(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rw := &redirectWriter{ResponseWriter: w}
		h.ServeHTTP(rw, r)
		if rw.redirected {
			log.Info("request", "op", string(registry.OpBlobGet), "method", r.Method, "url", r.URL.String(),
				"status", http.StatusTemporaryRedirect, "duration", time.Since(start), "remote", r.RemoteAddr)
		}
	})
}

type redirectWriter struct {
	http.ResponseWriter
	redirected bool
}

func (w *redirectWriter) WriteHeader(status int) {
	w.redirected = status == http.StatusTemporaryRedirect
	w.ResponseWriter.WriteHeader(status)
}

func (w *redirectWriter) ReadFrom(r io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, r) }

// Unwrap is for http.ResponseController.
func (w *redirectWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// begunWriter knows whether there is an answer yet.
type begunWriter struct {
	http.ResponseWriter
	yes bool
}

func (w *begunWriter) WriteHeader(status int) {
	w.yes = w.yes || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *begunWriter) Write(p []byte) (int, error) {
	w.yes = true
	return w.ResponseWriter.Write(p)
}

func (w *begunWriter) ReadFrom(r io.Reader) (int64, error) {
	w.yes = true
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap is for http.ResponseController.
func (w *begunWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
