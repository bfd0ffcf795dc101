// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestTransportLikeServer sends requests over loopback and in process, and checks
// that the handler and the client see no difference.
func TestTransportLikeServer(t *testing.T) {
	for _, c := range []struct {
		name    string
		method  string
		body    io.Reader
		handler http.HandlerFunc
	}{
		{name: "empty", handler: func(w http.ResponseWriter, r *http.Request) {}},
		{name: "small", handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "small") }},
		{name: "large", handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("large", 10_000)) }},
		{name: "flushed", handler: func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one")
			w.(http.Flusher).Flush()
			io.WriteString(w, "two")
		}},
		{name: "declared", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(201)
			io.WriteString(w, "large")
			_, err := io.WriteString(w, "r")
			if !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		}},
		{name: "HEAD", method: "HEAD", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "large")
		}},
		{name: "no_content", handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }},
		{name: "not_modified", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(304)
		}},
		{name: "late_header", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("X-Many", "1")
			w.Header().Add("X-Many", "2")
			w.WriteHeader(202)
			w.(http.Flusher).Flush()
			w.Header().Set("X-Late", "late")
		}},
		{name: "request", method: "PUT", body: strings.NewReader("body"), handler: func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			fmt.Fprintln(w, r.Method, r.URL, r.RequestURI, r.Proto, r.ContentLength, r.TransferEncoding, string(body), err)
		}},
		{name: "request_of_unknown_length", method: "PUT", body: io.MultiReader(strings.NewReader("body")), handler: func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			fmt.Fprintln(w, r.ContentLength, r.TransferEncoding, string(body), err)
		}},
		{name: "unread_request", method: "PUT", body: strings.NewReader("body"), handler: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(403)
		}},
		{name: "read_without_body", method: "POST", handler: func(w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(make([]byte, 1))
			fmt.Fprintln(w, r.ContentLength, n, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			exchange := func(client *http.Client) string {
				if seeker, ok := c.body.(io.Seeker); ok {
					seeker.Seek(0, io.SeekStart)
				} else if c.body != nil {
					c.body = io.MultiReader(strings.NewReader("body"))
				}
				req, err := http.NewRequest(c.method, s.URL+"/a%20b?c=d#e", c.body)
				qt.Assert(t, qt.IsNil(err))
				resp, err := client.Do(req)
				qt.Assert(t, qt.IsNil(err))
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				resp.Header.Del("Date")
				var headers []string
				for _, k := range slices.Sorted(maps.Keys(resp.Header)) {
					headers = append(headers, fmt.Sprint(k, resp.Header[k]))
				}
				return fmt.Sprintln(resp.Status, resp.Proto, resp.ContentLength, headers, string(body), err)
			}
			qt.Check(t, qt.Equals(exchange(&http.Client{Transport: registrytest.Transport(c.handler)}), exchange(s.Client())))
		})
	}
}

// do sends a request in process.
func do(t *testing.T, h http.HandlerFunc, method string, body io.Reader) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://any.example/v2/", body)
	qt.Assert(t, qt.IsNil(err))
	return registrytest.Transport(h).RoundTrip(req)
}

func TestTransportAbortedResponses(t *testing.T) {
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard)
	_, err := do(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "GET", nil)
	qt.Check(t, qt.ErrorIs(err, io.EOF)) // as over loopback; see TestParity
	_, err = do(t, func(http.ResponseWriter, *http.Request) { panic("a bug") }, "GET", nil)
	qt.Check(t, qt.ErrorIs(err, io.EOF)) // as over loopback; see TestParity

	for name, end := range map[string]func(){
		"short":   func() {},
		"aborted": func() { panic(http.ErrAbortHandler) },
	} {
		resp, err := do(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "12345")
			w.(http.Flusher).Flush()
			end()
		}, "GET", nil)
		qt.Assert(t, qt.IsNil(err))
		got, err := io.ReadAll(resp.Body)
		qt.Check(t, qt.Equals(string(got), "12345"))
		qt.Check(t, qt.ErrorIs(err, io.ErrUnexpectedEOF), qt.Commentf("%s", name))
		resp.Body.Close()
	}
}

// errReader is a body whose source fails.
type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the disk failed") }

// TestTransportAbortedRequests checks that neither side takes a request for complete
// whose body is too short or breaks off.
func TestTransportAbortedRequests(t *testing.T) {
	for name, c := range map[string]struct {
		body io.Reader
		err  string
	}{
		"short":  {io.LimitReader(strings.NewReader(strings.Repeat("x", 10_000)), 9_999), ".*ContentLength=10000 with Body length 9999.*"},
		"failed": {io.MultiReader(strings.NewReader(strings.Repeat("x", 9_000)), errReader{}), ".*the disk failed.*"},
	} {
		for _, length := range []int64{10_000, -1} {
			if name == "short" && length < 0 {
				continue
			}
			req, _ := http.NewRequest("PUT", "http://any.example/", c.body)
			req.ContentLength = length
			got := make(chan error, 1)
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				got <- err
			})
			_, err := registrytest.Transport(h).RoundTrip(req)
			qt.Check(t, qt.ErrorMatches(err, c.err))
			qt.Check(t, qt.ErrorIs(<-got, io.ErrUnexpectedEOF), qt.Commentf("%s", name))
			break
		}
	}
	_, err := registrytest.Transport(http.NotFoundHandler()).RoundTrip(&http.Request{})
	qt.Check(t, qt.ErrorMatches(err, ".*nil Request.URL.*"))
}

// TestTransportStreams sends lines back and forth; each side waits for the other.
func TestTransportStreams(t *testing.T) {
	r, w := io.Pipe()
	resp, err := do(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // as HTTP/1.1 needs
		w.(http.Flusher).Flush()                         // the response precedes the request's body
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			fmt.Fprintln(w, strings.ToUpper(lines.Text()))
			w.(http.Flusher).Flush()
		}
	}, "POST", r)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, word := range []string{"one", "two", "three"} {
		fmt.Fprintln(w, word)
		qt.Assert(t, qt.IsTrue(lines.Scan()))
		qt.Check(t, qt.Equals(lines.Text(), strings.ToUpper(word)))
	}
	w.Close()
	qt.Check(t, qt.IsFalse(lines.Scan()))
}

// TestTransportUnreadBody checks that with "Expect: 100-continue" the transport reads
// the request's body only if the handler does.
func TestTransportUnreadBody(t *testing.T) {
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://any.example/", errReader{})
	qt.Assert(t, qt.IsNil(err))
	req.Header.Set("Expect", "100-continue")
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(417) })
	resp, err := registrytest.Transport(h).RoundTrip(req)
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 417))
}

func TestTransportCancellation(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"before_the_response": func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"while_reading":       func(w http.ResponseWriter, r *http.Request) { io.ReadAll(r.Body) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			started, returned, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			body, _ := io.Pipe()
			req, _ := http.NewRequestWithContext(ctx, "PUT", "http://any.example/", body)
			go func() {
				<-started
				cancel()
			}()
			_, err := registrytest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(started)
				h(w, r)
				<-returned // a response at this moment could be received after all
				close(ended)
			})).RoundTrip(req)
			close(returned)
			qt.Check(t, qt.ErrorIs(err, context.Canceled))
			<-ended
		})
	}

	// A client that closes the body seems to the handler to have disconnected.
	ended := make(chan error)
	resp, err := do(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 10_000)); err != nil {
				<-r.Context().Done()
				ended <- err
				return
			}
		}
	}, "GET", nil)
	qt.Assert(t, qt.IsNil(err))
	io.ReadFull(resp.Body, make([]byte, 10))
	resp.Body.Close()
	qt.Check(t, qt.IsNotNil(<-ended))

	// If the context ends while the client reads the body, it gets the context's
	// error.
	ctx, cancel := context.WithCancel(t.Context())
	read := make(chan struct{})
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://any.example/", nil)
	resp, err = registrytest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		<-read // the end of the response could be received after all
	})).RoundTrip(req)
	qt.Assert(t, qt.IsNil(err))
	cancel()
	_, err = io.ReadAll(resp.Body)
	close(read)
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
	resp.Body.Close()
}

// TestTransportRegistry pushes and pulls a blob that is sent in many writes.
func TestTransportRegistry(t *testing.T) {
	client := &http.Client{Transport: registrytest.Transport(registry.New())}
	data := strings.Repeat("0123456789", 500_000)
	d := digest.FromString(data).String()
	resp, err := client.Post("https://registry.example/v2/a/blobs/uploads/?digest="+d, "application/octet-stream", strings.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 201))
	resp, err = client.Get("https://registry.example/v2/a/blobs/" + d)
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(digest.FromBytes(got).String(), d))
}
