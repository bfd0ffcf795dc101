// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// noteRequest notes all of a request.
func noteRequest(note func(...any), w http.ResponseWriter, r *http.Request) {
	note(r.Method, r.URL, r.RequestURI, r.ContentLength, "host", r.Host)
	note("protocol:", r.Proto, r.ProtoMajor, r.ProtoMinor, r.TransferEncoding, r.Close, r.TLS != nil)
	note("path", r.URL.Path, r.URL.RawPath, r.URL.Host, r.URL.Scheme, r.URL.Fragment, r.URL.User)
	_, _, err := net.SplitHostPort(r.RemoteAddr)
	note("remote address", err)
	noteHeader(note, "header", r.Header)
	noteBody(note, w, r)
	noteHeader(note, "trailer", r.Trailer)
}

func noteBody(note func(...any), _ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if len(body) > 100 {
		note("body:", len(body), "bytes", err)
		return
	}
	note("body:", string(body), err)
}

// noteBodyError notes whether the body ended early, and not how much arrived, which
// is a matter of time. If the body seems complete, it waits for the client's end,
// since a response could precede the client's error.
func noteBodyError(note func(...any), _ http.ResponseWriter, r *http.Request) {
	_, err := io.Copy(io.Discard, r.Body)
	note("body:", err)
	if err == nil {
		<-r.Context().Done()
	}
}

// setBody returns an edit that sets the method, the body and its length.
func setBody(method, body string, length int64) func(*http.Request) {
	return func(req *http.Request) {
		req.Method, req.Body, req.ContentLength = method, io.NopCloser(strings.NewReader(body)), length
	}
}

// setHeaders returns an edit that sets headers, spelled as given.
func setHeaders(pairs ...string) func(*http.Request) {
	return func(req *http.Request) {
		for i := 0; i < len(pairs); i += 2 {
			req.Header[pairs[i]] = append(req.Header[pairs[i]], pairs[i+1])
		}
	}
}

// editAll returns an edit that makes all of edits.
func editAll(edits ...func(*http.Request)) func(*http.Request) {
	return func(req *http.Request) {
		for _, edit := range edits {
			edit(req)
		}
	}
}

type contextKey struct{}

// parts is a body that consists of several reads, and may end with an error.
func parts(texts ...any) io.Reader {
	var readers []io.Reader
	for _, text := range texts {
		switch text := text.(type) {
		case string:
			readers = append(readers, strings.NewReader(text))
		case error:
			readers = append(readers, failingReader{text})
		}
	}
	return io.MultiReader(readers...)
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func requestRows() []parityRow {
	large := strings.Repeat("0123456789", 2000)
	diskFailed := errors.New("the disk failed")
	return []parityRow{
		{name: "request", handler: noteRequest},
		{name: "request_https", tls: true, handler: noteRequest},
		{name: "request_userinfo_and_fragment", handler: noteRequest, request: func(req *http.Request) {
			req.URL.User, req.URL.Fragment = url.UserPassword("user", "secret"), "fragment"
		}},
		{name: "request_encoded_path", handler: noteRequest, request: func(req *http.Request) {
			req.URL.Path, req.URL.RawPath, req.URL.RawQuery = "//a/b/../c d", "//a%2Fb/../c%20d", "q=%zz&x=a+b"
		}},
		{name: "request_opaque_URL", handler: noteRequest, request: func(req *http.Request) {
			req.URL.Opaque = "//" + req.URL.Host + "/opaque%2fpath"
		}, http2: "the handler gets a path"},
		{name: "request_force_query", handler: noteRequest, request: func(req *http.Request) { req.URL.RawQuery, req.URL.ForceQuery = "", true }},
		{name: "request_control_character_in_query", handler: noteRequest, request: func(req *http.Request) { req.URL.RawQuery = "a\nb" }, client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			ctx, cancel := context.WithTimeout(req.Context(), enough)
			defer cancel()
			sendAndNote(note, rt, req.WithContext(ctx))
		}, http2: "its client waits until the context ends"},
		{name: "host_header", handler: noteRequest, request: func(req *http.Request) { req.Host = "other.example:5000" }},
		{name: "host_in_header_map", handler: noteRequest, request: setHeaders("Host", "ignored.example")},
		{name: "host_invalid", handler: noteRequest, request: func(req *http.Request) { req.Host = "a b" }, http2: "its client rejects it"},
		{name: "no_host", request: func(req *http.Request) { req.URL.Host = "" }},
		{name: "no_URL", request: func(req *http.Request) { req.URL = nil }},
		{name: "no_header", request: func(req *http.Request) { req.Header = nil }},
		{name: "ftp", request: func(req *http.Request) { req.URL.Scheme = "ftp" }},
		{name: "no_scheme", request: func(req *http.Request) { req.URL.Scheme = "" }},
		{name: "method_empty", handler: noteRequest, request: func(req *http.Request) { req.Method = "" }},
		{name: "method_in_lower_case", handler: noteRequest, request: func(req *http.Request) { req.Method = "get" }},
		{name: "method_invalid", request: func(req *http.Request) { req.Method = "BAD METHOD" }},
		{name: "method_unknown", handler: noteRequest, request: func(req *http.Request) { req.Method = "FROB" }},
		{name: "OPTIONS_asterisk", request: func(req *http.Request) {
			req.Method, req.URL.Opaque, req.URL.RawQuery = "OPTIONS", "*", ""
		}},
		{name: "version_is_ignored", handler: noteRequest, request: func(req *http.Request) {
			req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.0", 1, 0
		}},

		{name: "header_name_in_other_letters", handler: noteRequest, request: setHeaders("x-lower", "1", "X-UPPER", "2", "x-Mixed", "3")},
		{name: "header_name_twice_in_other_letters", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(len(r.Header["X-Twice"]))
		}, request: setHeaders("x-twice", "1", "X-Twice", "2")},
		{name: "header_name_invalid", handler: noteRequest, request: setHeaders("bad name", "1")},
		{name: "header_name_empty", handler: noteRequest, request: setHeaders("", "1")},
		{name: "header_value_CRLF", handler: noteRequest, request: setHeaders("X-A", "1\r\nX-B: 2")},
		{name: "header_value_NUL", handler: noteRequest, request: setHeaders("X-A", "1\x002")},
		{name: "header_value_spaces", handler: noteRequest, request: setHeaders("X-A", "  1 \t", "X-B", ""), http2: "it keeps spaces"},
		{name: "header_value_Latin_1", handler: noteRequest, request: setHeaders("X-A", "\xe9", "X-B", "é")},
		{name: "header_values", handler: noteRequest, request: setHeaders("X-A", "1", "X-A", "2", "Cookie", "a=b", "Cookie", "c=d"), http2: "it joins cookies"},
		{name: "header_nil_values", handler: noteRequest, request: func(req *http.Request) { req.Header["X-A"] = nil }},
		{name: "header_User-Agent", handler: noteRequest, request: setHeaders("User-Agent", "me/1.0")},
		{name: "header_User-Agent_empty", handler: noteRequest, request: setHeaders("User-Agent", "")},
		{name: "header_Accept-Encoding", handler: noteRequest, request: setHeaders("Accept-Encoding", "zstd")},
		{name: "header_Content-Length_is_ignored", handler: noteRequest, request: editAll(setBody("PUT", "body", 4), setHeaders("Content-Length", "9"))},
		{name: "header_Connection_close", handler: noteRequest, request: setHeaders("Connection", "close"), http2: "it has no Connection header"},
		{name: "request_Close", handler: noteRequest, request: func(req *http.Request) { req.Close = true }, http2: "it has no Connection header"},
		{name: "header_Upgrade", handler: noteRequest, request: setHeaders("Connection", "Upgrade", "Upgrade", "x"), http2: "it cannot upgrade"},
		{name: "header_too_large", handler: noteRequest, request: setHeaders("X-A", strings.Repeat("x", 1_100_000)), http2: "it reports the limit in another way"},

		{name: "body", handler: noteRequest, request: setBody("PUT", "body", 4)},
		{name: "body_large", handler: noteRequest, request: setBody("PUT", large, int64(len(large)))},
		{name: "body_of_unknown_length", handler: noteRequest, request: setBody("PUT", large, -1)},
		{name: "body_of_length_0", handler: noteRequest, request: setBody("PUT", large, 0)},
		{name: "body_empty_of_unknown_length", handler: noteRequest, request: setBody("GET", "", -1), http2: "it does not probe the body"},
		{name: "body_empty_of_unknown_length_PUT", handler: noteRequest, request: setBody("PUT", "", -1)},
		{name: "body_of_a_GET", handler: noteRequest, request: setBody("GET", "body", 4)},
		{name: "body_of_a_DELETE_of_unknown_length", handler: noteRequest, request: setBody("DELETE", "body", -1)},
		{name: "body_none_POST", handler: noteRequest, request: func(req *http.Request) { req.Method = "POST" }},
		{name: "body_NoBody_PUT", handler: noteRequest, request: func(req *http.Request) { req.Method, req.Body = "PUT", http.NoBody }},
		{name: "body_none_but_a_length", request: func(req *http.Request) { req.Method, req.ContentLength = "PUT", 5 }, http2: "it sends the length"},
		{late: true, name: "body_longer_than_its_length", handler: noteBodyError, request: setBody("PUT", large+"x", int64(len(large))), http2: "it resets the stream"},
		{late: true, name: "body_shorter_than_its_length", handler: noteBodyError, request: setBody("PUT", large, int64(len(large)+1)), http2: "it resets the stream"},
		{late: true, name: "body_fails", handler: noteBodyError, request: func(req *http.Request) {
			req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(parts(large, diskFailed)), int64(len(large)+1)
		}, http2: "it resets the stream"},
		{late: true, name: "body_of_unknown_length_fails", handler: noteBodyError, request: func(req *http.Request) {
			req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(parts(large, diskFailed)), -1
		}, http2: "it resets the stream"},
		{name: "body_fails_at_once", request: func(req *http.Request) {
			req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(parts(diskFailed)), -1
		}},
		{name: "body_read_byte_by_byte", request: setBody("PUT", "body", 4), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			for range 6 {
				n, err := r.Body.Read(make([]byte, 1))
				note(n, err)
			}
		}, http2: "the end comes with a read of its own"},
		{name: "body_read_after_close", request: setBody("PUT", "body", 4), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(r.Body.Close())
			_, err := r.Body.Read(make([]byte, 1))
			note(err)
		}, http2: "another error"},
		{name: "body_read_without_one", handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			n, err := r.Body.Read(make([]byte, 1))
			note(n, err, r.Body == http.NoBody)
		}, http2: "its body is not http.NoBody"},
		{name: "body_read_after_the_response", request: setBody("PUT", large, int64(len(large))), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			w.(http.Flusher).Flush()
			noteBody(note, w, r)
		}, http2: "the body can be read after the response"},
		{name: "body_unread", request: setBody("PUT", "body", 4), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}},
		{name: "body_unread_large", request: setBody("PUT", strings.Repeat(large, 50), 50*int64(len(large))), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}},
		{name: "body_MaxBytesReader", request: setBody("PUT", large, int64(len(large))), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 10)
			noteBody(note, w, r)
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}},

		{name: "Expect", request: editAll(setHeaders("Expect", "100-continue"), setBody("PUT", "body", 4)), handler: noteRequest, http2: "it passes the header on"},
		{name: "Expect_unread", request: editAll(setHeaders("Expect", "100-continue"), func(req *http.Request) {
			req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(parts(diskFailed)), 10
		}), handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusExpectationFailed)
		}},
		{name: "Expect_something_else", request: editAll(setHeaders("Expect", "the unexpected"), setBody("PUT", "body", 4)), handler: noteRequest,
			http2: "it passes the header on"},

		{name: "request_trailer", request: editAll(setBody("PUT", "body", -1), func(req *http.Request) {
			req.Trailer = http.Header{"X-Trailer": {"value"}}
		}), handler: noteRequest},
		{name: "request_trailer_of_a_known_length", request: editAll(setBody("PUT", "body", 4), func(req *http.Request) {
			req.Trailer = http.Header{"X-Trailer": {"value"}}
		}), handler: noteRequest, http2: "it has trailers with a length"},
		{name: "context_values", request: func(req *http.Request) {
			*req = *req.WithContext(context.WithValue(req.Context(), contextKey{}, "the client's"))
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			note(r.Context().Value(contextKey{}))
			_, server := r.Context().Value(http.ServerContextKey).(*http.Server)
			_, addr := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
			_, deadline := r.Context().Deadline()
			note(server, addr, deadline, r.Context().Err())
		}},
		{name: "context_ended_before", request: func(req *http.Request) {
			ctx, cancel := context.WithCancel(req.Context())
			cancel()
			*req = *req.WithContext(ctx)
		}},
		{name: "context_canceled_with_a_cause", request: func(req *http.Request) {
			ctx, cancel := context.WithCancelCause(req.Context())
			cancel(diskFailed)
			*req = *req.WithContext(ctx)
		}},
		{name: "context_timeout", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			ctx, cancel := context.WithTimeout(req.Context(), enough)
			defer cancel()
			sendAndNote(note, rt, req.WithContext(ctx))
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			note(r.Context().Err())
		}},
		{name: "context_timeout_of_the_client", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			client := &http.Client{Transport: rt, Timeout: enough}
			_, err := client.Do(req)
			note(err)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			note(r.Context().Err())
		}},
		{late: true, name: "context_canceled_during_the_request", client: func(note func(...any), rt http.RoundTripper, req *http.Request) {
			ctx, cancel := context.WithCancel(req.Context())
			body, w := io.Pipe()
			go func() {
				io.WriteString(w, large)
				cancel()
				w.Close()
			}()
			req = req.WithContext(ctx)
			req.Method, req.Body, req.ContentLength = "PUT", body, int64(2*len(large))
			resp, err := rt.RoundTrip(req)
			note(resp == nil, err != nil)
		}, handler: func(note func(...any), w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			note(err != nil)
			<-r.Context().Done()
			note(r.Context().Err())
		}},
	}
}
