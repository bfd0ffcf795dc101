// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// setMethod returns an edit that sets the method.
func setMethod(method string) func(*http.Request) {
	return func(req *http.Request) { req.Method = method }
}

// respond returns a handler that sends headers, a status and a body.
func respond(status int, body string, header ...string) func(func(...any), http.ResponseWriter, *http.Request) {
	return func(note func(...any), w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header()[header[i]] = append(w.Header()[header[i]], header[i+1])
		}
		if status != 0 {
			w.WriteHeader(status)
		}
		if body != "" {
			n, err := io.WriteString(w, body)
			note("write:", n, err)
		}
	}
}

func gzipped(s string) string {
	var b strings.Builder
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	w.Close()
	return b.String()
}

func responseRows() []parityRow {
	large := strings.Repeat("0123456789", 2000)
	const transferEncoding = "HTTP/2 has no transfer encodings"
	return []parityRow{
		{name: "response_empty", handler: respond(0, "")},
		{name: "response_small", handler: respond(0, "small")},
		{name: "response_large", handler: respond(0, large)},
		{name: "response_201", handler: respond(201, "small", "Location", "/x")},
		{name: "response_redirect", handler: respond(307, "", "Location", "/x")},
		{name: "response_unknown_status", handler: respond(299, "small"), http2: "it has no reason phrase"},
		{name: "response_999", handler: respond(999, "small"), http2: "it has no reason phrase"},
		{name: "response_1000", handler: respond(1000, "small"), http2: "it resets the stream"},
		{name: "response_status_twice", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(201)
			w.WriteHeader(500)
		}},
		{name: "response_2048_bytes", handler: respond(0, large[:2048])},
		{name: "response_2049_bytes", handler: respond(0, large[:2049]), http2: "it buffers up to 4096 bytes"},
		{name: "response_flushed", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one")
			w.(http.Flusher).Flush()
			io.WriteString(w, "two")
			note(http.NewResponseController(w).Flush())
		}},
		{name: "response_flushed_first", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			io.WriteString(w, "<html>")
		}},
		{name: "response_declared", handler: respond(201, large, "Content-Length", strconv.Itoa(len(large)))},
		{name: "response_longer_than_declared", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
			n, err := io.WriteString(w, "large")
			note(n, err)
			n, err = io.WriteString(w, "r")
			note(n, err)
		}, http2: "its client finds out"},
		{name: "response_one_write_longer_than_declared", handler: respond(0, "larger", "Content-Length", "5"), http2: "its errors differ"},
		{name: "response_shorter_than_declared", handler: respond(0, "small", "Content-Length", "6")},
		{name: "response_invalid_length", handler: respond(0, "small", "Content-Length", "five"), http2: "it declares the length itself"},
		{name: "response_negative_length", handler: respond(0, "small", "Content-Length", "-5"), http2: "it declares the length itself"},
		{name: "response_ReadFrom", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(w, strings.NewReader(large))
			note(n, err)
		}},
		{name: "response_range", request: setHeaders("Range", "bytes=5-9"), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "x.txt", time.Unix(1e9, 0), strings.NewReader(large))
		}},

		{name: "HEAD", request: setMethod("HEAD"), handler: respond(0, "large", "Content-Length", "5")},
		{name: "HEAD_without_length", request: setMethod("HEAD"), handler: respond(0, "large")},
		{name: "HEAD_large", request: setMethod("HEAD"), handler: respond(0, large), http2: "another error"},
		{name: "HEAD_empty", request: setMethod("HEAD"), handler: respond(200, "")},
		{name: "HEAD_shorter_than_declared", request: setMethod("HEAD"), handler: respond(0, "small", "Content-Length", "100")},
		{name: "HEAD_404", request: setMethod("HEAD"), handler: respond(404, "nothing", "Content-Type", "text/x")},
		{name: "response_204", handler: respond(204, "")},
		{name: "response_204_with_body", handler: respond(204, "body")},
		{name: "response_204_with_length", handler: respond(204, "", "Content-Length", "4"), http2: "it passes the length on"},
		{name: "response_304", handler: respond(304, "", "Etag", `"x"`)},
		{name: "response_304_with_body", handler: respond(304, "body", "Content-Length", "4"), http2: "it passes the length on"},
		{name: "response_205", handler: respond(205, "")},

		{name: "Content-Type_HTML", handler: respond(0, "<html>")},
		{name: "Content-Type_binary", handler: respond(0, "\x00\x01")},
		{name: "Content-Type_of_two_writes", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<ht")
			io.WriteString(w, "ml>")
		}},
		{name: "Content-Type_empty_value", handler: respond(0, "<html>", "Content-Type", "")},
		{name: "Content-Type_nil", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		}},
		{name: "Content-Encoding_not_sniffed", handler: respond(0, "<html>", "Content-Encoding", "br")},
		{name: "Date_own", handler: respond(0, "x", "Date", "Thu, 01 Jan 1970 00:00:00 GMT")},
		{name: "Date_none", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) { w.Header()["Date"] = nil }},
		{name: "response_header_late", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Add("X-Many", "1")
			w.Header().Add("X-Many", "2")
			w.WriteHeader(202)
			w.Header().Set("X-Late", "late")
		}},
		{name: "response_header_in_other_letters", handler: respond(0, "x", "x-lower", "1", "X-UPPER", "2")},
		{name: "response_header_CRLF", handler: respond(0, "x", "X-A", "1\r\nX-B: 2"), http2: "its server drops the header"},
		{name: "response_header_NUL", handler: respond(0, "x", "X-A", "1\x002"), http2: "its server drops the header"},
		{name: "response_header_invalid_name", handler: respond(0, "x", "bad name", "1")},
		{name: "response_header_spaces", handler: respond(0, "x", "X-A", " 1 ", "X-B", ""), http2: "it keeps spaces"},
		{name: "response_cookies", handler: respond(0, "x", "Set-Cookie", "a=b", "Set-Cookie", "c=d")},
		{name: "response_Connection_close", handler: respond(0, large, "Connection", "close")},
		{name: "response_Transfer-Encoding_chunked", handler: respond(0, "x", "Transfer-Encoding", "chunked"), http2: transferEncoding},
		{name: "response_Transfer-Encoding_identity", handler: respond(0, "x", "Transfer-Encoding", "identity"), http2: transferEncoding},
		{name: "response_Transfer-Encoding_and_length", handler: respond(0, "x", "Transfer-Encoding", "chunked", "Content-Length", "1"), http2: transferEncoding},

		{name: "gzip", handler: respond(0, gzipped(large), "Content-Encoding", "gzip")},
		{name: "gzip_requested", request: setHeaders("Accept-Encoding", "gzip"), handler: respond(0, gzipped("x"), "Content-Encoding", "gzip")},
		{name: "gzip_of_a_range", request: setHeaders("Range", "bytes=0-"), handler: respond(206, gzipped("x"), "Content-Encoding", "gzip")},
		{name: "gzip_broken", handler: respond(0, "not gzip at all", "Content-Encoding", "gzip")},
		{name: "gzip_HEAD", request: setMethod("HEAD"), handler: respond(0, "", "Content-Encoding", "gzip", "Content-Length", "10")},

		{name: "trailer", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Trailer")
			io.WriteString(w, "body")
			w.Header().Set("X-Trailer", "value")
		}, http2: "it declares the length, too"},
		{name: "trailer_undeclared", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, large)
			w.Header().Set(http.TrailerPrefix+"X-Trailer", "value")
		}},
		{name: "trailer_of_a_small_response", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "body")
			w.Header().Set(http.TrailerPrefix+"X-Trailer", "value")
		}, http2: "it sends the trailer"},
		{name: "trailer_never_set", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Trailer")
			io.WriteString(w, "body")
		}, http2: "it declares the length, too"},
		{name: "trailer_with_length", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Trailer")
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "body")
			w.Header().Set("X-Trailer", "value")
		}, http2: "it sends the trailer"},

		{name: "informational_103", client: noteInformational, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</x>; rel=preload")
			w.WriteHeader(103)
			w.WriteHeader(103)
			w.Header().Set("X-Final", "1")
			io.WriteString(w, "body")
		}},
		{name: "informational_100", client: noteInformational, request: setBody("PUT", "body", 4), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(100)
			noteBody(note, w, r)
		}},
		{name: "informational_102_only", client: noteInformational, handler: respond(102, "")},
		{name: "response_101", request: setHeaders("Connection", "Upgrade", "Upgrade", "x"), client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			resp, err := rt.RoundTrip(req)
			if err != nil {
				note(err)
				return
			}
			defer resp.Body.Close()
			_, ok := resp.Body.(io.ReadWriteCloser)
			note(resp.Status, resp.Header.Get("Upgrade"), ok)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				w.WriteHeader(505)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		}, http2: "it cannot upgrade"},
	}
}

// noteInformational also notes the informational responses.
func noteInformational(note func(...any), rt http.RoundTripper, req *http.Request) {
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		note("informational", code, header)
		return nil
	}}
	sendAndNote(note, rt, req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
}
