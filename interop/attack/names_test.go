// SPDX-License-Identifier: Apache-2.0

// Names, tags, digests and paths.

package attack

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

const pullingManifests = `spec, Pulling manifests ("<name> MUST match", "<tag-or-digest> MUST NOT be in any other format")`

func names() (list []attack) {
	// No repository can have one of these names, however it is encoded.
	for i, name := range []string{
		"A", "Repo", "a/B", "ä", "%C3%A4", "a%CC%88", "%E2%80%AE", "%EF%BC%8E%EF%BC%8E", "%F0%9F%92%A9", "%FF", "%C0%AE%C0%AE", "%C0%AF",
		".", "..", "../a", "a/..", "a/../b", "a/./b", "%2e%2e", "%2E%2E/a", "a/%2e%2e/b", "%252e%252e", "....", "..;",
		".a", "a.", "-a", "a-", "_a", "a_", "a..b", "a___b", "a._b", "a-_b", "a.-b", "a/-b", "a/.b", "a-/b", "a_/b",
		"/a", "a/", "a//b", "//", "a/", "///a",
		"a%00", "%00", "a%00b", "a%0d%0aX-Injected:%20yes", "a%0a", "a%20b", "%20", "a%09", "a%7f", "a%25", "a%252Fb", "a+b", "a@b", "a:b", "a:5000/b", "a~b", "a!b", "a$b", "a&b", "a'b", "a(b)", "a*b", "a,b", "a;b", "a=b", "a[b]", "a%5Cb", "a%22b", "a%3Cb%3E", "a%3Fb", "a%23b", "a|b", "a^b", "a`b", "a{b}",
		"_catalog", "_catalog/a", "a/_catalog", "_oci/ext",
		strings.Repeat("a", 10_000), strings.Repeat("a/", 5_000) + "a", strings.Repeat("-", 10_000), strings.Repeat("../", 1_000) + "a", strings.Repeat("a", 256),
	} {
		list = append(list,
			attack{name: "put_" + label(i, name), send: withBody("PUT", "/v2/"+name+"/manifests/new", opaque), want: "400", code: "NAME_INVALID", section: pullingManifests},
			attack{name: "list_" + label(i, name), send: request("GET", "/v2/"+name+"/tags/list"), want: "400", code: "NAME_INVALID", section: pullingManifests},
		)
	}
	// An encoded slash is not a separator (RFC 3986 2.2), and a name can't
	// contain one. The registry must not disagree with a proxy that takes the
	// path segment for an entire name.
	for i, name := range []string{"a%2Fb", "a%2fb", "%2Fa", "a%2F", "a%2F..%2Fb", "%2e%2e%2Fa", "a/b%2fc", "%2F%2F"} {
		list = append(list,
			attack{name: "put_encoded_slash_" + label(i, name), send: withBody("PUT", "/v2/"+name+"/manifests/new", opaque), want: "400|404", code: "NAME_INVALID|UNSUPPORTED", section: pullingManifests + "; RFC 3986 2.2"},
			attack{name: "start_encoded_slash_" + label(i, name), send: request("POST", "/v2/"+name+"/blobs/uploads/"), want: "400|404", code: "NAME_INVALID|UNSUPPORTED", section: pullingManifests + "; RFC 3986 2.2"},
		)
	}
	// The words of the API are valid names.
	for i, name := range []string{
		"blobs", "uploads", "manifests", "tags", "referrers", "list", "v2", "blobs/uploads", "a/blobs/uploads", "a/manifests/tag", "a/tags/list", "tags/list", "manifests/manifests", "v2/v2", "uploads/blobs", "a/referrers/b",
		"0", "a-b", "a--b", "a---b", "a_b", "a__b", "a.b", "a/b/c/d/e/f/g/h", "a%62c", strings.Repeat("a", 255), "sha256", "con", "nul",
	} {
		list = append(list,
			attack{name: "good_put_" + label(i, name), send: withBody("PUT", "/v2/"+name+"/manifests/new", opaque), want: "201", section: pullingManifests},
			attack{name: "good_start_" + label(i, name), send: request("POST", "/v2/"+name+"/blobs/uploads/"), want: "202", section: "spec, POST then PUT"},
		)
	}
	return list
}

func tags() (list []attack) {
	for i, tag := range []string{
		".", "..", ".tag", "-tag", "+tag", "ta+g", "t%20g", "%20tag", "tag%20", "t@g", "t~g", "t!g", "t,g", "t;g", "t=g", "t&g", "t%C3%A4g", "täg", "t%00g", "tag%00", "t%0d%0aX-Injected:%20yes", "%2e%2e", "%FF", "t%25g", "t%5Cg", "t%3Fg", "", strings.Repeat("t", 129), strings.Repeat("t", 10_000), "%EF%BD%94ag",
	} {
		target := "/v2/a/manifests/" + tag
		putCode, getCode := "NAME_INVALID|MANIFEST_INVALID", "MANIFEST_UNKNOWN|NAME_INVALID"
		if strings.Contains(tag, ":") { // a malformed digest
			putCode, getCode = "DIGEST_INVALID", "DIGEST_INVALID"
		}
		list = append(list,
			attack{name: "put_" + label(i, tag), send: withBody("PUT", target, opaque), want: "400", code: putCode, section: pullingManifests},
			attack{name: "get_" + label(i, tag), send: request("GET", target), want: "400|404", code: getCode, section: pullingManifests},
			attack{name: "head_" + label(i, tag), send: request("HEAD", target), want: "400|404", section: "spec, Checking if content exists in the registry"},
			attack{name: "delete_" + label(i, tag), send: request("DELETE", target), want: "400|404", code: getCode, section: "spec, Deleting tags"},
		)
		if tag != "" {
			list = append(list, attack{name: "parameter_" + label(i, tag), send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=good&tag="+strings.NewReplacer("&", "%26", "+", "%2B", ";", "%3B").Replace(tag), opaque), want: "400", code: "NAME_INVALID|MANIFEST_INVALID", section: "spec, Pushing Manifests (end-7b)"})
		}
	}
	for i, tag := range []string{"_", "_tag", "T", "0", "a.b-c_d", "t..g", "t--", strings.Repeat("t", 128), "list", "uploads", "latest", "t%61g"} {
		list = append(list, attack{name: "good_" + label(i, tag), send: withBody("PUT", "/v2/a/manifests/"+tag, opaque), want: "201", section: pullingManifests})
	}
	list = append(list,
		attack{name: "encoded_slash_lower", send: withBody("PUT", "/v2/a/manifests/t%2fg", opaque), want: "400|404", section: pullingManifests},
		attack{name: "encoded_slash_to_another_endpoint", send: request("GET", "/v2/a%2Fmanifests%2Ftag"), want: "400|404", section: "RFC 3986 2.2"},
		attack{name: "tag_with_a_slash_is_another_path", send: withBody("PUT", "/v2/a/manifests/t/g", opaque), want: "404", section: "spec, Endpoints"},
		attack{name: "empty_tag_parameter", send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=", opaque), want: "400", code: "NAME_INVALID|MANIFEST_INVALID", section: "spec, Pushing Manifests (end-7b)"},
		attack{name: "10000_tag_parameters", send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=x"+strings.Repeat("&tag=x", 9_999), opaque), want: "201|400|414|431", section: "spec, Pushing Manifests (end-7b)"},
		attack{name: "tag_parameters_with_wrong_digest", send: withBody("PUT", "/v2/a/manifests/"+sha(fresh)+"?tag=tag&tag=new", opaque), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing Manifests"},
	)
	return list
}

func digests() (list []attack) {
	hex := strings.TrimPrefix(sha(digits), "sha256:")
	for i, d := range []string{
		"sha256:", ":", ":" + hex, "sha256", "sha256:" + hex[1:], "sha256:" + hex + "0", "sha256:" + strings.ToUpper(hex), "SHA256:" + hex, "Sha256:" + hex, "sha256:" + hex[1:] + "g",
		"sha256::" + hex, "sha256:" + hex + ":", "sha256:sha256:" + hex, "sha256:" + hex + "%00", "sha256:" + hex + "%20", "%20sha256:" + hex, "sha256:" + hex + "%0d%0aX-Injected:%20yes", "sha256:.." + hex[2:], "sha256%00:" + hex,
		"md5:d41d8cd98f00b204e9800998ecf8427e", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "blake3:" + hex, "sha256%2Bb64:" + hex, "sha224:" + hex[:56], "unknown:" + hex, "sha512:" + hex, "sha384:" + hex, "sha256:" + sha512sum(digits)[7:], "sha512-256:" + hex,
		"sha256:" + strings.Repeat("0", 10_000), strings.Repeat("sha", 5_000) + ":" + hex, "sha256:" + strings.Repeat("%CE%B1", 64), "sha256:%EF%BC%91" + hex[1:],
	} {
		const invalid = `spec, Pushing blobs ("invalid or uses an unsupported algorithm … 400")`
		list = append(list,
			attack{name: "get_blob_" + label(i, d), send: request("GET", "/v2/a/blobs/"+d), want: "400|404", code: "DIGEST_INVALID|BLOB_UNKNOWN", section: "spec, Endpoints (end-2)"},
			attack{name: "push_" + label(i, d), send: withBody("POST", "/v2/a/blobs/uploads/?digest="+d, digits), want: "400", code: "DIGEST_INVALID", section: invalid},
			attack{name: "close_" + label(i, d), send: request("PUT", "/v2/a/blobs/uploads/{session}?digest="+d), want: "400", code: "DIGEST_INVALID", section: invalid},
			attack{name: "mount_" + label(i, d), send: request("POST", "/v2/b/blobs/uploads/?from=a&mount="+d), want: "400", code: "DIGEST_INVALID", section: invalid},
			attack{name: "referrers_" + label(i, d), send: request("GET", "/v2/a/referrers/"+d), want: "400", code: "DIGEST_INVALID", section: `spec, Listing Referrers ("invalid syntax, a 400 Bad Request MUST be returned")`},
		)
		if strings.Contains(d, ":") {
			list = append(list, attack{name: "put_manifest_" + label(i, d), send: withBody("PUT", "/v2/a/manifests/"+d, opaque), want: "400", code: "DIGEST_INVALID", section: pullingManifests})
		}
	}
	return append(list,
		attack{name: "encoded_colon", send: request("GET", "/v2/a/blobs/sha256%3A"+hex), want: "200", section: "RFC 3986 6.2.2.2"},
		attack{name: "trailing_slash", send: request("GET", "/v2/a/blobs/"+sha(digits)+"/"), want: "404", section: "spec, Endpoints"},
		attack{name: "sha512_of_sha256_blob", send: request("GET", "/v2/a/blobs/"+sha512sum(digits)), want: "200|404", code: "BLOB_UNKNOWN", section: "spec, Pulling blobs"},
		attack{name: "push_sha512", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha512sum(fresh), fresh), want: "201", section: "spec, Single POST"},
		attack{name: "push_sha384", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha384(fresh), fresh), want: "201|400", section: "spec, Single POST"},
		attack{name: "push_wrong_sha512", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha512sum(fresh), digits), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing blobs"},
		attack{name: "push_wrong_sha256", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), secret), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing blobs"},
		attack{name: "manifest_wrong_sha512", send: withBody("PUT", "/v2/a/manifests/"+sha512sum(fresh), opaque), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing Manifests"},
		attack{name: "blob_of_another_repository", send: request("GET", "/v2/a/blobs/"+sha(elsewhere)), want: "404", code: "BLOB_UNKNOWN", section: "spec, Pulling blobs"},
		attack{name: "manifest_as_blob", send: request("GET", "/v2/a/blobs/"+sha(img)), want: "404", code: "BLOB_UNKNOWN", section: "spec, Pulling blobs"},
		attack{name: "blob_as_manifest", send: request("GET", "/v2/a/manifests/"+sha(digits)), want: "404", code: "MANIFEST_UNKNOWN", section: "spec, Pulling manifests"},
	)
}

// paths requests paths that are not an endpoint of the table in the section
// "Endpoints".
func paths() (list []attack) {
	for i, path := range []string{
		"/", "/v1/", "/v2x", "/V2/", "/v2%00", "//v2/", "/./v2/", "/../v2/", "/x/../v2/", "/v2/../", "/v2//", "/v2/.", "/v2/..", "/v2/%2e%2e/", "/%76%32x/", "/v2/a", "/v2/a/", "/v2/_catalog/", "/v2/a/_catalog", "/v2//_catalog", "/v2/_CATALOG",
		"/v2/tags/list", "/v2/manifests/tag", "/v2/blobs/" + sha(digits), "/v2/referrers/" + sha(img), "/v2/blobs/uploads/",
		"/v2/a/tags", "/v2/a/tags/", "/v2/a/tags/list/", "/v2/a/tags//list", "/v2/a/tags/list/x", "/v2/a/tags/List", "/v2/a/Tags/list", "/v2/a/manifests", "/v2/a/manifests/tag/", "/v2/a/manifests/tag/x", "/v2/a/blobs", "/v2/a/referrers", "/v2/a/referrers/" + sha(img) + "/", "/v2/a/uploads/{session}", "/v2/a/blobs/uploads/{session}/", "/v2/a/blobs/uploads/{session}/x", "/v2/a/blobs/uploads//{session}", "/v2/uploads/{session}", "/v2/a/blob/" + sha(digits),
		"/v2/a/tags/list%2F", "/v2/a/tags%2Flist", "/v2%2Fa/tags/list", "%2Fv2/", "/v2/a/blobs/uploads%2F{session}", "/v2/a/tags/list%00", "/v2/a/tags/list#x", "/v2/;/", "/v2/_oci/ext/discover", "/debug/pprof/", "/metrics", "/v2/a/tags/list.json",
	} {
		list = append(list, attack{name: label(i, path), send: request("GET", path), want: "400|404", section: "spec, Endpoints"})
	}
	return append(list,
		attack{name: "v2_without_trailing_slash", send: request("GET", "/v2"), want: "200|301|308|404", section: "spec, Determining Support"},
		attack{name: "v2_encoded", send: request("GET", "/%76%32/"), want: "200", section: "RFC 3986 6.2.2.2"},
		attack{name: "ping_does_not_reflect_query", send: request("GET", "/v2/?x=<script>alert(1)</script>"), want: "200", section: "spec, Determining Support", check: func(t *testing.T, responses []*response) {
			qt.Check(t, qt.IsFalse(strings.Contains(responses[0].String(), "script")))
		}},
		attack{name: "trailing_slash_of_uploads", send: request("POST", "/v2/a/blobs/uploads//"), want: "400|404|405", section: "spec, Endpoints"},
	)
}

// methods sends every method to every endpoint. According to RFC 9110, methods are
// case-sensitive (9.1), readable resources support GET and HEAD, and an
// unsupported method gets 405 with Allow (15.5.6).
func methods() (list []attack) {
	d, m := sha(digits), sha(img)
	for _, e := range []struct {
		name, target, allow string
		wants               map[string]string
	}{
		{"ping", "/v2/", "GET, HEAD", map[string]string{"GET": "200", "HEAD": "200"}},
		{"ping_without_slash", "/v2", "GET, HEAD", map[string]string{"GET": "200", "HEAD": "200"}},
		{"catalog", "/v2/_catalog", "GET, HEAD", map[string]string{"GET": "200", "HEAD": "200"}},
		{"tags", "/v2/a/tags/list", "GET, HEAD", map[string]string{"GET": "200", "HEAD": "200"}},
		{"referrers", "/v2/a/referrers/" + m, "GET, HEAD", map[string]string{"GET": "200", "HEAD": "200"}},
		{"tag", "/v2/a/manifests/tag", "GET, HEAD, PUT, DELETE", map[string]string{"GET": "200", "HEAD": "200", "PUT": "201", "DELETE": "202"}},
		{"manifest", "/v2/a/manifests/" + m, "GET, HEAD, PUT, DELETE", map[string]string{"GET": "200", "HEAD": "200", "PUT": "201", "DELETE": "202"}},
		{"blob", "/v2/a/blobs/" + d, "GET, HEAD, DELETE", map[string]string{"GET": "200", "HEAD": "200", "DELETE": "202"}},
		{"uploads", "/v2/a/blobs/uploads/", "POST", map[string]string{"POST": "202"}},
		{"uploads_without_slash", "/v2/a/blobs/uploads", "POST", map[string]string{"POST": "202"}},
		{"session", "/v2/a/blobs/uploads/{session}", "GET, HEAD, PATCH, PUT, DELETE", map[string]string{"GET": "204", "HEAD": "204", "PATCH": "202", "PUT": "400", "DELETE": "204"}},
		{"unknown_repository", "/v2/unknown/tags/list", "GET, HEAD", map[string]string{"GET": "404", "HEAD": "404"}},
		{"unknown_session", "/v2/a/blobs/uploads/unknown", "GET, HEAD, PATCH, PUT, DELETE", map[string]string{"GET": "404", "HEAD": "404", "PATCH": "404", "PUT": "404", "DELETE": "404"}},
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "PROPFIND"} {
			want, ok := e.wants[method]
			if !ok {
				want = "405"
			}
			body := ""
			if e.name == "tag" || e.name == "manifest" {
				body = img
			}
			send := withBody(method, e.target, body, "Content-Type: "+typeImage)
			list = append(list, attack{name: e.name + "_" + method, send: send, want: want, allow: e.allow, section: "spec, Endpoints; RFC 9110 9.1, 15.5.6"})
		}
	}
	// A method that an option disables is rejected, and Allow does not name it
	// (RFC 9110 10.2.1). NoDelete does not keep clients from cancelling uploads.
	const off = "spec, Content Management (405); RFC 9110 10.2.1, 15.5.6"
	for _, e := range []struct{ name, target, allow string }{
		{"tag", "/v2/a/manifests/tag", "GET, HEAD"},
		{"manifest", "/v2/a/manifests/" + m, "GET, HEAD"},
		{"blob", "/v2/a/blobs/" + d, "GET, HEAD"},
		{"uploads", "/v2/a/blobs/uploads/", ""},
		{"push", "/v2/a/blobs/uploads/?digest=" + sha(img), ""},
		{"mount", "/v2/a/blobs/uploads/?from=b&mount=" + sha(elsewhere), ""},
		{"session", "/v2/a/blobs/uploads/{session}", "GET, HEAD"},
		{"tags", "/v2/a/tags/list", "GET, HEAD"},
		{"referrers", "/v2/a/referrers/" + m, "GET, HEAD"},
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
			list = append(list, attack{name: "read_only_" + e.name + "_" + method, send: withBody(method, e.target, img, "Content-Type: "+typeImage), want: "405", code: "UNSUPPORTED", section: off, opts: []registry.Option{registry.ReadOnly()}, check: func(t *testing.T, responses []*response) {
				qt.Check(t, qt.Equals(responses[0].Header.Get("Allow"), e.allow))
			}})
		}
	}
	noDelete := []registry.Option{registry.NoDelete()}
	list = append(list,
		attack{name: "no_delete_tag", send: request("DELETE", "/v2/a/manifests/tag"), want: "405", code: "UNSUPPORTED", allow: "GET, HEAD, PUT", section: off, opts: noDelete},
		attack{name: "no_delete_unknown_tag", send: request("DELETE", "/v2/a/manifests/unknown"), want: "405", code: "UNSUPPORTED", allow: "GET, HEAD, PUT", section: off, opts: noDelete},
		attack{name: "no_delete_manifest", send: request("DELETE", "/v2/a/manifests/"+m), want: "405", code: "UNSUPPORTED", allow: "GET, HEAD, PUT", section: off, opts: noDelete},
		attack{name: "no_delete_blob", send: request("DELETE", "/v2/a/blobs/"+d), want: "405", code: "UNSUPPORTED", allow: "GET, HEAD", section: off, opts: noDelete},
		attack{name: "no_delete_allows_cancel", send: request("DELETE", "/v2/a/blobs/uploads/{session}"), want: "204", section: "spec, Cancel a blob upload", opts: noDelete},
		attack{name: "no_delete_session_BREW", send: request("BREW", "/v2/a/blobs/uploads/{session}"), want: "405", allow: "GET, HEAD, PATCH, PUT, DELETE", section: off, opts: noDelete},
		attack{name: "referrers_off", send: request("GET", "/v2/a/referrers/"+m), want: "404", section: "spec, Unavailable Referrers API", opts: []registry.Option{registry.WithReferrersSupport(false)}},
	)
	const override = "RFC 9110 9.1: the method is the request line's"
	return append(list,
		attack{name: "override_by_header", send: request("GET", "/v2/a/manifests/tag", "X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"), want: "200", section: override},
		attack{name: "override_by_query", send: request("GET", "/v2/a/manifests/tag?_method=DELETE"), want: "200", section: override},
		attack{name: "OPTIONS_of_the_server", send: request("OPTIONS", "*"), want: "200|204|400|404|405", section: "RFC 9110 9.3.7"},
		attack{name: "GET_of_the_server", send: request("GET", "*"), want: "400|404", section: "RFC 9112 3.2.4"},
		attack{name: "CONNECT_to_a_host", send: request("CONNECT", "internal.example:443"), want: "400|404|405", section: "RFC 9110 9.3.6"},
		attack{name: "TRACE_does_not_echo", send: request("TRACE", "/v2/", "Cookie: "+secret), want: "405", section: "RFC 9110 9.3.8"},
		attack{name: "method_of_10000_characters", send: request(strings.Repeat("M", 10_000), "/v2/"), want: "400|405", section: "RFC 9110 9.1"},
		attack{name: "HEAD_error_has_no_body", send: request("HEAD", "/v2/A/tags/list") + request("GET", "/v2/"), want: "400|405 200", section: "RFC 9110 9.3.2"},
		attack{name: "HEAD_with_malformed_digest", send: request("HEAD", "/v2/a/blobs/sha256:x"), want: "400|404", section: "RFC 9110 9.3.2"},
	)
}
