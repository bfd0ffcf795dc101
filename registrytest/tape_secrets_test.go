// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/registrytest"
)

// TestTapeSecrets plants a secret in a request or response, and checks how it is
// recorded.
func TestTapeSecrets(t *testing.T) {
	const secret = "Planted/S3cret+value=="
	pair := base64.StdEncoding.EncodeToString([]byte("alice:" + secret))
	for _, test := range []struct {
		name    string
		request string // method, path, and body
		header  [2]string
		handler http.HandlerFunc
		opts    registrytest.TapeOptions
		want    string // of the exchange on tape
		err     string // the reason why there is no tape
	}{
		{
			name:    "basic_auth_echoed",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", secret) },
			want:    "> GET https://registry.example/v2/x\n> Authorization: Basic\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| hello redacted\n",
		},
		{
			name:    "bearer",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", "Bearer " + secret},
			handler: func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q %s", secret, url.QueryEscape(secret)) },
			want:    "> GET https://registry.example/v2/x\n> Authorization: Bearer\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| \"redacted\" redacted\n",
		},
		{
			name:    "encoded",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintln(w, url.QueryEscape(secret), strings.NewReplacer("%2F", "%2f", "%2B", "%2b", "%3D", "%3d").Replace(url.QueryEscape(secret)))
				fmt.Fprintln(w, url.PathEscape(secret), html.EscapeString(secret), strings.ReplaceAll(secret, "/", `\/`))
				fmt.Fprintln(w, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)), pair)
			},
			want: "> GET https://registry.example/v2/x\n> Authorization: Basic\n< 200\n< Content-Type: text/plain; charset=utf-8\n" +
				"<| redacted redacted\n<| redacted redacted redacted\n<| redacted redacted redacted\n<|\n",
		},
		{
			name:    "escaped_in_json",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, `{"error":["%s"]}`, strings.NewReplacer("=", `\u003d`, "+", `\u002B`).Replace(secret))
			},
			want: "> GET https://registry.example/v2/x\n> Authorization: Basic\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| {\"error\":[\"redacted\"]}\n",
		},
		{
			name:    "in_public_parameters",
			request: "GET /x?scope=" + url.QueryEscape(secret) + "&" + url.QueryEscape(secret) + "=1",
			header:  [2]string{"Authorization", "Basic " + pair},
			want:    "> GET https://registry.example/x?redacted=redacted&scope=redacted\n> Authorization: Basic\n< 200\n",
		},
		{
			name:    "truncated_token",
			request: "GET /token",
			handler: func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, `{"token":"`+secret+`","refresh_token":"eyJhbGciOiJub25lIn0.e30`)
			},
			want: "> GET https://registry.example/token\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| {\"token\":\"redacted\",\"refresh_token\":\"redacted\n",
		},
		{
			name:    "unknown_scheme",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", secret},
			want:    "> GET https://registry.example/v2/x\n> Authorization: unknown\n< 200\n",
		},
		{
			name:    "cookie",
			request: "GET /v2/x",
			header:  [2]string{"Cookie", "session=" + secret},
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Set-Cookie", "session="+secret+"2; Path=/")
				w.Header().Set("Warning", `299 - "`+secret+`2"`)
			},
			want: "> GET https://registry.example/v2/x\n< 200\n< Warning: 299 - \"redacted\"\n",
		},
		{
			name:    "unknown_header",
			request: "GET /v2/x",
			header:  [2]string{"X-Api-Token", secret},
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Session", secret)
				io.WriteString(w, secret)
			},
			want: "> GET https://registry.example/v2/x\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| redacted\n",
		},
		{
			name:    "token_response",
			request: "GET /token?account=alice&service=s&scope=repository:b:push,pull&scope=repository:a:pull&password=" + url.QueryEscape(secret),
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"token":%q,"access_token":"short","expires_in":300,"issued_at":"2026-01-01T00:00:00Z","other":[{"Client-Secret":%q}]}`, secret+"1", secret+"2")
			},
			want: "> GET https://registry.example/token?account=alice&password=redacted&scope=repository:a:pull&scope=repository:b:pull,push&service=s\n< 200\n< Content-Type: application/json\n" +
				`<| {"access_token":"redacted","expires_in":300,"other":[{"Client-Secret":"redacted"}],"token":"redacted"}` + "\n",
		},
		{
			name:    "token_form",
			request: "POST /token grant_type=password&username=alice&password=" + url.QueryEscape(secret) + "&refresh_token=short",
			header:  [2]string{"Content-Type", "application/x-www-form-urlencoded"},
			handler: func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "no such password: ", secret) },
			want: "> POST https://registry.example/token\n> Content-Type: application/x-www-form-urlencoded\n>| grant_type=password&password=redacted&refresh_token=redacted&username=alice\n" +
				"< 200\n< Content-Type: text/plain; charset=utf-8\n<| no such password: redacted\n",
		},
		{
			name:    "json_login",
			request: `POST /v2/users/login {"username":"alice","password":"` + secret + `"}`,
			header:  [2]string{"Content-Type", "application/json"},
			want:    "> POST https://registry.example/v2/users/login\n> Content-Type: application/json\n>| {\"password\":\"redacted\",\"username\":\"alice\"}\n< 200\n",
		},
		{
			name:    "multipart",
			request: "POST /x --3a1f5b9c2d\n\nx\n--3a1f5b9c2d--",
			header:  [2]string{"Content-Type", "multipart/form-data; boundary=3a1f5b9c2d"},
			want:    "> POST https://registry.example/x\n> Content-Type: multipart/form-data; boundary=boundary\n>| --boundary\n>|\n>| x\n>| --boundary--\n< 200\n",
		},
		{
			name:    "jwt_in_text",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "got eyJhbGciOiJub25lIn0.e30.c2ln") },
			want:    "> GET https://registry.example/v2/x\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| got redacted\n",
		},
		{
			name:    "signed_redirect",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://storage.example/b?X-Amz-Date=20260101T000000Z&X-Amz-Signature="+url.QueryEscape(secret)+"&n=1", http.StatusTemporaryRedirect)
			},
			want: "> GET https://registry.example/v2/x\n< 307\n< Content-Type: text/html; charset=utf-8\n< Location: https://storage.example/b?X-Amz-Date=redacted&X-Amz-Signature=redacted&n=1\n",
		},
		{
			name:    "url_in_text",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprintf(w, `{"url":"https://alice:%s@storage.example/b?sig=%s&amp;se=soon"}`, "pw", url.QueryEscape(secret))
			},
			want: "> GET https://registry.example/v2/x\n< 200\n< Content-Type: text/plain; charset=utf-8\n<| {\"url\":\"https://storage.example/b?se=redacted&sig=redacted\"}\n",
		},
		{
			name:    "link_and_realm",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", `</v2/x?n=1&last=b&next_token=`+url.QueryEscape(secret)+`>; rel="next"`)
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://u:`+url.QueryEscape(secret)+`@auth.example/token?k=v",service="s",scope="repository:a:push,pull repository:b:pull"`)
				w.WriteHeader(http.StatusUnauthorized)
			},
			want: "> GET https://registry.example/v2/x\n< 401\n< Link: </v2/x?last=b&n=1&next_token=redacted>; rel=\"next\"\n" +
				"< Www-Authenticate: Bearer realm=\"https://auth.example/token?k=redacted\",service=\"s\",scope=\"repository:a:pull,push repository:b:pull\"\n",
		},
		{
			name:    "realm_without_url",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("WWW-Authenticate", `Basic realm="Registry Realm"`)
				w.WriteHeader(http.StatusUnauthorized)
			},
			want: "> GET https://registry.example/v2/x\n< 401\n< Www-Authenticate: Basic realm=\"Registry Realm\"\n",
		},
		{
			name:    "upload_state",
			request: "POST /v2/x/blobs/uploads/",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "https://registry.example/v2/x/blobs/uploads/5b?_state="+url.QueryEscape(secret))
				w.Header().Set("Docker-Upload-UUID", secret)
				w.WriteHeader(http.StatusAccepted)
			},
			want: "> POST https://registry.example/v2/x/blobs/uploads/\n< 202\n< Docker-Upload-Uuid: redacted\n< Location: https://registry.example/v2/x/blobs/uploads/UPLOAD?_state=redacted\n",
		},
		{
			name:    "times_and_ids",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				for _, name := range []string{"Date", "Age", "Last-Modified", "X-Request-Id", "X-Amz-Cf-Id", "Server", "Retry-After"} {
					w.Header().Set(name, "Mon, 02 Jan 2026 15:04:05 GMT")
				}
				w.WriteHeader(http.StatusTooManyRequests)
			},
			want: "> GET https://registry.example/v2/x\n< 429\n",
		},
		{
			name:    "path",
			request: "GET /v2/" + url.PathEscape(secret) + "/x",
			opts:    registrytest.TapeOptions{Secrets: []string{secret}},
			want:    "> GET https://registry.example/v2/redacted/x\n< 200\n",
		},
		{
			name:    "binary",
			request: "GET /v2/x",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "\x00%s", secret) },
			want:    "> GET https://registry.example/v2/x\n> Authorization: Basic\n< 200\n< Content-Type: application/octet-stream\n<= sha256:5115473512b6f9372a7f91c4918cd20fa8e00a655ad14f2c3feeb3de4ae6510f 9\n",
		},
		{
			name:    "compressed",
			request: "GET /v2/x",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "br")
				io.WriteString(w, "compressed")
			},
			err: "registrytest: the tape .* is not written: GET https://registry.example/v2/x: the response is encoded by br, .*",
		},
		{
			name:    "in_manifest",
			request: "PUT /v2/x/manifests/v1 {\"annotations\":{\"password\":\"" + secret + "\"}}",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusCreated) },
			err:     "registrytest: the tape .* is not written: blobs/sha256/.* contains a secret: a password",
		},
		{
			name:    "in_large_blob",
			request: "GET /v2/x/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
			header:  [2]string{"Authorization", "Basic " + pair},
			handler: func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, strings.Repeat("x", 2<<20-5)+secret+strings.Repeat("x", 1<<20))
			},
			err: "registrytest: the tape .* is not written: blobs/sha256/.* contains a secret: a password",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "tape")
			method, rest, _ := strings.Cut(test.request, " ")
			path, body, _ := strings.Cut(rest, " ")
			h := test.handler
			if h == nil {
				h = func(http.ResponseWriter, *http.Request) {}
			}
			test.opts.Transport = registrytest.Transport(h)
			send := func(rt http.RoundTripper) {
				req, err := http.NewRequest(method, "https://registry.example"+path, strings.NewReader(body))
				qt.Assert(t, qt.IsNil(err))
				if test.header[0] != "" {
					req.Header.Set(test.header[0], test.header[1])
				}
				resp, err := rt.RoundTrip(req)
				qt.Assert(t, qt.IsNil(err))
				resp.Body.Close() // without reading it
			}
			errors, _ := runFake(func(tb testing.TB) {
				send(registrytest.Record(tb, "https://registry.example", dir, &test.opts))
			})
			if test.err != "" {
				qt.Check(t, qt.Matches(strings.Join(errors, "\n"), test.err))
				qt.Check(t, qt.HasLen(readFiles(t, filepath.Dir(dir)), 0))
				return
			}
			qt.Assert(t, qt.HasLen(errors, 0))
			files := readFiles(t, dir)
			qt.Check(t, qt.Equals(files["tape.txt"], "registrytest tape 1\nregistry https://registry.example\n\n"+test.want))
			for name, data := range files {
				qt.Check(t, qt.IsFalse(strings.Contains(data, secret)), qt.Commentf("%s", name))
			}
			errors, _ = runFake(func(tb testing.TB) {
				send(registrytest.Replay(tb, os.DirFS(dir), &test.opts))
			})
			qt.Check(t, qt.HasLen(errors, 0))
		})
	}
}

// TestReplayMalformed opens tapes that were edited by mistake.
func TestReplayMalformed(t *testing.T) {
	const head = "registrytest tape 1\nregistry https://registry.example\n\n"
	const blob = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, test := range []struct{ name, tape, err string }{
		{"missing", "", "there is no tape: open tape.txt: file does not exist; see OpenTape"},
		{"version", "registrytest tape 2\n", `tape.txt:1: the first line is not "registrytest tape 1"`},
		{"first_line_only", "registrytest tape 1\n", "tape.txt ends too early: the first two lines are missing"},
		{"no_registry", "registrytest tape 1\n\n", `tape.txt:2: the second line does not begin with "registry "`},
		{"registry", "registrytest tape 1\nregistry ftp://x\n", "tape.txt:2: the registry is not a URL like https://registry.example: the scheme must be http or https"},
		{"registry_path", "registrytest tape 1\nregistry https://x/y\n", "tape.txt:2: the registry is not a URL like https://registry.example: it has a path"},
		{"line_feed", head + "> GET https://x/", "tape.txt:4: the line feed is missing"},
		{"crlf", "registrytest tape 1\r\n", `tape.txt:1: the line ends in CR LF: exempt tapes from conversions of git with "-text" in .gitattributes`},
		{"response_first", head + "< 200\n", `tape.txt:4: an exchange must begin with "> " and the request`},
		{"no_response", head + "> GET https://x/\n", "tape.txt ends too early: the exchange has no response"},
		{"no_response_before_next", head + "> GET https://x/\n\n> GET https://x/\n< 200\n", "tape.txt:5: the exchange has no response"},
		{"relative", head + "> GET /v2/\n", `tape.txt:4: "/v2/" is not an absolute URL`},
		{"no_url", head + "> GET\n", "tape.txt:4: a request must be a method and a URL"},
		{"lower_case_method", head + "> get https://x/\n", "tape.txt:4: a request must be a method and a URL"},
		{"status", head + "> GET https://x/\n< OK\n", `tape.txt:5: the status "OK" is not a number from 200 to 599`},
		{"status_100", head + "> GET https://x/\n< 100\n", `tape.txt:5: the status "100" is not a number from 200 to 599`},
		{"body_before_status", head + "> GET https://x/\n<| x\n", "tape.txt:5: the status of the response is missing"},
		{"request_after_response", head + "> GET https://x/\n< 200\n> Range: bytes=0-1\n", "tape.txt:6: a line of the request follows the response"},
		{"unknown_line", head + "> GET https://x/\nx\n", "tape.txt:5: unknown kind of line"},
		{"unknown_prefix", head + "> GET https://x/\n< 200\n<* x\n", "tape.txt:6: unknown kind of line"},
		{"unknown_header", head + "> GET https://x/\n< 200\n< Set-Cookie: a=b\n", `tape.txt:6: tapes do not have the header "Set-Cookie"`},
		{"no_header", head + "> GET https://x/\n> Range\n", "tape.txt:5: a header must be a name and a value"},
		{"header_order", head + "> GET https://x/\n> Range: bytes=0-1\n> Accept: x\n", "tape.txt:6: the header Accept must be before Range"},
		{"content_length", head + "> GET https://x/\n< 200\n< Content-Length: -1\n", `tape.txt:6: the Content-Length "-1" is not a size`},
		{"header_after_body", head + "> GET https://x/\n< 200\n<| x\n< Range: 0-0\n", "tape.txt:7: the line follows the body"},
		{"two_bodies", head + "> GET https://x/\n< 200\n<= " + blob + " 0\n<= " + blob + " 0\n", "tape.txt:7: the line follows the body"},
		{"text_and_blob", head + "> GET https://x/\n< 200\n<| x\n<= " + blob + " 0\n", "tape.txt:7: the line follows the body"},
		{"text_without_space", head + "> GET https://x/\n< 200\n<|x\n", `tape.txt:6: "|" and the text must be separated by a space`},
		{"digest", head + "> GET https://x/\n< 200\n<= sha256:xyz 1\n", `tape.txt:6: "sha256:xyz": invalid checksum digest length`},
		{"digest_path", head + "> GET https://x/\n< 200\n<= ../../etc:passwd 1\n", `tape.txt:6: "../../etc:passwd": invalid checksum digest format`},
		{"size", head + "> GET https://x/\n< 200\n<= " + blob + " x\n", `tape.txt:6: " ` + blob + ` x" is not a digest and a size or range`},
		{"range", head + "> GET https://x/\n< 200\n<= " + blob + " 5-4\n", `tape.txt:6: " ` + blob + ` 5-4" is not a digest and a size or range`},
		{"no_blob", head + "> GET https://x/\n< 200\n<= sha256:0000000000000000000000000000000000000000000000000000000000000000 1\n", "tape.txt:4: the tape lacks a blob: open blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000: file does not exist"},
		{"blob_size", head + "> GET https://x/\n< 200\n<= " + blob + " 1\n", "tape.txt:4: the blob " + blob + " has 0 bytes: the tape was damaged"},
		{"blob_range", head + "> GET https://x/\n< 200\n<= " + blob + " 0-5\n", "tape.txt:4: the blob " + blob + " has 0 bytes: the tape was damaged"},
		{"any_response", head + "> GET https://x/\n< 200\n<= *\n", `tape.txt:6: " *" is not a digest and a size or range`},
		{"error", head + "> GET https://x/\n<!\n", "tape.txt:5: the error is empty"},
		{"after_error", head + "> GET https://x/\n<! EOF\n< 200\n", "tape.txt:6: no line may follow in this exchange"},
		{"body_of_head", head + "> HEAD https://x/\n< 200\n<= " + blob + " 0\n", "tape.txt ends too early: the response of a HEAD request has a body"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := fstest.MapFS{"blobs/sha256/" + strings.TrimPrefix(blob, "sha256:"): {}}
			if test.tape != "" {
				fsys["tape.txt"] = &fstest.MapFile{Data: []byte(test.tape)}
			}
			errors, _ := runFake(func(tb testing.TB) { registrytest.Replay(tb, fsys, nil) })
			qt.Assert(t, qt.HasLen(errors, 1))
			qt.Check(t, qt.Equals(errors[0], "registrytest: "+test.err))
		})
	}
}
