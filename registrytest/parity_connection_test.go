// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// connectionRows are the exchanges in which a connection breaks, is taken over, or
// outlives what it was for.
func connectionRows() []parityRow {
	large := strings.Repeat("0123456789", 2000)
	const errorsDiffer = "its errors differ"
	waitForEnd := func(note func(...any), r *http.Request) {
		<-r.Context().Done()
		note("context:", r.Context().Err())
	}
	return []parityRow{
		{name: "abort", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, http2: errorsDiffer},
		{name: "abort_POST", request: setBody("POST", "body", 4), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, http2: errorsDiffer},
		{name: "abort_after_the_body", request: setBody("POST", large, int64(len(large))), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			noteBody(note, w, r)
			panic(http.ErrAbortHandler)
		}, http2: errorsDiffer},
		{name: "abort_unflushed", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "lost")
			panic(http.ErrAbortHandler)
		}, http2: errorsDiffer},
		{name: "abort_flushed", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "sent")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, http2: errorsDiffer},
		{name: "abort_declared", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "12345")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, http2: errorsDiffer},
		{name: "abort_large", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, large[:4096])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, http2: errorsDiffer},
		{name: "panic", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { panic("a bug") }, http2: errorsDiffer},
		{name: "retry_after_a_drop", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			// As go-containerregistry and others do it.
			for try := range 3 {
				resp, err := rt.RoundTrip(req)
				if err == nil {
					note(try, resp.Status)
					resp.Body.Close()
					return
				}
				note(try, errors.Is(err, io.EOF))
			}
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, http2: errorsDiffer},

		{name: "hijack", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			defer conn.Close()
			n, err := w.Write([]byte("x"))
			note(n, err, rw.Reader.Buffered())
			fmt.Fprint(rw, "HTTP/1.1 200 OK\r\nX-Raw: 1\r\nContent-Length: 3\r\n\r\nraw")
			rw.Flush()
		}, http2: "it has no Hijacker"},
		{name: "hijack_close", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			conn.Close()
		}, http2: "it has no Hijacker"},
		{name: "hijack_HTTP_1.0", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nuntil the end")
		}, http2: "it has no Hijacker"},
		{name: "hijack_malformed_response", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "SMTP ready\r\n\r\n")
		}, http2: "it has no Hijacker"},
		{name: "hijack_half_a_header", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nX-A: ")
		}, http2: "it has no Hijacker"},
		{name: "hijack_CloseWrite_and_deadlines", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				note(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
			_, err = rw.ReadByte()
			note(err)
			conn.SetDeadline(time.Time{})
			fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nhalf")
			note(conn.(interface{ CloseWrite() error }).CloseWrite())
			_, err = conn.Write([]byte("x"))
			note(err != nil)
		}, http2: "it has no Hijacker"},

		{name: "read_deadline", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			body, w := io.Pipe()
			defer w.Close()
			req.Method, req.Body, req.ContentLength = "PUT", body, 10
			go io.WriteString(w, "12345")
			sendAndNote(note, rt, req)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(http.NewResponseController(w).SetReadDeadline(time.Now().Add(20 * time.Millisecond)))
			noteBody(note, w, r)
			w.WriteHeader(http.StatusRequestTimeout)
		}},
		{name: "write_deadline", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second)))
			_, err := io.WriteString(w, large)
			note(err)
		}, http2: errorsDiffer},
		{name: "full_duplex", client: echoClient, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			for lines := bufio.NewScanner(r.Body); lines.Scan(); {
				fmt.Fprintln(w, strings.ToUpper(lines.Text()))
				w.(http.Flusher).Flush()
			}
		}},
		{name: "streamed_request", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			body, w := io.Pipe()
			req.Method, req.Body = "PUT", body
			go func() {
				for range 100 {
					io.WriteString(w, large)
				}
				w.Close()
			}()
			sendAndNote(note, rt, req)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			note(n, err)
		}},
		{name: "streamed_response", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				note(err)
				return
			}
			defer resp.Body.Close()
			for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
				note(lines.Text())
			}
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			for i := range 5 {
				fmt.Fprintln(w, i)
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		}},

		{name: "a_complete_body_ends_before_the_handler", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			start := time.Now()
			sendAndNote(note, rt, req)
			note("before the handler:", time.Since(start) < enough)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "large")
			w.(http.Flusher).Flush()
			time.Sleep(enough)
			note("context:", r.Context().Err())
		}, http2: "only the handler's end ends the body"},
		{name: "a_chunked_body_ends_with_the_handler", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "large")
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
			note("context:", r.Context().Err())
		}},
		{name: "closing_the_body_ends_the_context", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				note(err)
				return
			}
			note(resp.Status, resp.Body.Close())
			_, err = resp.Body.Read(make([]byte, 1))
			note(err)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			waitForEnd(note, r)
		}, http2: errorsDiffer},
		{name: "closing_the_body_fails_writes", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				note(err)
				return
			}
			io.ReadFull(resp.Body, make([]byte, 10))
			note(resp.Body.Close())
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, large); err != nil {
					note(err)
					break
				}
			}
			waitForEnd(note, r)
		}, http2: errorsDiffer},
		{name: "writes_after_the_client_has_closed", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				note(err)
				return
			}
			resp.Body.Close()
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			waitForEnd(note, r)
			for range 4 { // TCP learns of it from the first
				n, err := io.WriteString(w, large[:1000])
				note("write:", n, err, http.NewResponseController(w).Flush())
			}
		}, http2: errorsDiffer},
		{name: "context_canceled_during_the_response", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			ctx, cancel := context.WithCancel(req.Context())
			resp, err := rt.RoundTrip(req.WithContext(ctx))
			if err != nil {
				cancel()
				note(err)
				return
			}
			defer resp.Body.Close()
			cancel()
			_, err = io.ReadAll(resp.Body)
			note(err)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			waitForEnd(note, r)
		}},
		{name: "context_canceled_before_the_response", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			ctx, cancel := context.WithCancel(req.Context())
			time.AfterFunc(enough, cancel)
			sendAndNote(note, rt, req.WithContext(ctx))
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { waitForEnd(note, r) }},
		{name: "client_follows_redirects", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := (&http.Client{Transport: rt}).Do(req)
			if err != nil {
				note(err)
				return
			}
			defer resp.Body.Close()
			note(resp.Request.URL.RequestURI(), resp.Request.Header)
			noteResponse(note, resp)
		}, request: func(req *http.Request) { req.SetBasicAuth("user", "secret") }, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(r.Method, r.URL, r.Header.Get("Referer"), r.Header.Get("Authorization"))
			if r.URL.Path != "/end" {
				http.Redirect(w, r, "/end", http.StatusFound)
			}
		}},
		{name: "client_error_names_the_URL", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			_, err := (&http.Client{Transport: rt}).Do(req)
			note(strings.ReplaceAll(fmt.Sprint(err), req.URL.Host, "HOST"))
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, http2: errorsDiffer},
	}
}

// echoClient sends lines, and reads the echo of each before the next.
func echoClient(note func(...any), rt http.RoundTripper, req *http.Request) {
	body, w := io.Pipe()
	req.Method, req.Body = "POST", body
	resp, err := rt.RoundTrip(req)
	if err != nil {
		note(err)
		return
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, word := range []string{"one", "two", "three"} {
		fmt.Fprintln(w, word)
		note(lines.Scan(), lines.Text())
	}
	w.Close()
	note(lines.Scan())
}

// faultRows has a row for each fault.
func faultRows() (rows []parityRow) {
	data := strings.Repeat("0123456789", 1000)
	d := digest.FromString(data)
	for name, c := range map[string]struct {
		fault func(http.Handler) http.Handler
		http2 string
	}{
		"Reject":             {registrytest.Reject(registry.ErrDenied), ""},
		"Respond":            {registrytest.Respond(503, "try later"), ""},
		"RetryAfter":         {registrytest.RetryAfter(90 * time.Second), ""},
		"Redirect":           {registrytest.Redirect("https://other.example"), ""},
		"StaleTag":           {registrytest.StaleTag(digest.FromString("stale")), ""},
		"ExpiredToken":       {registrytest.ExpiredToken(), ""},
		"Delay":              {registrytest.Delay(time.Millisecond), ""},
		"DropRequest":        {registrytest.DropRequest(), "its errors differ"},
		"DropResponse":       {registrytest.DropResponse(), "its errors differ"},
		"Disconnect":         {registrytest.Disconnect(4567), "its errors differ"},
		"Disconnect_at_once": {registrytest.Disconnect(0), "its errors differ"},
		"Disconnect_late":    {registrytest.Disconnect(10_000), ""},
		"Truncate":           {registrytest.Truncate(4567), ""},
		"Truncate_at_once":   {registrytest.Truncate(0), ""},
		"Throttle":           {registrytest.Throttle(1_000_000), ""},
		"Corrupt":            {registrytest.Corrupt(), ""},
		"WrongDigest":        {registrytest.WrongDigest(digest.FromString("other")), ""},
	} {
		for _, reference := range []string{"blobs/" + string(d), "manifests/tag"} {
			store := new(registry.MemStore)
			if err := registry.PushBlob(context.Background(), store, "a", d, strings.NewReader(data)); err != nil {
				panic(err)
			}
			m := registry.ManifestPush{MediaType: "text/plain", Content: []byte(data), Tags: []string{"tag"}}
			if _, err := registry.PushManifest(context.Background(), store, "a", m); err != nil {
				panic(err)
			}
			h := c.fault(registry.New(registry.WithStore(store)))
			rows = append(rows, parityRow{
				name:    "fault_" + name + "_" + strings.ReplaceAll(reference[:4], "/", ""),
				request: func(req *http.Request) { req.URL.Path, req.URL.RawPath = "/v2/a/"+reference, "" },
				handler: func(_ func(...any), w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) },
				http2:   c.http2,
			})
		}
	}
	return rows
}
