// SPDX-License-Identifier: Apache-2.0

// Ranges and conditions, malformed manifests, queries, uploads and limits.

package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

// bodyIs checks the body of the first response.
func bodyIs(want string) func(*testing.T, []*response) {
	return func(t *testing.T, responses []*response) { qt.Check(t, qt.Equals(string(responses[0].body), want)) }
}

// ranges requests ranges of a blob of 10 bytes.
func ranges() (list []attack) {
	const (
		part          = "RFC 9110 14.1.2, 15.3.7"
		ignored       = "RFC 9110 14.2 (MUST ignore)"
		unsatisfiable = "RFC 9110 14.1.1, 15.5.17"
	)
	blob := "/v2/a/blobs/" + sha(digits)
	add := func(name, value, want, section string, check func(*testing.T, []*response)) {
		list = append(list, attack{name: name, send: request("GET", blob, "Range: "+value), want: want, section: section, check: check})
	}
	for i, c := range []struct{ value, body string }{
		{"bytes=0-0", "0"}, {"bytes=0-9", digits}, {"bytes=0-", digits}, {"bytes=9-", "9"}, {"bytes=-1", "9"}, {"bytes=-10", digits}, {"bytes=-11", digits},
		{"bytes=3-99", "3456789"}, {"bytes=3-" + strings.Repeat("9", 5000), "3456789"}, {"bytes=" + strings.Repeat("0", 5000) + "3-4", "34"}, {"bytes=-" + strings.Repeat("9", 5000), digits},
		{"BYTES=3-4", "34"}, {"bytes= 3-4 ", "34"}, {"bytes=,,3-4,", "34"},
	} {
		add("part_"+label(i, c.value), c.value, "206", part, bodyIs(c.body))
	}
	for i, value := range []string{"bytes=10-", "bytes=10-20", "bytes=99-100", "bytes=" + strings.Repeat("9", 5000) + "-", "bytes=18446744073709551616-18446744073709551617", "bytes=-0", "bytes=-00", "bytes=5-2", "bytes=-", "bytes=x", "bytes=1", "bytes=--1", "bytes=1--2", "bytes=+1-2", "bytes=1-+2", "bytes=0x1-0x2", "bytes=1.0-2.0", "bytes=1-2-3", "bytes=٣-٤", "bytes=1-2;x"} {
		add("unsatisfiable_"+label(i, value), value, "416", unsatisfiable, func(t *testing.T, responses []*response) {
			qt.Check(t, qt.Equals(responses[0].Header.Get("Content-Range"), "bytes */10"))
		})
	}
	for i, value := range []string{"lines=1-2", "bytes", "=", "", "1-2", "bytes 1-2", "bytes:1-2", "x=1-2", "byte=1-2", "bytes=", "bytes=,", "bytes=" + strings.Repeat("1-1,", 10_000) + "1-1"} {
		add("ignored_"+label(i, value), value, "200|416", ignored, func(t *testing.T, responses []*response) {
			if responses[0].StatusCode == 200 {
				bodyIs(digits)(t, responses)
			}
		})
	}
	add("two", "bytes=0-1,3-4", "206", part, nil)
	add("overlapping", "bytes=0-9,0-9,0-9", "206|200", "RFC 9110 14.2, 17.15", nil)
	add("100_ranges_of_one_byte", "bytes="+strings.TrimSuffix(strings.Repeat("0-0,", 100), ","), "206|200", "RFC 9110 14.2, 17.15", nil)
	add("one_satisfiable_of_two", "bytes=99-,3-4", "206", part, bodyIs("34"))
	return append(list,
		attack{name: "HEAD", send: request("HEAD", blob, "Range: bytes=3-4"), want: "200", section: "RFC 9110 14.2"},
		attack{name: "empty_blob", send: request("GET", "/v2/a/blobs/"+sha(""), "Range: bytes=0-"), want: "200|416", section: unsatisfiable},
		attack{name: "suffix_of_empty_blob", send: request("GET", "/v2/a/blobs/"+sha(""), "Range: bytes=-1"), want: "200|416", section: unsatisfiable},
		attack{name: "manifest", send: request("GET", "/v2/b/manifests/tag", "Range: bytes=0-1"), want: "206|200", section: part},
		attack{name: "absent_blob", send: request("GET", "/v2/a/blobs/"+sha(fresh), "Range: bytes=0-1"), want: "404", code: "BLOB_UNKNOWN", section: "spec, Pulling blobs"},
		attack{name: "tag_list", send: request("GET", "/v2/a/tags/list", "Range: bytes=0-1"), want: "200", section: "RFC 9110 14.2"},
		attack{name: "if_range_mismatch", send: request("GET", blob, "Range: bytes=3-4", `If-Range: "x"`), want: "200", section: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "if_range_weak", send: request("GET", blob, "Range: bytes=3-4", `If-Range: W/"`+sha(digits)+`"`), want: "200", section: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "if_range_match", send: request("GET", blob, "Range: bytes=3-4", `If-Range: "`+sha(digits)+`"`), want: "206", section: "RFC 9110 13.1.5", check: bodyIs("34")},
		attack{name: "if_range_date", send: request("GET", blob, "Range: bytes=3-4", "If-Range: Tue, 15 Nov 1994 12:45:26 GMT"), want: "200", section: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "twice", send: request("GET", blob, "Range: bytes=3-4", "Range: bytes=5-6"), want: "200|206|400|416", section: "RFC 9110 5.3"},
	)
}

// conditions makes requests conditional on the current entity tag, which is the
// digest in quotes.
func conditions() (list []attack) {
	const (
		match     = "RFC 9110 13.1.1"
		none      = "RFC 9110 13.1.2"
		malformed = "RFC 9110 8.8.3, 13.1"
		bounded   = "RFC 9110 5.4 (a field larger than the server wishes to process)"
	)
	tag := func(content string) string { return `"` + sha(content) + `"` }
	for _, c := range []struct {
		name, line        string
		get, head, remove string // expected for GET and HEAD of a blob, and DELETE of a tag
		section           string
	}{
		{"match", "If-Match: " + tag(img), "412", "412", "202", match},
		{"match_any", "If-Match: *", "200", "200", "202", match},
		{"match_other_tag", `If-Match: "x"`, "412", "412", "412", match},
		{"match_weak", "If-Match: W/" + tag(img), "412", "412", "412", match},
		{"match_in_a_list", `If-Match: "x,y" , ` + tag(img) + `,, "z"`, "412", "412", "202", match},
		{"match_empty", "If-Match:", "412", "412", "412", match},
		{"none_match_any", "If-None-Match: *", "304", "304", "412", none},
		{"none_match", "If-None-Match: " + tag(img), "200", "200", "412", none},
		{"none_match_weak", "If-None-Match: W/" + tag(img), "200", "200", "412", none},
		{"none_match_other_tag", `If-None-Match: "x"`, "200", "200", "202", none},
		{"both_true", "If-Match: *\r\nIf-None-Match: \"x\"", "200", "200", "202", match + ", 13.2.2"},
		{"one_true", "If-Match: *\r\nIf-None-Match: *", "304", "304", "412", match + ", 13.2.2"},
		{"neither_true", "If-Match: \"x\"\r\nIf-None-Match: *", "412", "412", "412", match + ", 13.2.2"},
		{"unquoted", "If-Match: " + sha(img), "400|412", "400|412", "400|412", malformed},
		{"unterminated", `If-Match: "` + sha(img), "400|412", "400|412", "400|412", malformed},
		{"missing_comma", `If-Match: "x" ` + tag(img), "400|412", "400|412", "400|412", malformed},
		{"none_match_unquoted", "If-None-Match: " + sha(img), "400|200", "400|200", "400|202", malformed},
		{"100_tags", "If-Match: " + strings.Repeat(`"x",`, 99) + `"y"`, "412", "412", "412", match},
		{"101_tags", "If-Match: " + strings.Repeat(`"x",`, 100) + `"y"`, "400", "400", "400", bounded},
		{"none_match_101_tags", "If-None-Match: " + strings.Repeat(`"x",`, 100) + `"y"`, "400", "400", "400", bounded},
		{"101_tags_in_as_many_lines", strings.TrimSuffix(strings.Repeat("If-Match: \"x\"\r\n", 101), "\r\n"), "400", "400", "400", bounded},
		{"50001_tags", "If-Match: " + strings.Repeat(`"x",`, 50_000) + `"y"`, "400", "400", "400", bounded},
		{"unmodified_since", "If-Unmodified-Since: Tue, 15 Nov 1994 12:45:26 GMT", "200|412", "200|412", "202|412", "RFC 9110 13.1.4"},
	} {
		list = append(list,
			attack{name: "get_" + c.name, send: request("GET", "/v2/a/blobs/"+sha(digits), c.line), want: c.get, section: c.section},
			attack{name: "head_" + c.name, send: request("HEAD", "/v2/a/blobs/"+sha(digits), c.line), want: c.head, section: c.section},
			attack{name: "delete_" + c.name, send: request("DELETE", "/v2/a/manifests/tag", c.line), want: c.remove, section: c.section},
			attack{name: "delete_absent_" + c.name, send: request("DELETE", "/v2/a/manifests/"+sha(fresh), c.line), want: "404|400", section: c.section + ", 13.2.1"},
			attack{name: "delete_absent_blob_" + c.name, send: request("DELETE", "/v2/a/blobs/"+sha(fresh), c.line), want: "404|400", section: c.section + ", 13.2.1"},
		)
	}
	return append(list,
		attack{name: "put_new", send: withBody("PUT", "/v2/a/manifests/new", opaque, "If-None-Match: *"), want: "201", section: none},
		attack{name: "put_existing", send: withBody("PUT", "/v2/a/manifests/tag", opaque, "If-None-Match: *"), want: "412", section: none},
		attack{name: "put_over_other_manifest", send: withBody("PUT", "/v2/a/manifests/tag", opaque, "If-Match: "+tag(idx)), want: "412", section: match},
		attack{name: "put_over_expected_manifest", send: withBody("PUT", "/v2/a/manifests/tag", opaque, "If-Match: "+tag(img)), want: "201", section: match},
		attack{name: "put_one_of_two_tags_exists", send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=new&tag=tag", opaque, "If-None-Match: *"), want: "412", section: none},
		attack{name: "put_twice", send: strings.Repeat(withBody("PUT", "/v2/a/manifests/new", opaque, "If-None-Match: *"), 2), want: "201 412", section: none},
	)
}

// jsonBombs pushes manifests that are costly to parse, or malformed.
func jsonBombs() (list []attack) {
	const (
		grammar   = "spec, Pushing Manifests (MANIFEST_INVALID); RFC 8259 2"
		unique    = "RFC 8259 4 (names SHOULD be unique; parsers differ)"
		required  = "image-spec, manifest.md, image-index.md (REQUIRED); Error Codes (MANIFEST_INVALID)"
		shape     = "image-spec, manifest.md; spec, Pushing Manifests"
		text      = "RFC 8259 8.1 (MUST be UTF-8)"
		tooLarge  = "spec, Pushing Manifests (limit the size); RFC 9110 15.5.14"
		confusion = "CVE-2021-41190; image-spec, manifest.md, index.md"
	)
	const limit = 4 << 20
	layer := descriptor(typeLayer, digits)
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	// wrap makes a complete manifest, so that no case fails for the lack of a
	// member.
	wrap := func(members string) string {
		if !strings.Contains(members, `"layers":`) {
			members = `"layers":[],` + members
		}
		if !strings.Contains(members, `"config":`) {
			members = `"config":` + descriptor(typeConfig, config) + `,` + members
		}
		return `{"schemaVersion":2,` + members + `}`
	}
	for _, c := range []struct{ name, mediaType, body, want, code, section string }{
		{"empty", typeImage, "", "400", "MANIFEST_INVALID", grammar},
		{"not_JSON", typeImage, "\x7fELF", "400", "MANIFEST_INVALID", grammar},
		{"null", typeImage, "null", "400", "MANIFEST_INVALID", shape},
		{"number", typeImage, "1e400", "400", "MANIFEST_INVALID", shape},
		{"string", typeImage, `"x"`, "400", "MANIFEST_INVALID", shape},
		{"array", typeIndex, "[]", "400", "MANIFEST_INVALID", shape},
		{"truncated", typeImage, img[:len(img)-1], "400", "MANIFEST_INVALID", grammar},
		{"two_documents", typeImage, img + img, "400", "MANIFEST_INVALID", grammar},
		{"trailing_byte", typeImage, img + "x", "400", "MANIFEST_INVALID", grammar},
		{"trailing_spaces", typeImage, img + " \r\n\t", "201", "", grammar},
		{"trailing_NUL", typeImage, img + "\x00", "400", "MANIFEST_INVALID", grammar},
		{"extra_comma", typeImage, strings.TrimSuffix(img, "}") + ",}", "400", "MANIFEST_INVALID", grammar},
		{"comment", typeImage, strings.TrimSuffix(img, "}") + "/*x*/}", "400", "MANIFEST_INVALID", grammar},
		{"byte_order_mark", typeImage, "\ufeff" + img, "400", "MANIFEST_INVALID", "RFC 8259 8.1"},
		{"UTF-16", typeImage, "\xff\xfe{\x00}\x00", "400", "MANIFEST_INVALID", text},
		{"invalid_UTF-8_in_a_string", typeImage, wrap("\"annotations\":{\"a\":\"\xff\"}"), "400", "MANIFEST_INVALID", text},
		{"invalid_UTF-8_in_a_key", typeImage, wrap("\"\xff\":1"), "400", "MANIFEST_INVALID", text},
		{"lone_surrogate", typeImage, wrap(`"annotations":{"a":"\ud800"}`), "201|400", "", "RFC 8259 8.2"},
		{"NUL_in_a_string", typeImage, wrap(`"annotations":{"a":"\u0000"}`), "201|400", "", "RFC 8259 7"},
		{"deep_array", typeImage, `{"a":` + strings.Repeat("[", 1_000_000), "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"deep_object", typeImage, strings.Repeat(`{"a":`, 500_000), "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"deep_but_closed", typeImage, wrap(`"a":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000)), "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"1000_levels_deep", typeImage, wrap(`"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), "201", "", "RFC 8259 9"},
		{"long_number", typeImage, wrap(`"a":` + strings.Repeat("9", 1_000_000)), "201|400", "", "RFC 8259 6"},
		{"number_out_of_range", typeImage, wrap(`"a":1e999999999`), "201|400", "", "RFC 8259 6"},
		{"long_string", typeImage, wrap(`"a":"` + strings.Repeat("x", 1_000_000) + `"`), "201", "", "RFC 8259 7"},
		{"long_key", typeImage, wrap(`"` + strings.Repeat("x", 1_000_000) + `":1`), "201", "", "RFC 8259 7"},
		{"10000_layers", typeImage, wrap(`"layers":[` + many(10_000, layer) + `]`), "201", "", shape},
		{"10000_absent_layers", typeImage, wrap(`"layers":[` + many(10_000, descriptor(typeLayer, fresh)) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"million_empty_layers", typeImage, wrap(`"layers":[` + many(1_000_000, "{}") + `]`), "400", "MANIFEST_INVALID", shape},
		{"800000_nulls", typeImage, wrap(`"layers":[` + many(800_000, "null") + `]`), "400", "MANIFEST_INVALID", shape},
		{"10000_children", typeIndex, `{"manifests":[` + many(10_000, descriptor(typeImage, img)) + `]}`, "201", "", shape},
		{"10000_unknown_members", typeImage, wrap(members(10_000)), "201", "", shape},
		{"100000_annotations", typeImage, wrap(`"annotations":{` + members(100_000) + `}`), "400", "MANIFEST_INVALID", shape},
		{"duplicate_layers", typeImage, wrap(`"layers":[],"layers":[` + layer + `]`), "400", "MANIFEST_INVALID", unique},
		{"duplicate_config", typeImage, wrap(`"config":` + layer + `,"config":` + descriptor(typeConfig, config)), "400", "MANIFEST_INVALID", unique},
		{"duplicate_mediaType", typeImage, wrap(`"mediaType":"` + typeImage + `","mediaType":"` + typeImage + `"`), "400", "MANIFEST_INVALID", unique},
		{"duplicate_digest", typeImage, wrap(`"layers":[{"digest":"` + sha(digits) + `","digest":"` + sha(config) + `"}]`), "400", "MANIFEST_INVALID", unique},
		{"member_in_upper_case", typeImage, wrap(`"LAYERS":[` + layer + `]`), "400", "MANIFEST_INVALID", unique},
		{"member_with_a_long_s", typeImage, wrap("\"layer\u017f\":[" + layer + "]"), "400", "MANIFEST_INVALID", unique},
		{"escaped_duplicate_member", typeImage, wrap(`"\u006cayers":[],"layers":[]`), "400", "MANIFEST_INVALID", unique},
		{"layers_is_an_object", typeImage, wrap(`"layers":{}`), "400", "MANIFEST_INVALID", shape},
		{"layers_is_a_string", typeImage, wrap(`"layers":"x"`), "400", "MANIFEST_INVALID", shape},
		{"config_is_an_array", typeImage, wrap(`"config":[]`), "400", "MANIFEST_INVALID", shape},
		{"subject_is_a_string", typeImage, wrap(`"subject":"` + sha(img) + `"`), "400", "MANIFEST_INVALID", shape},
		{"subject_without_a_digest", typeImage, wrap(`"subject":{}`), "400", "MANIFEST_INVALID", shape},
		{"subject_digest_is_a_path", typeImage, wrap(`"subject":{"digest":"../../x"}`), "400", "MANIFEST_INVALID", shape},
		{"digest_is_a_path", typeImage, wrap(`"layers":[{"digest":"sha256:../../../../etc/passwd"}]`), "400", "MANIFEST_INVALID", shape},
		{"digest_in_upper_case", typeImage, wrap(`"layers":[{"digest":"` + strings.ToUpper(sha(digits)) + `"}]`), "400", "MANIFEST_INVALID", shape},
		{"digest_too_short", typeImage, wrap(`"layers":[{"digest":"` + sha(digits)[:70] + `"}]`), "400", "MANIFEST_INVALID", shape},
		{"digest_is_a_number", typeImage, wrap(`"layers":[{"digest":1}]`), "400", "MANIFEST_INVALID", shape},
		{"digest_is_null", typeImage, wrap(`"layers":[{"digest":null}]`), "400", "MANIFEST_INVALID", shape},
		{"annotations_is_a_list", typeImage, wrap(`"annotations":[]`), "400", "MANIFEST_INVALID", shape},
		{"annotation_is_a_number", typeImage, wrap(`"annotations":{"a":1}`), "400", "MANIFEST_INVALID", shape},
		{"annotation_is_null", typeImage, wrap(`"annotations":{"a":null}`), "400", "MANIFEST_INVALID", shape},
		{"size_negative", typeImage, wrap(`"layers":[{"digest":"` + sha(digits) + `","size":-1}]`), "201|400", "", shape},
		{"blob_of_another_repository", typeImage, wrap(`"layers":[` + descriptor(typeLayer, elsewhere) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"manifest_as_layer", typeImage, wrap(`"layers":[` + descriptor(typeImage, img) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"blob_as_child", typeIndex, index(descriptor(typeImage, digits)), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"image_with_manifests", typeImage, wrap(`"manifests":[]`), "400", "MANIFEST_INVALID", confusion},
		{"index_with_config", typeIndex, `{"manifests":[],"config":` + layer + `}`, "400", "MANIFEST_INVALID", confusion},
		{"incomplete_image", typeImage, "{}", "400", "MANIFEST_INVALID", required},
		{"image_without_layers", typeImage, `{"schemaVersion":2,"config":` + descriptor(typeConfig, config) + `}`, "400", "MANIFEST_INVALID", required},
		{"image_without_a_config", typeImage, `{"schemaVersion":2,"layers":[]}`, "400", "MANIFEST_INVALID", required},
		{"incomplete_Docker_image", typeDocker, "{}", "400", "MANIFEST_INVALID", required},
		{"incomplete_index", typeIndex, "{}", "400", "MANIFEST_INVALID", required},
		{"incomplete_Docker_list", typeDockerList, "{}", "400", "MANIFEST_INVALID", required},
		{"incomplete_schema_1", typeSchema1, "{}", "400", "MANIFEST_INVALID", required},
		{"empty_index", typeIndex, `{"manifests":[]}`, "201", "", required},
		{"at_the_limit", typeImage, wrap(`"a":"x"`) + strings.Repeat(" ", limit-len(wrap(`"a":"x"`))), "201", "", tooLarge},
		{"over_the_limit", typeImage, wrap(`"a":"x"`) + strings.Repeat(" ", limit+1-len(wrap(`"a":"x"`))), "413", "SIZE_INVALID", tooLarge},
	} {
		list = append(list,
			attack{name: c.name, send: withBody("PUT", "/v2/a/manifests/new", c.body, "Content-Type: "+c.mediaType), want: c.want, code: c.code, section: c.section},
			attack{name: c.name + "_streamed", send: withChunks("PUT", "/v2/a/manifests/new", chunked(c.body), "Content-Type: "+c.mediaType), want: c.want, code: c.code, section: c.section},
		)
	}
	return list
}

// chunked returns body in large chunks.
func chunked(body string) string {
	var b strings.Builder
	for len(body) > 1_000_000 {
		b.WriteString(chunk(body[:1_000_000]))
		body = body[1_000_000:]
	}
	if body != "" {
		b.WriteString(chunk(body))
	}
	return b.String() + lastChunk
}

// members returns n+1 members of a JSON object.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%d":%d,`, i, i)
	}
	return b.String() + `"z":0`
}

// mediaTypes pushes manifests whose Content-Type is malformed or disagrees with
// the body.
func mediaTypes() (list []attack) {
	const (
		grammar   = "RFC 9110 8.3.1; spec, Pushing Manifests"
		agree     = "spec, Pushing Manifests (Content-Type MUST match mediaType); CVE-2021-41190"
		parameter = "spec, Pushing Manifests (SHOULD NOT include parameters)"
		length    = "RFC 6838 4.2 (each name has at most 127 characters)"
	)
	docker := strings.Replace(img, typeImage, typeDocker, 1)
	for i, c := range []struct{ mediaType, body, want, section string }{
		{typeImage, img, "201", agree}, {strings.ToUpper(typeImage), img, "201", grammar}, {typeImage + "; charset=utf-8", img, "201", parameter}, {typeImage + ";", img, "201", parameter}, {typeImage + ";;;=", img, "201|400", parameter},
		{typeIndex, idx, "201", agree}, {typeDocker, docker, "201", agree},
		{typeIndex, img, "400", agree}, {typeImage, idx, "400", agree}, {typeDocker, img, "400", agree}, {typeImage, docker, "400", agree}, {typeDockerList, idx, "400", agree},
		{"application/json", img, "400", agree}, {"application/octet-stream", img, "400", agree}, {"text/html", img, "400", agree}, {"text/html", idx, "400", agree},
		{typeSchema1, `{"fsLayers":[],"layers":[]}`, "400", agree}, {typeSigned, `{"fsLayers":[]}`, "400", agree}, {typeSigned, "{}", "400", agree},
		{"application/vnd.oci.image.manifest.v2+json", img, "400", agree},
		{"image", img, "400", grammar}, {"/", img, "400", grammar}, {"application/", img, "400", grammar}, {"/json", img, "400", grammar}, {"a/b/c", img, "400", grammar}, {"application json", img, "400", grammar}, {"application/json, text/html", opaque, "400", grammar}, {"*/*", opaque, "201|400", grammar}, {`"text/html"`, opaque, "400", grammar}, {"täxt/html", opaque, "400", grammar}, {strings.Repeat("a", 10_000) + "/b", opaque, "400", length},
		{strings.Repeat("a", 127) + "/" + strings.Repeat("b", 127), opaque, "201", length}, {strings.Repeat("a", 127) + "/" + strings.Repeat("b", 128), opaque, "400", length}, {"text/plain;x=" + strings.Repeat("x", 1000), opaque, "201", length},
		{"text/html", opaque, "201", grammar}, {"text/plain", "<script>", "201", grammar},
	} {
		list = append(list, attack{name: label(i, c.mediaType), send: withBody("PUT", "/v2/a/manifests/new", c.body, "Content-Type: "+c.mediaType), want: c.want, code: map[bool]string{true: "MANIFEST_INVALID"}[c.want == "400"], section: c.section})
	}
	// A browser that follows a link to content pushed as HTML must not run it.
	harmless := func(t *testing.T, responses []*response) {
		h := responses[len(responses)-1].Header
		qt.Check(t, qt.Equals(h.Get("X-Content-Type-Options"), "nosniff"))
		qt.Check(t, qt.IsTrue(!strings.Contains(h.Get("Content-Type"), "html") || strings.Contains(h.Get("Content-Security-Policy"), "sandbox")))
	}
	return append(list,
		attack{name: "html", send: withBody("PUT", "/v2/a/manifests/new", "<script>alert(1)</script>", "Content-Type: text/html") + request("GET", "/v2/a/manifests/new"), want: "201 200", section: "RFC 9110 17.1", check: harmless},
		attack{name: "html_blob", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, "Content-Type: text/html") + request("GET", "/v2/a/blobs/"+sha(fresh)), want: "201 200", section: "RFC 9110 17.1", check: harmless},
		attack{name: "none", send: withBody("PUT", "/v2/a/manifests/new", img), want: "201", section: agree},
		attack{name: "none_and_not_JSON", send: withBody("PUT", "/v2/a/manifests/new", opaque), want: "201|400", section: agree},
		attack{name: "two", send: withBody("PUT", "/v2/a/manifests/new", img, "Content-Type: "+typeImage, "Content-Type: "+typeIndex), want: "201|400", section: "RFC 9110 5.3"},
		attack{name: "same_bytes_with_another_type", send: withBody("PUT", "/v2/a/manifests/"+sha(opaque), opaque, "Content-Type: text/plain") + withBody("PUT", "/v2/a/manifests/"+sha(opaque), opaque, "Content-Type: text/html") + request("GET", "/v2/a/manifests/"+sha(opaque)), want: "201 400 200", section: "spec, Pulling manifests (content-addressed); Error Codes (MANIFEST_INVALID)", check: func(t *testing.T, responses []*response) {
			qt.Check(t, qt.Equals(responses[2].Header.Get("Content-Type"), "text/plain"))
		}},
	)
}

// queries sends parameters that are malformed, too large or duplicated.
func queries() (list []attack) {
	const (
		number = "spec, Listing Tags (n)"
		parse  = "RFC 3986 2.1, 3.4"
		digest = "spec, Digests"
	)
	for _, path := range []string{"/v2/a/tags/list", "/v2/_catalog", "/v2/a/referrers/" + sha(img)} {
		kind := strings.Split(path, "/")[3-strings.Count(path, "_")]
		for i, n := range []string{"-1", "x", "1.5", "0x1", "1e3", "%2B1", "", "%20", "1%00", "٣", "--1", "1,2"} {
			list = append(list, attack{name: kind + "_malformed_n_" + label(i, n), send: request("GET", path+"?n="+n), want: "400", code: "UNSUPPORTED", section: number})
		}
		for i, n := range []string{"0", "1", "00001", "9223372036854775807", "9223372036854775808", "18446744073709551616", strings.Repeat("9", 5000)} {
			list = append(list, attack{name: kind + "_n_" + label(i, n), send: request("GET", path+"?n="+n), want: "200", section: number})
		}
		for i, last := range []string{"zzz", "", "%00", "%FF", "%0d%0aX-Injected:%20yes", "../..", strings.Repeat("z", 10_000), "%3Cscript%3E", "\"", "%22%3E%3Brel=%22next"} {
			list = append(list, attack{name: kind + "_last_" + label(i, last), send: request("GET", path+"?n=1&last="+last), want: "200", section: "spec, Listing Tags (last)"})
		}
		for i, query := range []string{"%", "%zz", "a=%", "n=1%", ";", "n=1;last=a"} {
			list = append(list, attack{name: kind + "_malformed_" + label(i, query), send: request("GET", path+"?"+query), want: "400", section: parse})
		}
		for i, query := range []string{"", "?", "&&&", "=", "x=y", "n=1&n=2", strings.Repeat("x=y&", 5000)} {
			list = append(list, attack{name: kind + "_odd_" + label(i, query), send: request("GET", path+"?"+query), want: "200", section: parse})
		}
	}
	for i, d := range []string{"", "sha256:", "sha256:x", "x", "sha256", ":", "md5:d41d8cd98f00b204e9800998ecf8427e", sha(fresh) + "0", strings.ToUpper(sha(fresh)), sha(fresh)[:70], "sha256:../../x", "%00", "%FF", "sha256%3A", strings.Repeat("a", 10_000), "sha256:" + strings.Repeat("0", 10_000)} {
		list = append(list,
			attack{name: "push_" + label(i, d), send: withBody("POST", "/v2/a/blobs/uploads/?digest="+d, fresh), want: "400", code: "DIGEST_INVALID", section: digest},
			attack{name: "put_" + label(i, d), send: withBody("PUT", "/v2/a/blobs/uploads/{session}?digest="+d, fresh), want: "400", code: "DIGEST_INVALID", section: digest},
			attack{name: "mount_" + label(i, d), send: withBody("POST", "/v2/a/blobs/uploads/?from=b&mount="+d, ""), want: "400|202", section: digest},
			attack{name: "referrers_" + label(i, d), send: request("GET", "/v2/a/referrers/"+d), want: "400|404", section: digest},
		)
	}
	for i, from := range []string{"A", "..", "../b", "a/../b", "/b", "b/", "%00", "b%00", strings.Repeat("b", 10_000), "b%2F..%2Fa"} {
		list = append(list, attack{name: "mount_from_" + label(i, from), send: withBody("POST", "/v2/a/blobs/uploads/?mount="+sha(elsewhere)+"&from="+from, ""), want: "400|202", section: "spec, Mounting a blob from another repository"})
	}
	for i, algorithm := range []string{"md5", "x", "sha256:", "sha-256", "%00", "SHA256", strings.Repeat("a", 10_000)} {
		list = append(list, attack{name: "algorithm_" + label(i, algorithm), send: withBody("POST", "/v2/a/blobs/uploads/?digest-algorithm="+algorithm, ""), want: "400", code: "DIGEST_INVALID", section: "spec, POST then PUT (digest-algorithm)"})
	}
	for _, n := range []int{100, 101, 9_999} {
		want, many := map[bool]string{true: "201", false: "414"}, "RFC 9110 15.5.15; spec, Pushing Manifests with Tags (at least 10)"
		var tags strings.Builder
		for i := range n {
			fmt.Fprintf(&tags, "&tag=t%d", i)
		}
		list = append(list,
			attack{name: fmt.Sprintf("%d_tags", n), send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?"+tags.String()[1:], opaque), want: want[n <= 100], section: many},
			attack{name: fmt.Sprintf("%d_times_the_same_tag", n), send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?"+strings.Repeat("tag=t&", n), opaque), want: want[n <= 100], section: many},
			attack{name: fmt.Sprintf("%d_artifact_types", n), send: request("GET", "/v2/a/referrers/"+sha(img)+"?"+strings.Repeat("artifactType=a/b&", n)), want: strings.Replace(want[n <= 100], "201", "200", 1), section: "RFC 9110 15.5.15; spec, Listing Referrers (artifactType)"},
		)
	}
	for i, tag := range []string{"", ".", "-x", "a/b", "a:b", "%00", "a%20b", strings.Repeat("t", 129), "%0d%0aX-Injected:%20yes"} {
		list = append(list, attack{name: "tag_" + label(i, tag), send: withBody("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=good&tag="+tag, opaque), want: "400", code: "NAME_INVALID", section: "spec, Pushing Manifests with Tags"})
	}
	return list
}

// uploads misuses upload sessions.
func uploads() (list []attack) {
	const (
		session   = "spec, Pushing blobs (<location>)"
		published = "spec, PUT"
	)
	put := "/v2/a/blobs/uploads/{session}?digest=" + sha(hello+fresh)
	for i, id := range []string{"unknown", ".", "..", "%2e%2e", "..%2f..", "%00", "%FF", "{foreign}", "{cancelled}", strings.Repeat("0", 10_000), "00000000-0000-0000-0000-000000000000", "list", "uploads", "%0d%0aX-Injected:%20yes", "*", "a b"[:1]} {
		target := "/v2/a/blobs/uploads/" + id
		for _, method := range []string{"PATCH", "PUT", "GET", "DELETE"} {
			list = append(list, attack{name: strings.ToLower(method) + "_" + label(i, id), send: withBody(method, target+map[bool]string{true: "?digest=" + sha(fresh)}[method == "PUT"], ""), want: "404|400", section: session})
		}
	}
	return append(list,
		attack{name: "patch_from_another_repository", send: withBody("PATCH", "/v2/b/blobs/uploads/{session}", fresh), want: "404", code: "BLOB_UPLOAD_UNKNOWN", section: session},
		attack{name: "put_from_another_repository", send: withBody("PUT", strings.Replace(put, "/v2/a/", "/v2/b/", 1), fresh), want: "404", code: "BLOB_UPLOAD_UNKNOWN", section: session},
		attack{name: "status_from_another_repository", send: request("GET", "/v2/b/blobs/uploads/{session}"), want: "404", code: "BLOB_UPLOAD_UNKNOWN", section: session},
		attack{name: "cancel_from_another_repository", send: request("DELETE", "/v2/b/blobs/uploads/{session}"), want: "404", code: "BLOB_UPLOAD_UNKNOWN", section: session},
		attack{name: "put_twice", send: withBody("PUT", put, fresh) + withBody("PUT", put, fresh), want: "201 404", section: published},
		attack{name: "patch_after_put", send: withBody("PUT", put, fresh) + withBody("PATCH", "/v2/a/blobs/uploads/{session}", "x"), want: "201 404", section: published},
		attack{name: "status_after_put", send: withBody("PUT", put, fresh) + request("GET", "/v2/a/blobs/uploads/{session}"), want: "201 404", section: published},
		attack{name: "patch_after_cancel", send: request("DELETE", "/v2/a/blobs/uploads/{session}") + withBody("PATCH", "/v2/a/blobs/uploads/{session}", "x"), want: "204 404", section: "spec, Cancel a blob upload"},
		attack{name: "cancel_twice", send: strings.Repeat(request("DELETE", "/v2/a/blobs/uploads/{session}"), 2), want: "204 404", section: "spec, Cancel a blob upload"},
		attack{name: "put_with_wrong_digest", send: withBody("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(fresh), fresh), want: "400", code: "DIGEST_INVALID", section: "spec, POST then PUT"},
		attack{name: "put_with_wrong_digest_then_right_one", send: withBody("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(fresh), fresh) + withBody("PUT", put, fresh), want: "400 201", section: "spec, POST then PUT"},
		attack{name: "put_without_a_digest", send: withBody("PUT", "/v2/a/blobs/uploads/{session}", fresh), want: "400", code: "DIGEST_INVALID", section: "spec, POST then PUT"},
		attack{name: "put_with_sha512", send: withBody("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha512sum(hello+fresh), fresh), want: "201", section: "spec, Digests"},
		attack{name: "put_with_two_digests", send: withBody("PUT", put+"&digest="+sha(fresh), fresh), want: "201|400", section: "spec, POST then PUT"},
		attack{name: "push_with_wrong_digest", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha("x"), fresh), want: "400", code: "DIGEST_INVALID", section: "spec, Single POST"},
		attack{name: "push_over_existing_blob", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(digits), fresh), want: "400", code: "DIGEST_INVALID", section: "spec, Single POST"},
		attack{name: "manifest_with_wrong_digest", send: withBody("PUT", "/v2/a/manifests/"+sha("x"), opaque), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing Manifests"},
		attack{name: "manifest_over_existing_manifest", send: withBody("PUT", "/v2/a/manifests/"+sha(img), opaque), want: "400", code: "DIGEST_INVALID", section: "spec, Pushing Manifests"},
		attack{name: "mount_from_repository_without_it", send: withBody("POST", "/v2/a/blobs/uploads/?from=b&mount="+sha(fresh), ""), want: "202", section: "spec, Mounting a blob from another repository"},
		attack{name: "mount_from_unknown_repository", send: withBody("POST", "/v2/a/blobs/uploads/?from=nowhere&mount="+sha(digits), ""), want: "202", section: "spec, Mounting a blob from another repository"},
		attack{name: "mount_of_a_manifest", send: withBody("POST", "/v2/b/blobs/uploads/?from=a&mount="+sha(img), ""), want: "202", section: "spec, Mounting a blob from another repository"},
		attack{name: "mount_onto_itself", send: withBody("POST", "/v2/a/blobs/uploads/?from=a&mount="+sha(digits), ""), want: "201", section: "spec, Mounting a blob from another repository"},
	)
}

// limits exceeds limits, or reaches them exactly.
func limits() (list []attack) {
	const tooLarge = "RFC 9110 15.5.14"
	patch := withBody("PATCH", "/v2/a/blobs/uploads/{session}", fresh)
	put := withBody("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(hello+fresh), fresh)
	post := withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh)
	manifest := withBody("PUT", "/v2/a/manifests/new", opaque)
	streamed := withChunks("PUT", "/v2/a/manifests/new", chunk(opaque)+lastChunk)
	for _, c := range []struct {
		name, send, want, code string
		limits                 registry.Limits
		memLimits              registry.MemLimits
	}{
		{"blob_by_patch", patch, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}, registry.MemLimits{}},
		{"blob_by_patch_fits", patch, "202", "", registry.Limits{BlobBytes: 29}, registry.MemLimits{}},
		{"blob_by_patch_streamed", withChunks("PATCH", "/v2/a/blobs/uploads/{session}", chunk(fresh)+lastChunk), "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}, registry.MemLimits{}},
		{"blob_by_put", put, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}, registry.MemLimits{}},
		{"blob_by_put_fits", put, "201", "", registry.Limits{BlobBytes: 29}, registry.MemLimits{}},
		{"blob_by_post", post, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 23}, registry.MemLimits{}},
		{"blob_by_post_fits", post, "201", "", registry.Limits{BlobBytes: 24}, registry.MemLimits{}},
		{"blob_with_large_Content-Length", request("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), "Content-Length: 1000000", "Expect: 100-continue"), "413", "SIZE_INVALID", registry.Limits{BlobBytes: 24}, registry.MemLimits{}},
		{"manifest", manifest, "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 17}, registry.MemLimits{}},
		{"manifest_fits", manifest, "201", "", registry.Limits{ManifestBytes: 18}, registry.MemLimits{}},
		{"manifest_streamed", streamed, "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 17}, registry.MemLimits{}},
		{"manifest_with_large_Content-Length", request("PUT", "/v2/a/manifests/new", "Content-Length: 1000000", "Expect: 100-continue"), "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 24}, registry.MemLimits{}},
		{"full_of_blobs", post, "413", "SIZE_INVALID", registry.Limits{}, registry.MemLimits{TotalBytes: 1000}},
		{"full_of_manifests", manifest, "413", "SIZE_INVALID", registry.Limits{}, registry.MemLimits{TotalBytes: 1000}},
		{"full_of_tags", withBody("PUT", "/v2/a/manifests/"+sha(img)+"?tag=new", img), "413", "SIZE_INVALID", registry.Limits{}, registry.MemLimits{TotalBytes: 1000}},
		{"full_of_sessions", withBody("POST", "/v2/a/blobs/uploads/", ""), "413", "SIZE_INVALID", registry.Limits{}, registry.MemLimits{TotalBytes: 1000}},
		{"full_of_mounts", withBody("POST", "/v2/a/blobs/uploads/?from=b&mount="+sha(elsewhere), ""), "413", "SIZE_INVALID", registry.Limits{}, registry.MemLimits{TotalBytes: 1000}},
		{"too_many_sessions", withBody("POST", "/v2/a/blobs/uploads/", ""), "429", "TOOMANYREQUESTS", registry.Limits{}, registry.MemLimits{Uploads: 3}},
		{"as_many_sessions_as_allowed", withBody("POST", "/v2/a/blobs/uploads/", ""), "202", "", registry.Limits{}, registry.MemLimits{Uploads: 4}},
		{"too_many_sessions_by_post", post, "429", "TOOMANYREQUESTS", registry.Limits{}, registry.MemLimits{Uploads: 3}},
		{"tag_page", request("GET", "/v2/a/tags/list?n=100"), "200", "", registry.Limits{PageNames: 1}, registry.MemLimits{}},
		{"referrers_page", request("GET", "/v2/a/referrers/"+sha(img)), "200", "", registry.Limits{ReferrersBytes: 1}, registry.MemLimits{}},
	} {
		list = append(list, attack{name: c.name, send: c.send, want: c.want, code: c.code, limits: c.limits, memLimits: c.memLimits, section: tooLarge + "; spec, Error Codes"})
	}
	return list
}
