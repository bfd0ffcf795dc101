// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// profileClient is a client that logs in if the profile requires it.
type profileClient struct {
	t      *testing.T
	p      registrytest.Profile
	server *registrytest.Server
	anon   bool // without an account
}

type profileResponse struct {
	status int
	header http.Header
	body   string
}

var challenge = regexp.MustCompile(`(realm|service|scope)="([^"]*)"`)

// do sends a request, and repeats it with credentials if the response is a
// challenge. It does not follow redirects.
func (c profileClient) do(method, target, body string, header ...string) profileResponse {
	c.t.Helper()
	client := &http.Client{
		Transport:     c.server.Client().Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if strings.HasPrefix(target, "/") {
		target = c.server.URL + target
	}
	authorization := ""
	for tries := 1; ; tries++ {
		req, err := http.NewRequest(method, target, strings.NewReader(body))
		qt.Assert(c.t, qt.IsNil(err))
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := client.Do(req)
		qt.Assert(c.t, qt.IsNil(err))
		content, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Assert(c.t, qt.IsNil(err))
		if resp.StatusCode != http.StatusUnauthorized || tries == 2 || resp.Header.Get("Www-Authenticate") == "" {
			return profileResponse{resp.StatusCode, resp.Header, string(content)}
		}
		authorization = c.authorize(resp.Header.Get("Www-Authenticate"))
	}
}

// authorize returns the Authorization header for a challenge.
func (c profileClient) authorize(wwwAuthenticate string) string {
	req, _ := http.NewRequest("GET", "http://x.example", nil)
	if !c.anon {
		req.SetBasicAuth(c.p.User, c.p.Password)
	}
	basic := req.Header.Get("Authorization")
	if strings.HasPrefix(wwwAuthenticate, "Basic") {
		return basic
	}
	params := make(map[string]string)
	for _, match := range challenge.FindAllStringSubmatch(wwwAuthenticate, -1) {
		params[match[1]] = match[2]
	}
	req, err := http.NewRequest("GET", params["realm"]+"?service="+params["service"]+"&scope="+params["scope"], nil)
	qt.Assert(c.t, qt.IsNil(err))
	if basic != "" {
		req.Header.Set("Authorization", basic)
	}
	resp, err := c.server.Client().Do(req)
	qt.Assert(c.t, qt.IsNil(err))
	defer resp.Body.Close()
	qt.Assert(c.t, qt.Equals(resp.StatusCode, 200))
	var body struct{ Token string }
	qt.Assert(c.t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&body)))
	return "Bearer " + body.Token
}

// addQuery adds a query to a Location.
func addQuery(location, query string) string {
	if strings.Contains(location, "?") {
		return location + "&" + query
	}
	return location + "?" + query
}

// pushBlob pushes a blob by POST, PATCH and PUT, and follows the Locations.
func (c profileClient) pushBlob(repo, data string) {
	c.t.Helper()
	resp := c.do("POST", "/v2/"+repo+"/blobs/uploads/", "")
	qt.Assert(c.t, qt.Equals(resp.status, 202))
	resp = c.do("PATCH", resp.header.Get("Location"), data, "Content-Type", "application/octet-stream")
	qt.Assert(c.t, qt.IsTrue(resp.status == 202 || resp.status == 201), qt.Commentf("%d", resp.status))
	resp = c.do("PUT", addQuery(resp.header.Get("Location"), "digest="+digest.FromString(data).String()), "")
	qt.Assert(c.t, qt.Equals(resp.status, 201))
}

const imageType = "application/vnd.oci.image.manifest.v1+json"

// imageOf returns an image manifest with the given config and no layers.
func imageOf(config string) string {
	return `{"schemaVersion":2,"mediaType":"` + imageType + `","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` +
		digest.FromString(config).String() + `","size":` + fmt.Sprint(len(config)) + `},"layers":[]}`
}

// TestProfiles pushes to and pulls from each profile with a client that follows
// Locations and challenges.
func TestProfiles(t *testing.T) {
	registrytest.ForEachProfile(t, func(t *testing.T, p registrytest.Profile) {
		c := profileClient{t: t, p: p, server: p.NewServer(t)}
		c.pushBlob("my/repo", "config")
		resp := c.do("PUT", "/v2/my/repo/manifests/tag", imageOf("config"), "Content-Type", imageType)
		qt.Assert(t, qt.Equals(resp.status, 201), qt.Commentf("%s", resp.body))
		resp = c.do("GET", "/v2/my/repo/manifests/tag", "", "Accept", imageType)
		qt.Check(t, qt.Equals(resp.body, imageOf("config")))
		resp = c.do("GET", "/v2/my/repo/blobs/"+digest.FromString("config").String(), "")
		if resp.status != 200 { // a redirect to a signed URL
			blob, err := c.server.Client().Get(resp.header.Get("Location"))
			qt.Assert(t, qt.IsNil(err))
			defer blob.Body.Close()
			content, _ := io.ReadAll(blob.Body)
			resp.body = string(content)
		}
		qt.Check(t, qt.Equals(resp.body, "config"))
		resp = c.do("GET", "/v2/my/repo/tags/list", "")
		qt.Check(t, qt.Equals(strings.TrimSpace(resp.body), `{"name":"my/repo","tags":["tag"]}`))
		_, err := c.server.Store.GetTag(t.Context(), "my/repo", "tag")
		qt.Check(t, qt.IsNil(err))
	})
}

// TestQuirks checks the responses in which profiles differ. The repository "a" has
// an image with the tag "tag" and 150 further tags. UPLOAD stands for the Location
// of an upload with 3 bytes, OLD UPLOAD for its first Location.
func TestQuirks(t *testing.T) {
	const absent = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	blob, manifest := digest.FromString("config").String(), digest.FromString(imageOf("config")).String()
	missing := strings.ReplaceAll(imageOf("config"), blob, absent)
	ranged := []string{"Content-Range", "7-9"}
	typed := func(t string) []string { return []string{"Content-Type", t} }
	for _, c := range []struct {
		profile        string
		method, target string
		header         []string
		body           string

		status   int
		want     [2]string // a header of the response, and a regular expression for its value
		contains string    // a part of the body
	}{
		{profile: "OCI 1.0", target: "/v2/a/referrers/" + manifest, status: 404},

		{profile: "distribution v2", target: "/v2/a/referrers/" + manifest, status: 404, contains: "404 page not found", want: [2]string{"Content-Type", "text/plain.*"}},
		{profile: "distribution v2", target: "/v2/a/tags/list?n=2", status: 200, contains: `"tag"`, want: [2]string{"Link", ""}},
		{profile: "distribution v2", target: "/v2/_catalog?n=1001", status: 400, contains: "PAGINATION_NUMBER_INVALID", want: [2]string{"Content-Type", "application/json; charset=utf-8"}},
		{profile: "distribution v2", target: "/v2/_catalog", status: 200},
		{profile: "distribution v2", method: "POST", target: "/v2/a/blobs/uploads/?digest=" + blob, body: "config", status: 202, want: [2]string{"Location", `http://127\.0\.0\.1:\d+/v2/a/blobs/uploads/.+\?_state=.+`}},
		{profile: "distribution v2", method: "POST", target: "/v2/b/blobs/uploads/?mount=" + blob, status: 202, want: [2]string{"Range", "0-0"}},
		{profile: "distribution v2", method: "POST", target: "/v2/b/blobs/uploads/?from=a&mount=" + blob, status: 201},
		{profile: "distribution v2", method: "PATCH", target: "UPLOAD", body: "abc", header: ranged, status: 202},
		{profile: "distribution v2", method: "PATCH", target: "OLD UPLOAD", body: "abc", status: 404, contains: "BLOB_UPLOAD_INVALID"},
		{profile: "distribution v2", target: "/v2/a/manifests/tag", header: []string{"Accept", "*/*"}, status: 404, contains: "MANIFEST_UNKNOWN"},
		{profile: "distribution v2", method: "HEAD", target: "/v2/a/manifests/tag", status: 404},
		{profile: "distribution v2", target: "/v2/a/manifests/tag", header: []string{"Accept", "x/y, " + imageType + ";q=1"}, status: 200},
		{profile: "distribution v2", method: "PUT", target: "/v2/a/manifests/new", header: typed("text/plain"), body: "x", status: 400, contains: "MANIFEST_INVALID"},
		{profile: "distribution v2", method: "PUT", target: "/v2/a/manifests/new", header: typed(imageType), body: missing, status: 400, contains: "MANIFEST_BLOB_UNKNOWN"},
		{profile: "distribution v2", method: "PUT", target: "/v2/a/manifests/new", header: typed(imageType), body: strings.Repeat(" ", 4<<20) + missing, status: 400, contains: "MANIFEST_INVALID"},
		{profile: "distribution v2", method: "DELETE", target: "/v2/a/manifests/" + manifest, status: 405},

		{profile: "distribution v3", target: "/v2/a/tags/list?n=2", status: 200, want: [2]string{"Link", `</v2/a/tags/list\?.*n=2>; rel="next"`}},
		{profile: "distribution v3", target: "/v2/a/tags/list?n=x", status: 400, contains: "PAGINATION_NUMBER_INVALID"},
		{profile: "distribution v3", target: "/v2/a/tags/list?n=5000", status: 200},
		{profile: "distribution v3", method: "PATCH", target: "UPLOAD", body: "abc", header: ranged, status: 416, contains: "RANGE_INVALID"},
		{profile: "distribution v3", method: "PATCH", target: "OLD UPLOAD", body: "abc", status: 416, contains: "RANGE_INVALID"},
		{profile: "distribution v3", target: "/v2/a/manifests/tag", status: 404},
		{profile: "distribution v3", method: "DELETE", target: "/v2/a/manifests/tag", status: 405},

		{profile: "Docker Hub", target: "/v2/a/manifests/tag", status: 200, want: [2]string{"Ratelimit-Limit", "100;w=21600"}},
		{profile: "Docker Hub", target: "/v2/_catalog", status: 401, want: [2]string{"Www-Authenticate", `.*insufficient_scope.*`}},
		{profile: "Docker Hub", target: "/v2/a/blobs/" + blob, status: 307, want: [2]string{"Location", `http://localhost:\d+/.*`}},
		{profile: "Docker Hub", target: "/v2/a/blobs/" + absent, status: 404, contains: "BLOB_UNKNOWN"},
		{profile: "Docker Hub", method: "DELETE", target: "/v2/a/manifests/tag", status: 405, contains: "Only digest-based deletion is allowed"},

		{profile: "GHCR", method: "PATCH", target: "UPLOAD", body: strings.Repeat("x", 4<<20+1), header: []string{"Content-Range", "3-4194307"}, status: 416, contains: "4.00MiB"},
		{profile: "GHCR", method: "PATCH", target: "UPLOAD", body: strings.Repeat("x", 4<<20+1), status: 202, want: [2]string{"Location", "/v2/a/blobs/upload/.*"}},
		{profile: "GHCR", method: "PUT", target: "/v2/a/blobs/upload/none?digest=" + blob, status: 404, contains: "BLOB_UPLOAD_INVALID"},
		{profile: "GHCR", target: "/v2/a/tags/list", status: 200, want: [2]string{"Link", `.*n=100>; rel="next"`}},
		{profile: "GHCR", target: "/v2/a/referrers/" + manifest, status: 404},
		{profile: "GHCR", method: "DELETE", target: "/v2/a/manifests/" + manifest, status: 401}, // no token grants it

		{profile: "ECR", target: "/v2/a/tags/list?n=1001", status: 405, contains: "maxResults"},
		{profile: "ECR", target: "/v2/a/manifests/tag", status: 200, want: [2]string{"Docker-Content-Digest", ""}},
		{profile: "ECR", target: "/v2/a/manifests/" + manifest, status: 200, want: [2]string{"Docker-Content-Digest", manifest}},
		{profile: "ECR", method: "PATCH", target: "UPLOAD", body: "abc", status: 201},
		{profile: "ECR", method: "POST", target: "/v2/b/blobs/uploads/?from=a&mount=" + blob, status: 202, want: [2]string{"Location", "http://.*"}},
		{profile: "ECR", method: "PUT", target: "/v2/a/manifests/new", header: typed(imageType), body: "x", status: 405, contains: "UNSUPPORTED"},

		{profile: "GAR", target: "/v2/a/tags/list?n=2", status: 200, want: [2]string{"Link", ""}},
		{profile: "GAR", method: "POST", target: "/v2/a/blobs/uploads/", status: 202, want: [2]string{"Location", "/artifacts-uploads/namespaces/a/uploads/.*"}},
		{profile: "GAR", method: "DELETE", target: "/v2/a/manifests/" + manifest, status: 400, contains: "GOOGLE_MANIFEST_DANGLING_TAG"},
		{profile: "GAR", method: "DELETE", target: "/v2/a/manifests/tag", status: 202},

		{profile: "Quay", target: "/v2/a/tags/list?n=1000", status: 200, want: [2]string{"Link", `.*n=100>; rel="next"`}},
		{profile: "Quay", target: "/v2/a/blobs/" + blob, status: 302},
		{profile: "Quay", method: "POST", target: "/v2/a/blobs/uploads/", status: 202, want: [2]string{"Range", "bytes=0--1"}},
		{profile: "Quay", target: "UPLOAD", status: 204, want: [2]string{"Location", ""}},
		{profile: "Quay", method: "DELETE", target: "/v2/a/blobs/" + blob, status: 405},
		{profile: "Quay", method: "PUT", target: "/v2/a/manifests/new", header: typed("text/plain"), body: "x", status: 415},
		{profile: "Quay", method: "PUT", target: "/v2/a/manifests/" + absent, header: typed(imageType), body: imageOf("config"), status: 400, contains: "MANIFEST_INVALID"},
		{profile: "Quay", target: "/v2/a/referrers/" + absent, status: 400},
		{profile: "Quay", target: "/v2/a/referrers/" + manifest, status: 200},

		{profile: "Harbor", target: "/v2/a/manifests/none", status: 404, contains: "NOT_FOUND"},
		{profile: "Harbor", target: "/v2/a/tags/list?n=-1", status: 400, contains: "BAD_REQUEST"},
		{profile: "Harbor", method: "DELETE", target: "/v2/a/manifests/tag", status: 400, contains: "UNSUPPORTED"},
		{profile: "Harbor", method: "POST", target: "/v2/a/blobs/uploads/?digest=" + blob, body: "config", status: 202},

		{profile: "Quay", method: "POST", target: "/v2/auth", status: 405},
		{profile: "Artifactory", method: "POST", target: "/artifactory/api/docker/docker/v2/token", status: 401},
	} {
		if c.method == "" {
			c.method = "GET"
		}
		t.Run(c.profile+" "+c.method+" "+c.target, func(t *testing.T) {
			p := profileOf(t, c.profile)
			client := profileClient{t: t, p: p, server: p.NewServer(t)}
			var tags []string
			for i := range 150 {
				tags = append(tags, fmt.Sprint("t", i))
			}
			client.pushBlob("a", "config")
			_, err := registry.PushManifest(t.Context(), client.server.Store, "a", registry.ManifestPush{Content: []byte(imageOf("config")), Tags: append(tags, "tag")})
			qt.Assert(t, qt.IsNil(err))
			if strings.HasSuffix(c.target, "UPLOAD") {
				old := client.do("POST", "/v2/a/blobs/uploads/", "").header.Get("Location")
				current := client.do("PATCH", old, "abc", "Content-Type", "application/octet-stream").header.Get("Location")
				c.target = map[string]string{"UPLOAD": current, "OLD UPLOAD": old}[c.target]
			}

			resp := client.do(c.method, c.target, c.body, c.header...)
			qt.Check(t, qt.Equals(resp.status, c.status), qt.Commentf("%s", resp.body))
			qt.Check(t, qt.StringContains(resp.body, c.contains))
			if c.want[0] != "" {
				qt.Check(t, qt.Matches(resp.header.Get(c.want[0]), c.want[1]))
			}
		})
	}
}

func profileOf(t *testing.T, name string) registrytest.Profile {
	for _, p := range registrytest.Profiles() {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("no profile %s", name)
	panic("unreachable")
}

// TestProfilesLogin checks the challenges, and the permissions of anonymous clients
// and users.
func TestProfilesLogin(t *testing.T) {
	for name, want := range map[string]string{
		"Docker Hub":  `Bearer realm="http://HOST/token",service="registry.docker.io",scope="repository:a:pull"`,
		"GHCR":        `Bearer realm="http://HOST/token",service="ghcr.io",scope="repository:a:pull"`,
		"ECR":         `Basic realm="http://HOST/",service="ecr.amazonaws.com"`,
		"GAR":         `Bearer realm="http://HOST/v2/token",service="us-docker.pkg.dev",scope="repository:a:pull"`,
		"Quay":        `Bearer realm="http://HOST/v2/auth",service="quay.io",scope="repository:a:pull"`,
		"Harbor":      `Bearer realm="http://HOST/service/token",service="harbor-registry",scope="repository:a:pull"`,
		"Artifactory": `Bearer realm="http://HOST/artifactory/api/docker/docker/v2/token",service="artifactory",scope="repository:a:pull"`,
	} {
		t.Run(name, func(t *testing.T) {
			p := profileOf(t, name)
			server := p.NewServer(t)
			resp, err := server.Client().Get(server.URL + "/v2/a/tags/list")
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Check(t, qt.Equals(resp.StatusCode, 401))
			qt.Check(t, qt.Equals(strings.ReplaceAll(resp.Header.Get("Www-Authenticate"), server.Host, "HOST"), want))

			user := profileClient{t: t, p: p, server: server}
			anonymous := profileClient{t: t, p: p, server: server, anon: true}
			if name != "ECR" {
				qt.Check(t, qt.Equals(anonymous.do("GET", "/v2/a/tags/list", "").status, 401)) // no such repository
				user.pushBlob("a", "x")
				qt.Check(t, qt.Equals(anonymous.do("GET", "/v2/a/tags/list", "").status, 200))
			}
			qt.Check(t, qt.Equals(anonymous.do("POST", "/v2/a/blobs/uploads/", "").status, 401))
			qt.Check(t, qt.Equals(user.do("POST", "/v2/a/blobs/uploads/", "").status, 202))
		})
	}

	t.Run("token only", func(t *testing.T) {
		p := profileOf(t, "Quay")
		server := p.NewServer(t)
		resp, err := server.Client().Get(server.URL + "/v2/auth?service=quay.io")
		qt.Assert(t, qt.IsNil(err))
		defer resp.Body.Close()
		var members map[string]any
		qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&members)))
		qt.Check(t, qt.HasLen(members, 1))
		qt.Check(t, qt.IsNotNil(members["token"]))
	})

	t.Run("plain text", func(t *testing.T) {
		server := profileOf(t, "ECR").NewServer(t)
		resp, err := server.Client().Get(server.URL + "/v2/")
		qt.Assert(t, qt.IsNil(err))
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		qt.Check(t, qt.Equals(string(body), "Not Authorized\n"))
	})

	// Like S3, the blob host rejects a request that carries credentials.
	t.Run("credentials after redirect", func(t *testing.T) {
		p := profileOf(t, "Docker Hub")
		user := profileClient{t: t, p: p, server: p.NewServer(t)}
		user.pushBlob("a", "x")
		to := user.do("GET", "/v2/a/blobs/"+digest.FromString("x").String(), "").header.Get("Location")
		qt.Check(t, qt.Equals(user.do("GET", to, "").body, "x"))
		qt.Check(t, qt.Equals(user.do("GET", to, "", "Authorization", "Bearer x").status, 400))
		qt.Check(t, qt.Equals(user.do("GET", strings.TrimSuffix(to, "5ea1"), "").status, 403))
	})
}

// TestProfileInProcess checks the host that blobs are redirected to if the
// registry has a name.
func TestProfileInProcess(t *testing.T) {
	p := profileOf(t, "Docker Hub")
	store := new(registry.MemStore)
	d := digest.FromString("x")
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), store, "a", d, strings.NewReader("x"))))
	h := p.Handler(registry.WithStore(store))
	get := func(url, token string) *http.Response {
		req, _ := http.NewRequest("GET", url, nil)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := registrytest.Transport(h).RoundTrip(req)
		qt.Assert(t, qt.IsNil(err))
		return resp
	}
	resp := get("https://registry.example/token?service=registry.docker.io&scope=repository:a:pull", "")
	var body struct{ Token string }
	qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&body)))
	resp = get("https://registry.example/v2/a/blobs/"+d.String(), body.Token)
	qt.Check(t, qt.Equals(resp.Header.Get("Location"), "https://content.registry.example/content/v2/a/blobs/"+d.String()+"?signature=5ea1"))
}
