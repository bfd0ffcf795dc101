// SPDX-License-Identifier: Apache-2.0

// Requests that two parsers could interpret differently, signatures, and options.

package attack

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

// ambiguous sends requests that a proxy, a scanner or another client could
// interpret differently from the registry. A handler cannot fix the findings
// caused by net/http, since it does not see the headers that conflict.
func ambiguous() (list []attack) {
	const (
		conditional = "RFC 9110 13.1.1, 13.1.2 (grammar)"
		every       = "RFC 9110 13.2.1 (MUST evaluate), 13.1.1 (MUST NOT perform)"
		singleton   = "RFC 9110 5.3, 8.3 (a list for a singleton: security issues)"
		both        = "RFC 9112 6.1 (MUST close the connection)"
	)
	ping := request("GET", "/v2/")
	blob := "/v2/a/blobs/" + sha(digits)
	session := "/v2/a/blobs/uploads/{session}"
	entity := `"` + sha(digits) + `"`
	bare := strings.Replace(img, `"mediaType":"`+typeImage+`",`, "", 1)
	add := func(name, send, want, actual, section string) {
		list = append(list, attack{name: name, send: send, want: want, actual: actual, section: section})
	}

	// The end of the message.
	add("coding_and_length", withChunks("PUT", "/v2/A/manifests/new", lastChunk+request("DELETE", "/v2/a/manifests/tag"), "Content-Length: 1000"), "400 closed", "400 202", both)                // FINDING: caused by net/http
	add("coding_and_length_of_a_push", withChunks("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), chunk(fresh)+lastChunk, "Content-Length: 5")+ping, "201|400 closed", "201 200", both)       // FINDING: caused by net/http
	add("coding_in_HTTP_1.0", "PUT /v2/a/manifests/new HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk(opaque)+lastChunk, "400|501", "201", "RFC 9112 6.1 (MUST treat as faulty framing)") // FINDING: caused by net/http
	add("coding_in_HTTP_1.0_of_a_blob", "POST /v2/a/blobs/uploads/?digest="+sha(fresh)+" HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk(fresh)+lastChunk, "400|501", "", "RFC 9112 6.1 (MUST treat as faulty framing)")
	add("two_lengths_in_one_header", request("PUT", "/v2/a/manifests/new", "Content-Length: 18, 5")+opaque, "400", "", "RFC 9112 6.3")
	add("GET_with_body", withBody("GET", blob, request("DELETE", "/v2/a/manifests/tag"))+ping, "200 200", "", "RFC 9110 9.3.1")

	// The target.
	add("no_host_in_the_target", request("GET", "http:///v2/"), "400", "200", "RFC 9110 4.2.1 (MUST reject)")          // FINDING: caused by net/http
	add("port_of_letters", "GET /v2/ HTTP/1.1\r\nHost: a:b\r\n\r\n", "400", "200", "RFC 9112 3.2 (invalid: MUST 400)") // FINDING: caused by net/http
	add("encoded_dots_after_a_name", request("GET", "/v2/a/%2e%2e/b/tags/list"), "400|404", "", "RFC 3986 6.2.2.3")
	add("encoded_word_of_the_API", request("GET", "/v2/a/%74ags/list"), "200", "", "RFC 3986 6.2.2.2")
	add("double_encoded_slash", request("GET", "/v2/a%252Fb/tags/list"), "400|404", "", "RFC 3986 2.4")
	add("encoded_slash_before_a_session", request("GET", "/v2/a/blobs/uploads/%2F{session}"), "400|404", "", "RFC 3986 2.2")

	// Conditions.
	add("star_in_a_list", request("GET", blob, `If-Match: *, "x"`), "400", "200", conditional)                                     // FINDING
	add("none_match_star_in_a_list", request("GET", blob, `If-None-Match: "x", *`), "400", "304", conditional)                     // FINDING
	add("delete_with_star_in_a_list", request("DELETE", "/v2/a/manifests/tag", `If-Match: "x", *`), "400|412", "202", conditional) // FINDING
	add("star_twice", request("DELETE", "/v2/a/manifests/tag", "If-Match: *", "If-Match: *"), "400|412", "202", conditional)       // FINDING
	add("two_stars", request("GET", blob, "If-Match: **"), "400|412", "", conditional)
	add("space_in_a_tag", request("GET", blob, `If-None-Match: "a b"`), "400", "200", "RFC 9110 8.8.3 (etagc)")                // FINDING
	add("control_character_in_a_tag", request("GET", blob, "If-None-Match: \"a\tb\""), "400", "200", "RFC 9110 8.8.3 (etagc)") // FINDING
	add("weak_in_lower_case", request("GET", blob, "If-None-Match: w/"+entity), "400", "", "RFC 9110 8.8.3 (case-sensitive)")
	add("weak_with_a_space", request("GET", blob, "If-None-Match: W/ "+entity), "400", "", "RFC 9110 8.8.3")
	add("weak_without_a_tag", request("GET", blob, "If-None-Match: W/"), "400", "", "RFC 9110 8.8.3")
	add("condition_in_two_headers", request("GET", blob, `If-Match: "x"`, "If-Match: "+entity), "200", "", "RFC 9110 5.3")
	add("tag_with_a_comma", request("GET", blob, `If-None-Match: "x,`+sha(digits)+`,y"`), "200", "", "RFC 9110 8.8.3")
	add("tag_with_a_backslash", request("GET", blob, `If-None-Match: "\", `+entity), "304", "", "RFC 9110 8.8.3 (no escapes)")
	add("absent_with_condition", request("GET", "/v2/a/manifests/unknown", "If-Match: *"), "404", "", "RFC 9110 13.2.1")
	add("malformed_name_with_condition", withBody("PUT", "/v2/a/manifests/.x", opaque, "If-Match: *"), "400", "", "RFC 9110 13.2.1")
	add("new_if_match_star", withBody("PUT", "/v2/a/manifests/new", opaque, "If-Match: *"), "412", "", every)
	add("cancel_if_match_other", request("DELETE", session, `If-Match: "x"`), "412", "204", every)                                            // FINDING
	add("patch_if_match_other", withBody("PATCH", session, fresh, `If-Match: "x"`), "412", "202", every)                                      // FINDING
	add("put_if_match_other", withBody("PUT", session+"?digest="+sha(hello+fresh), fresh, `If-Match: "x"`), "412", "201", every)              // FINDING
	add("list_if_match_other", request("GET", "/v2/a/tags/list", `If-Match: "x"`), "412", "200", every)                                       // FINDING
	add("list_if_none_match", request("GET", "/v2/a/tags/list", "If-None-Match: *"), "304", "200", "RFC 9110 13.1.2, 13.2.1 (MUST evaluate)") // FINDING

	// Ranges.
	add("chunk_with_empty_range", withBody("PATCH", session, fresh, "Content-Range:"), "400|416", "202", `spec, Pushing a blob in chunks ("It MUST match")`)                         // FINDING
	add("put_with_empty_range", withBody("PUT", session+"?digest="+sha(hello+fresh), fresh, "Content-Range:"), "400|416", "201", `spec, Pushing a blob in chunks ("It MUST match")`) // FINDING
	add("chunk_with_empty_range_and_another", withBody("PATCH", session, fresh, "Content-Range:", "Content-Range: 0-23"), "400|416", "", "RFC 9110 5.3")
	add("manifest_with_empty_range_and_another", withBody("PUT", "/v2/a/manifests/new", opaque, "Content-Range:", "Content-Range: bytes 0-17/100"), "400", "201", "RFC 9110 5.3, 9.3.4") // FINDING
	add("DELETE_with_range", request("DELETE", blob, "Range: bytes=0-1"), "202", "", "RFC 9110 14.2")
	add("PUT_with_range", withBody("PUT", "/v2/a/manifests/new", opaque, "Range: bytes=0-1"), "201", "", "RFC 9110 14.2")
	add("PATCH_with_range", withBody("PATCH", session, fresh, "Range: bytes=0-1"), "202", "", "RFC 9110 14.2")

	// The content.
	add("opaque_type_and_index_type", withBody("PUT", "/v2/a/manifests/new", `{"manifests":[`+descriptor(typeImage, fresh)+`]}`, "Content-Type: text/plain", "Content-Type: "+typeIndex), "400|404|415", "201", singleton) // FINDING
	add("image_type_and_opaque_type", withBody("PUT", "/v2/a/manifests/new", bare, "Content-Type: "+typeImage, "Content-Type: text/plain"), "400|415", "201", singleton)                                                   // FINDING
	add("duplicate_annotation", withBody("PUT", "/v2/a/manifests/new", strings.TrimSuffix(img, "}")+`,"annotations":{"a":"1","a":"2"}}`, "Content-Type: "+typeImage), "400", "201", "RFC 8259 4 (unpredictable)")          // FINDING: a list of referrers copies the annotations
	add("compressed_manifest", withBody("PUT", "/v2/a/manifests/new", opaque, "Content-Encoding: gzip"), "201|400|415", "", "RFC 9110 8.4 (MAY respond with 415)")
	add("type_in_upper_case_is_parsed", withBody("PUT", "/v2/a/manifests/new", "x", "Content-Type: "+strings.ToUpper(typeImage)), "400", "", "RFC 9110 8.3.1")
	add("type_with_parameters_is_parsed", withBody("PUT", "/v2/a/manifests/new", "x", "Content-Type: "+typeImage+"; charset=utf-8"), "400", "", "RFC 9110 8.3.1; spec, Pushing Manifests")
	add("accept_other_type", request("GET", "/v2/a/manifests/tag", "Accept: text/html"), "200|406", "", "RFC 9110 12.5.1")
	add("duplicate_tag", withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=x&tag=x", opaque), "201", "", "spec, Pushing Manifests (OCI-Tag)")
	add("tag_in_a_body", withBody("PUT", "/v2/a/manifests/"+sha("tag=x"), "tag=x", "Content-Type: application/x-www-form-urlencoded"), "201", "", "spec, Pushing Manifests (tag query parameters)")
	add("digest_in_a_body", withBody("POST", "/v2/a/blobs/uploads/", "digest="+sha(fresh), "Content-Type: application/x-www-form-urlencoded"), "202", "", "spec, Endpoints (end-4b)")
	add("method_in_a_body", withBody("POST", "/v2/a/manifests/tag", "_method=DELETE", "Content-Type: application/x-www-form-urlencoded"), "405", "", "RFC 9110 9.1")
	return list
}

// signatures pushes signed Docker schema 1 manifests, whose signatures determine
// the bytes over which the digest is computed.
func signatures() (list []attack) {
	const (
		payload = `{"fsLayers":[]`
		section = "Docker Image Manifest Version 2, Schema 1 (Signed Manifests)"
	)
	b64 := base64.RawURLEncoding.EncodeToString
	header := func(length, tail string) string {
		return b64([]byte(`{"formatLength":` + length + `,"formatTail":"` + tail + `","time":"2026-01-01T00:00:00Z"}`))
	}
	tail, all := b64([]byte("}")), fmt.Sprint(len(payload))
	doc := func(signatures string) string { return payload + `,"signatures":` + signatures + `}` }
	one := func(protected string) string { return doc(`[{"protected":"` + protected + `"}]`) }
	for _, c := range []struct{ name, body, want string }{
		{"well_formed", one(header(all, tail)), "201"},
		{"none", payload + "}", "400"},
		{"empty_list", doc("[]"), "400"},
		{"string", doc(`"x"`), "400"},
		{"number", doc("[1]"), "400"},
		{"null", doc("[null]"), "400"},
		{"empty_protected", one(""), "400"},
		{"not_base64", one("!!!"), "400"},
		{"not_JSON", one(b64([]byte("x"))), "400"},
		{"null_protected", one(b64([]byte("null"))), "400"},
		{"length_negative", one(header("-1", tail)), "400"},
		{"length_0", one(header("0", tail)), "400"},
		{"length_too_small", one(header("5", tail)), "400"},
		{"length_too_large", one(header("100000", tail)), "400"},
		{"length_of_2_63", one(header("9223372036854775807", tail)), "400"},
		{"length_out_of_range", one(header("99999999999999999999", tail)), "400"},
		{"length_is_a_float", one(header("14.5", tail)), "400"},
		{"length_is_a_string", one(header(`"14"`, tail)), "400"},
		{"length_of_the_whole_document", one(header(fmt.Sprint(len(one(header("000", tail)))), tail)), "400"},
		{"tail_empty", one(header(all, "")), "400"},
		{"tail_not_base64", one(header(all, "!")), "400"},
		{"tail_with_extra_member", one(header(all, b64([]byte(`,"x":1}`)))), "400"},
		{"tail_of_spaces", one(header(all, b64([]byte("\n}\n")))), "201|400"},
		{"10000_signatures", doc("[" + strings.TrimSuffix(strings.Repeat(`{"protected":"`+header(all, tail)+`"},`, 10_000), ",") + "]"), "201|400"},
		{"followed_by_another_member", strings.TrimSuffix(one(header(all, tail)), "}") + `,"fsLayers":[]}`, "400"},
		{"followed_by_fsLayers", `{"signatures":[{"protected":"` + header(all, tail) + `"}],"fsLayers":[]}`, "400"},
		{"twice", doc(`[{"protected":"` + header(all, tail) + `"}],"signatures":[]`), "400"},
	} {
		a := attack{name: c.name, send: withBody("PUT", "/v2/a/manifests/new", c.body, "Content-Type: "+typeSigned), want: c.want, section: section}
		if c.want == "400" {
			a.code = "MANIFEST_INVALID"
		}
		list = append(list, a)
	}
	return append(list,
		attack{name: "digest_of_the_payload", send: withBody("PUT", "/v2/a/manifests/"+sha(payload+"}"), one(header(all, tail)), "Content-Type: "+typeSigned), want: "201", section: section},
		attack{name: "digest_of_the_whole_document", send: withBody("PUT", "/v2/a/manifests/"+sha(one(header(all, tail))), one(header(all, tail)), "Content-Type: "+typeSigned), want: "400", code: "DIGEST_INVALID", section: section},
	)
}

// options attacks features that options enable.
func options() (list []attack) {
	const (
		ids   = "spec, POST then PUT (<blob-push-location>)"
		proxy = "spec, Registry Proxying"
	)
	// A client may choose an ID, but not a path.
	clientIDs := []registry.Option{registry.ClientUploadIDs()}
	for i, id := range []string{".", "..", "%2e%2e", "..%2f..", "%00", "%FF", "a%20b", "a%2Fb", "a;b", "a:b", "é", "%C3%A9", "%0d%0aX-Injected:%20yes", "%22", "%3Cscript%3E", "a%3Fb", strings.Repeat("x", 129), strings.Repeat("x", 10_000)} {
		list = append(list,
			attack{name: "client_ID_patch_" + label(i, id), send: withBody("PATCH", "/v2/a/blobs/uploads/"+id, fresh), want: "400|404", opts: clientIDs, section: ids},
			attack{name: "client_ID_put_" + label(i, id), send: withBody("PUT", "/v2/a/blobs/uploads/"+id+"?digest="+sha(fresh), fresh), want: "400|404", opts: clientIDs, section: ids},
			attack{name: "client_ID_status_" + label(i, id), send: request("GET", "/v2/a/blobs/uploads/"+id), want: "400|404", opts: clientIDs, section: ids},
		)
	}
	for _, a := range []attack{
		{name: "good", send: withBody("PATCH", "/v2/a/blobs/uploads/mine", fresh), want: "202"},
		{name: "put", send: withBody("PUT", "/v2/a/blobs/uploads/mine?digest="+sha(fresh), fresh), want: "201"},
		{name: "twice", send: withBody("PATCH", "/v2/a/blobs/uploads/mine", hello) + withBody("PUT", "/v2/a/blobs/uploads/mine?digest="+sha(hello+fresh), fresh), want: "202 201"},
		{name: "rejected_chunk_leaves_no_session", send: withBody("PATCH", "/v2/a/blobs/uploads/mine", fresh, "Content-Range: 5-28"), want: "416"},
		{name: "wrong_digest_leaves_no_session", send: withBody("PUT", "/v2/a/blobs/uploads/mine?digest="+sha(digits), fresh), want: "400", code: "DIGEST_INVALID"},
		{name: "malformed_digest_leaves_no_session", send: withBody("PUT", "/v2/a/blobs/uploads/mine?digest=x", fresh), want: "400", code: "DIGEST_INVALID"},
		{name: "status_opens_no_session", send: request("GET", "/v2/a/blobs/uploads/mine"), want: "404", code: "BLOB_UPLOAD_UNKNOWN"},
		{name: "cancel_opens_no_session", send: request("DELETE", "/v2/a/blobs/uploads/mine"), want: "404", code: "BLOB_UPLOAD_UNKNOWN"},
		{name: "of_another_repository", send: withBody("PATCH", "/v2/b/blobs/uploads/{session}", fresh, "Content-Range: 5-28"), want: "400|404|416"},
		{name: "in_two_repositories", send: withBody("PATCH", "/v2/a/blobs/uploads/mine", fresh) + request("GET", "/v2/b/blobs/uploads/mine") + withBody("PATCH", "/v2/b/blobs/uploads/mine", hello) + withBody("PUT", "/v2/a/blobs/uploads/mine?digest="+sha(fresh), "") + withBody("PUT", "/v2/b/blobs/uploads/mine?digest="+sha(hello), ""), want: "202 404 202 201 201"},
		{name: "malformed_name", send: withBody("PATCH", "/v2/A/blobs/uploads/mine", fresh), want: "400", code: "NAME_INVALID"},
	} {
		a.name, a.opts, a.section = "client_ID_"+a.name, clientIDs, ids
		list = append(list, a)
	}

	// ns selects one of the configured stores, for pulls only.
	namespaces := []registry.Option{registry.WithNamespaces(map[string]registry.Store{"docker.example": new(registry.MemStore)})}
	for i, ns := range []string{"", "unknown.example", "DOCKER.EXAMPLE", "docker.example:443", "docker.example%00", "docker.example%0d%0aX-Injected:%20yes", "docker.example/", "http://docker.example", "169.254.169.254", "localhost", "..", strings.Repeat("n", 10_000)} {
		list = append(list, attack{name: "unknown_namespace_" + label(i, ns), send: request("GET", "/v2/a/blobs/"+sha(digits)+"?ns="+ns), want: "200", opts: namespaces, section: proxy + ` ("MAY choose to ignore")`, check: func(t *testing.T, responses []*response) {
			qt.Check(t, qt.Equals(responses[0].Header.Get("OCI-Namespace"), ""))
		}})
	}
	for _, a := range []attack{
		{name: "pull", send: request("GET", "/v2/a/blobs/"+sha(digits)+"?ns=docker.example"), want: "404"},
		{name: "pull_manifest", send: request("GET", "/v2/a/manifests/tag?ns=docker.example"), want: "404"},
		{name: "head", send: request("HEAD", "/v2/a/manifests/tag?ns=docker.example"), want: "404"},
		{name: "tags", send: request("GET", "/v2/a/tags/list?ns=docker.example"), want: "404"},
		{name: "twice", send: request("GET", "/v2/a/manifests/tag?ns=docker.example&ns=unknown.example"), want: "200|404"},
		{name: "delete", send: request("DELETE", "/v2/a/manifests/unknown?ns=docker.example"), want: "404"},
		{name: "put", send: withBody("PUT", "/v2/a/manifests/new?ns=docker.example", opaque) + request("GET", "/v2/a/manifests/new"), want: "201 200"},
		{name: "malformed_name", send: request("GET", "/v2/A/manifests/tag?ns=docker.example"), want: "400"},
		{name: "session_status", send: request("GET", "/v2/a/blobs/uploads/{session}?ns=docker.example"), want: "204"},
	} {
		a.name, a.opts, a.section = "namespace_"+a.name, namespaces, proxy
		list = append(list, a)
	}

	// A warning is the registry's own text, whatever the request.
	warnings := []registry.Option{registry.WithWarning(1, "a \"warning\"\r\nX-Injected: yes")}
	for _, a := range []attack{
		{name: "ping", send: request("GET", "/v2/"), want: "200"},
		{name: "error", send: request("GET", "/v2/A/tags/list"), want: "400", code: "NAME_INVALID"},
		{name: "304", send: request("GET", "/v2/a/blobs/"+sha(digits), "If-None-Match: *"), want: "304"},
	} {
		a.name, a.opts, a.section = "warning_"+a.name, warnings, "spec, Warnings"
		a.check = func(t *testing.T, responses []*response) {
			qt.Check(t, qt.Matches(responses[0].Header.Get("Warning"), `299 - ".*"`))
		}
		list = append(list, a)
	}
	// AllowSparse accepts missing content, but not malformed manifests.
	sparse := []registry.Option{registry.AllowSparse()}
	for _, a := range []attack{
		{name: "absent_layer", send: withBody("PUT", "/v2/a/manifests/new", image(fresh), "Content-Type: "+typeImage), want: "201"},
		{name: "absent_child", send: withBody("PUT", "/v2/a/manifests/new", index(descriptor(typeImage, fresh)), "Content-Type: "+typeIndex), want: "201"},
		{name: "malformed_digest", send: withBody("PUT", "/v2/a/manifests/new", `{"layers":[{"digest":"sha256:../x"}]}`, "Content-Type: "+typeImage), want: "400", code: "MANIFEST_INVALID"},
		{name: "image_and_index", send: withBody("PUT", "/v2/a/manifests/new", `{"layers":[],"manifests":[]}`, "Content-Type: "+typeImage), want: "400", code: "MANIFEST_INVALID"},
		{name: "wrong_digest", send: withBody("PUT", "/v2/a/manifests/"+sha(fresh), image(fresh), "Content-Type: "+typeImage), want: "400", code: "DIGEST_INVALID"},
	} {
		a.name, a.opts, a.section = "sparse_"+a.name, sparse, "spec, Push (MAY reject); image-spec, manifest.md"
		list = append(list, a)
	}
	return list
}
