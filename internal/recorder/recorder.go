// SPDX-License-Identifier: Apache-2.0

// Package recorder observes HTTP responses.
package recorder

import (
	"io"
	"net/http"
)

// Recorder is an http.ResponseWriter that records what passes through it.
type Recorder struct {
	http.ResponseWriter

	// Status is the status of the response; 0 until the handler has sent it.
	// Informational responses do not set it.
	Status int

	// Bytes is the number of bytes in the response's body.
	Bytes int64
}

func (r *Recorder) WriteHeader(status int) {
	if status >= 200 && r.Status == 0 {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *Recorder) Write(p []byte) (int, error) {
	r.begin()
	n, err := r.ResponseWriter.Write(p)
	r.Bytes += int64(n)
	return n, err
}

// ReadFrom preserves optimizations of the connection, such as sendfile.
func (r *Recorder) ReadFrom(src io.Reader) (int64, error) {
	r.begin()
	n, err := io.Copy(r.ResponseWriter, src)
	r.Bytes += n
	return n, err
}

// begin records the status that a handler sends by writing the body.
func (r *Recorder) begin() {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
}

// Sent reports whether the handler has sent the status.
func (r *Recorder) Sent() bool { return r.Status != 0 }

// Unwrap supports http.ResponseController.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
