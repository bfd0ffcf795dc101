// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// FuzzParity sends requests of random shape to handlers that do random things, over
// loopback and in process. Neither side may see a difference.
func FuzzParity(f *testing.F) {
	discardLog(f)
	for i := range 32 {
		seed := make([]byte, 64)
		for j := range seed {
			seed[j] = byte(i*37 + j*j*(i+11))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, shape []byte) {
		got, want, _ := commonOutcome(
			func() string { return newFuzzRow(shape).exchange(t, "in process") },
			func() string { return newFuzzRow(shape).exchange(t, "HTTP/1.1") }, 20)
		qt.Assert(t, qt.Equals(got, want))
	})
}

// choices decodes a shape, byte by byte. After the end it reads zeros.
type choices struct{ data []byte }

func (c *choices) next() byte {
	if len(c.data) == 0 {
		return 0
	}
	b := c.data[0]
	c.data = c.data[1:]
	return b
}

// text returns up to 7 arbitrary bytes.
func (c *choices) text() string {
	n := min(int(c.next()%8), len(c.data))
	s := string(c.data[:n])
	c.data = c.data[n:]
	return s
}

func choose[T any](c *choices, options ...T) T { return options[int(c.next())%len(options)] }

var fuzzSizes = []int{0, 1, 100, 2048, 2049, 5000, 70_000}

func newFuzzRow(shape []byte) *parityRow {
	c := &choices{shape}
	request, faulty := fuzzRequest(c)
	handler := fuzzHandler(c, faulty)
	row := &parityRow{request: request, handler: handler, client: noteInformational}
	row.timeout = 2 * time.Second // some shapes, such as Expect with EnableFullDuplex, hang in net/http
	if faulty {
		row.client = func(note func(...any), rt http.RoundTripper, req *http.Request) {
			_, err := rt.RoundTrip(req)
			note("error:", err != nil) // of the body, or that of the connection: http.Transport's select decides
		}
	}
	return row
}

// fuzzRequest returns an edit of a request, and whether its body is faulty: it fails,
// or has not the declared length.
func fuzzRequest(c *choices) (edit func(*http.Request), faulty bool) {
	method := choose(c, "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get", "M-X", "")
	path := choose(c, "/", "/a b", "//x/../y", "/%2F", "/é", "", "/v2/")
	query := choose(c, "", "a=b", "a=%zz", "é", "a=b&a=c;d")
	header := make(http.Header)
	for range c.next() % 5 {
		name := choose(c, "X-A", "x-a", "X-b", "Range", "Accept-Encoding", "User-Agent", "Connection", "Te", "Cookie", "Host", "Authorization", "Content-Length", "Content-Type", "x y", "")
		header[name] = append(header[name], choose(c, "", "close", "keep-alive", "trailers", " v ", "bytes=0-1", c.text(), c.text()))
	}
	size := choose(c, fuzzSizes...)
	length := int64(choose(c, size, size, -1, 0))
	hasBody := method != "GET" && method != "HEAD" && c.next()%4 > 0
	body := func() io.ReadCloser { return io.NopCloser(parts(strings.Repeat("x", size))) }
	expect := c.next()%8 == 7
	trailer := choose(c, "", "", "X-Trailer", "x-trailer")
	if hasBody && size >= 5000 { // of a smaller one, nothing is sent
		switch c.next() % 8 {
		case 6:
			length, faulty, expect = int64(size)+1, true, false
		case 7:
			faulty, expect = true, false
			length = int64(choose(c, size+1, -1))
			body = func() io.ReadCloser {
				return io.NopCloser(parts(strings.Repeat("x", size), errors.New("the disk failed")))
			}
		}
	}
	return func(req *http.Request) {
		req.Method, req.URL.Path, req.URL.RawQuery, req.Header = method, path, query, make(http.Header)
		maps.Copy(req.Header, header)
		if hasBody {
			req.Body, req.ContentLength = body(), length
			if expect {
				req.Header.Set("Expect", "100-continue")
			}
			if trailer != "" {
				req.Trailer = http.Header{trailer: {"value"}}
			}
		}
	}, faulty
}

// fuzzHandler returns a handler that takes some steps. The handler of a faulty body
// reads it, and waits for the end of the client: who of them is first would otherwise
// decide what the client sees.
func fuzzHandler(c *choices, faulty bool) func(func(...any), http.ResponseWriter, *http.Request) {
	readFirst := c.next()%2 == 0
	type step = func(note func(...any), w http.ResponseWriter, r *http.Request)
	var steps []step
	for range 1 + c.next()%8 {
		size := choose(c, fuzzSizes...)
		text := c.text()
		status := choose(c, 200, 100, 102, 103, 201, 204, 205, 206, 299, 304, 307, 400, 404, 417, 500, 599, 999, 99, 1000)
		name := choose(c, "X-A", "x-a", "Content-Type", "Content-Length", "Connection", "Transfer-Encoding", "Trailer", "Date", "Set-Cookie", "x y", http.TrailerPrefix+"X-T", "X-Trailer", "Location", "Etag", "Warning")
		value := choose(c, fmt.Sprint(size), "", "close", "X-Trailer", text)
		if name == "Transfer-Encoding" {
			value = choose(c, "chunked", "identity")
		}
		steps = append(steps, choose(c,
			func(note func(...any), w http.ResponseWriter, r *http.Request) { w.Header().Add(name, value) },
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				w.Header()[name] = append(w.Header()[name], value)
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) { w.Header()[name] = nil },
			func(note func(...any), w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) },
			func(note func(...any), w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) },
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				n, err := io.WriteString(w, text)
				note("write", n, err)
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				n, err := w.Write(make([]byte, size))
				note("write", n, err)
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				n, err := io.Copy(w, strings.NewReader(strings.Repeat("y", size)))
				note("copy", n, err)
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				note("flush", http.NewResponseController(w).Flush())
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				n, err := io.ReadFull(r.Body, make([]byte, size))
				note("read", n, err)
			},
			noteBody,
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				note("close", r.Body.Close())
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(w, r.Body, int64(size))
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				note("full duplex", http.NewResponseController(w).EnableFullDuplex())
			},
			func(note func(...any), w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if r.Header.Get("Expect") == "" { // else the client may still be about to send
					panic(http.ErrAbortHandler)
				}
			},
		))
	}
	return func(note func(...any), w http.ResponseWriter, r *http.Request) {
		if faulty {
			noteBodyError(func(...any) {}, w, r) // it may be called after the client's error, or not at all
			return
		}
		if len(r.Header) > 2 {
			noteHeader(note, "header", r.Header)
		}
		note(r.Method, r.URL, r.Host, r.ContentLength, r.TransferEncoding, r.Close)
		if r.Header.Get("Expect") != "" {
			// A client that waits for 100 and gets the response sends no body: to
			// read it then would wait for ever.
			if readFirst {
				noteBody(note, w, r)
			} else {
				r.Body = http.NoBody
			}
		}
		for _, step := range steps {
			step(note, w, r)
		}
		// Unless the handler reads on, it is a matter of time whether the trailer has
		// arrived with the body.
		if n, err := r.Body.Read(make([]byte, 1)); n == 0 && err == io.EOF {
			noteHeader(note, "trailer", r.Trailer)
		}
	}
}
