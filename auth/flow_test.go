// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// TestV2Flow follows a client of the Docker Registry HTTP API V2 over real
// connections, with authentication: token, push in chunks, pull.
func TestV2Flow(t *testing.T) {
	tokens := newTokenServer()
	tokenHost := httptest.NewServer(tokens)
	defer tokenHost.Close()
	host := httptest.NewServer(auth.Bearer(tokenHost.URL+"/token", "registry.test", tokens.Verify)(registry.New()))
	defer host.Close()

	// send sends a request, with a token unless it is empty.
	send := func(token, method, target, body string, headers ...string) response {
		t.Helper()
		if !strings.HasPrefix(target, "http") {
			target = host.URL + target
		}
		req, err := http.NewRequest(method, target, strings.NewReader(body))
		qt.Assert(t, qt.IsNil(err))
		if token != "" {
			headers = append(headers, token)
		}
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		qt.Assert(t, qt.IsNil(err))
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		return response{resp, string(text)}
	}
	want := func(a response, status int, code string) response {
		t.Helper()
		qt.Assert(t, qt.Equals(a.StatusCode, status), qt.Commentf("%s %s: %s", a.Request.Method, a.Request.URL, a.body))
		qt.Assert(t, qt.Equals(a.code(), code))
		return a
	}

	// The challenge to a ping names the token server.
	a := want(send("", "GET", "/v2/", ""), 401, "UNAUTHORIZED")
	qt.Assert(t, qt.Equals(a.Header.Get("Docker-Distribution-Api-Version"), "registry/2.0"))
	qt.Assert(t, qt.Equals(a.Header.Get("Www-Authenticate"), `Bearer realm="`+tokenHost.URL+`/token",service="registry.test"`))

	// A token for an account, a service and a scope.
	requestToken := func(service, scope, credentials string) response {
		t.Helper()
		query := url.Values{"account": {"alice"}, "service": {service}, "scope": {scope}}
		return send(credentials, "GET", tokenHost.URL+"/token?"+query.Encode(), "")
	}
	const scope = "repository:ns/name:push,pull"
	want(requestToken("registry.test", scope, basic("alice", "wrong")), 401, "UNAUTHORIZED")
	want(requestToken("registry.test", scope, basic("carol", "wonderland")), 401, "UNAUTHORIZED")
	want(requestToken("another.test", scope, as("alice")), 400, "UNSUPPORTED")
	a = want(requestToken("registry.test", scope, as("alice")), 200, "")
	var g tokenResponse
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &g)))
	token := bearer(g.Token)

	want(send(token, "GET", "/v2/", ""), 200, "")
	want(send(token, "GET", "/v2/ns/name/manifests/latest", ""), 404, "NAME_UNKNOWN")
	// Requests without the needed right: in another repository, to delete, and by
	// another user.
	a = want(send(token, "GET", "/v2/ns/other/manifests/latest", ""), 401, "UNAUTHORIZED")
	qt.Assert(t, qt.StringContains(a.Header.Get("Www-Authenticate"), `scope="repository:ns/other:pull",error="insufficient_scope"`))
	want(send(token, "DELETE", "/v2/ns/name/manifests/latest", ""), 401, "UNAUTHORIZED")
	want(send(bearer(tokenFor(t, tokens, "bob", scope)), "GET", "/v2/ns/name/manifests/latest", ""), 401, "UNAUTHORIZED")
	passwords := auth.Basic("registry", users.Check, rules.Allow)(registry.New())
	want(call(t, passwords, "GET", "/v2/ns/name/manifests/latest", "", as("bob")), 403, "DENIED")

	// A blob, in chunks.
	const blob = "0123456789abcdefghijklmnopqrstuvwxyz"
	d := digest.FromString(blob)
	want(send(token, "HEAD", "/v2/ns/name/blobs/"+d.String(), ""), 404, "")
	location := want(send(token, "POST", "/v2/ns/name/blobs/uploads/", ""), 202, "").Header.Get("Location")
	for sent := 0; sent < 30; sent += 10 {
		chunk := fmt.Sprintf("Content-Range: %d-%d", sent, sent+9)
		a = want(send(token, "PATCH", location, blob[sent:sent+10], chunk, "Content-Type: application/octet-stream"), 202, "")
		location = a.Header.Get("Location")
		for _, a := range []response{a, want(send(token, "GET", location, ""), 204, "")} {
			qt.Assert(t, qt.Equals(a.Header.Get("Range"), fmt.Sprintf("0-%d", sent+9)))
		}
	}
	want(send("", "PUT", location+"?digest="+d.String(), blob[30:]), 401, "UNAUTHORIZED")
	want(send(token, "PUT", location+"?digest="+d.String(), blob[30:]), 201, "")
	want(send(token, "GET", location, ""), 404, "BLOB_UPLOAD_UNKNOWN")
	a = want(send(token, "HEAD", "/v2/ns/name/blobs/"+d.String(), ""), 200, "")
	qt.Assert(t, qt.Equals(a.ContentLength, int64(len(blob))))
	qt.Assert(t, qt.Equals(a.Header.Get("Docker-Content-Digest"), d.String()))
	qt.Assert(t, qt.Equals(want(send(token, "GET", "/v2/ns/name/blobs/"+d.String(), ""), 200, "").body, blob))

	// A cancelled upload is gone.
	location = want(send(token, "POST", "/v2/ns/name/blobs/uploads/", ""), 202, "").Header.Get("Location")
	want(send(token, "PATCH", location, "some"), 202, "")
	want(send(token, "DELETE", location, ""), 204, "")
	want(send(token, "GET", location, ""), 404, "BLOB_UPLOAD_UNKNOWN")
	want(send(token, "PATCH", location, "more"), 404, "BLOB_UPLOAD_UNKNOWN")
	want(send(token, "DELETE", location, ""), 404, "BLOB_UPLOAD_UNKNOWN")

	// A manifest that names a missing blob is rejected.
	const image = "Content-Type: application/vnd.docker.distribution.manifest.v2+json"
	manifest := func(layer digest.Digest) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"%s","size":36},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest":"%s","size":36}]}`, d, layer)
	}
	want(send(token, "PUT", "/v2/ns/name/manifests/latest", manifest(missing), image), 404, "MANIFEST_BLOB_UNKNOWN")
	want(send(token, "GET", "/v2/ns/name/manifests/latest", ""), 404, "MANIFEST_UNKNOWN")
	want(send(token, "PUT", "/v2/ns/name/manifests/latest", manifest(d), image), 201, "")
	qt.Assert(t, qt.Equals(want(send(token, "GET", "/v2/ns/name/manifests/latest", ""), 200, "").body, manifest(d)))

	// The digest of a signed Docker schema 1 manifest is that of its payload.
	payload := fmt.Sprintf("{\n   \"schemaVersion\": 1,\n   \"name\": \"ns/name\",\n   \"tag\": \"old\",\n   \"fsLayers\": [{\"blobSum\": %q}],\n   \"history\": []\n}", d)
	length := strings.LastIndex(payload, "\n}")
	protected := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":%q}`, length, base64.RawURLEncoding.EncodeToString([]byte("\n}"))))
	signed := payload[:length] + fmt.Sprintf(",\n   \"signatures\": [{\"signature\": \"x\", \"protected\": %q}]\n}", protected)
	const schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	a = want(send(token, "PUT", "/v2/ns/name/manifests/old", signed, "Content-Type: "+schema1), 201, "")
	qt.Assert(t, qt.Equals(a.Header.Get("Docker-Content-Digest"), digest.FromString(payload).String()))
	for _, reference := range []string{"old", digest.FromString(payload).String()} {
		a = want(send(token, "GET", "/v2/ns/name/manifests/"+reference, ""), 200, "")
		qt.Assert(t, qt.Equals(a.body, signed))
		qt.Assert(t, qt.Equals(a.Header.Get("Content-Type"), schema1))
	}
	a = want(send(token, "GET", "/v2/ns/name/tags/list", ""), 200, "")
	qt.Assert(t, qt.Equals(a.body, `{"name":"ns/name","tags":["latest","old"]}`))
}
