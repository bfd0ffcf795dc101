// SPDX-License-Identifier: Apache-2.0

// What is asked of content, and what is in it.

package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

// bodyIs checks the body of the first answer.
func bodyIs(want string) func(*testing.T, []*answer) {
	return func(t *testing.T, answers []*answer) { qt.Check(t, qt.Equals(string(answers[0].body), want)) }
}

// ranges are those of a blob of 10 bytes.
func ranges() (list []attack) {
	const (
		part       = "RFC 9110 14.1.2, 15.3.7"
		ignored    = "RFC 9110 14.2 (MUST ignore)"
		impossible = "RFC 9110 14.1.1, 15.5.17"
	)
	blob := "/v2/a/blobs/" + sha(digits)
	add := func(name, value, want, asks string, check func(*testing.T, []*answer)) {
		list = append(list, attack{name: name, send: ask("GET", blob, "Range: "+value), want: want, asks: asks, check: check})
	}
	for i, c := range []struct{ value, body string }{
		{"bytes=0-0", "0"}, {"bytes=0-9", digits}, {"bytes=0-", digits}, {"bytes=9-", "9"}, {"bytes=-1", "9"}, {"bytes=-10", digits}, {"bytes=-11", digits},
		{"bytes=3-99", "3456789"}, {"bytes=3-" + strings.Repeat("9", 5000), "3456789"}, {"bytes=" + strings.Repeat("0", 5000) + "3-4", "34"}, {"bytes=-" + strings.Repeat("9", 5000), digits},
		{"BYTES=3-4", "34"}, {"bytes= 3-4 ", "34"}, {"bytes=,,3-4,", "34"},
	} {
		add("part_"+label(i, c.value), c.value, "206", part, bodyIs(c.body))
	}
	for i, value := range []string{"bytes=10-", "bytes=10-20", "bytes=99-100", "bytes=" + strings.Repeat("9", 5000) + "-", "bytes=18446744073709551616-18446744073709551617", "bytes=-0", "bytes=-00", "bytes=5-2", "bytes=-", "bytes=x", "bytes=1", "bytes=--1", "bytes=1--2", "bytes=+1-2", "bytes=1-+2", "bytes=0x1-0x2", "bytes=1.0-2.0", "bytes=1-2-3", "bytes=٣-٤", "bytes=1-2;x"} {
		add("impossible_"+label(i, value), value, "416", impossible, func(t *testing.T, answers []*answer) {
			qt.Check(t, qt.Equals(answers[0].Header.Get("Content-Range"), "bytes */10"))
		})
	}
	for i, value := range []string{"lines=1-2", "bytes", "=", "", "1-2", "bytes 1-2", "bytes:1-2", "x=1-2", "byte=1-2", "bytes=", "bytes=,", "bytes=" + strings.Repeat("1-1,", 10_000) + "1-1"} {
		add("ignored_"+label(i, value), value, "200|416", ignored, func(t *testing.T, answers []*answer) {
			if answers[0].StatusCode == 200 {
				bodyIs(digits)(t, answers)
			}
		})
	}
	add("two", "bytes=0-1,3-4", "206", part, nil)
	add("overlapping", "bytes=0-9,0-9,0-9", "206|200", "RFC 9110 14.2, 17.15", nil)
	add("100_of_one_byte", "bytes="+strings.TrimSuffix(strings.Repeat("0-0,", 100), ","), "206|200", "RFC 9110 14.2, 17.15", nil)
	add("one_possible_of_two", "bytes=99-,3-4", "206", part, bodyIs("34"))
	return append(list,
		attack{name: "of_a_head", send: ask("HEAD", blob, "Range: bytes=3-4"), want: "200", asks: "RFC 9110 14.2"},
		attack{name: "of_nothing", send: ask("GET", "/v2/a/blobs/"+sha(""), "Range: bytes=0-"), want: "200|416", asks: impossible},
		attack{name: "of_the_end_of_nothing", send: ask("GET", "/v2/a/blobs/"+sha(""), "Range: bytes=-1"), want: "200|416", asks: impossible},
		attack{name: "of_a_manifest", send: ask("GET", "/v2/b/manifests/tag", "Range: bytes=0-1"), want: "206|200", asks: part},
		attack{name: "of_what_is_absent", send: ask("GET", "/v2/a/blobs/"+sha(fresh), "Range: bytes=0-1"), want: "404", code: "BLOB_UNKNOWN", asks: "spec, Pulling blobs"},
		attack{name: "of_a_list", send: ask("GET", "/v2/a/tags/list", "Range: bytes=0-1"), want: "200", asks: "RFC 9110 14.2"},
		attack{name: "if_range_of_another", send: ask("GET", blob, "Range: bytes=3-4", `If-Range: "x"`), want: "200", asks: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "if_range_weak", send: ask("GET", blob, "Range: bytes=3-4", `If-Range: W/"`+sha(digits)+`"`), want: "200", asks: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "if_range_holds", send: ask("GET", blob, "Range: bytes=3-4", `If-Range: "`+sha(digits)+`"`), want: "206", asks: "RFC 9110 13.1.5", check: bodyIs("34")},
		attack{name: "if_range_of_a_date", send: ask("GET", blob, "Range: bytes=3-4", "If-Range: Tue, 15 Nov 1994 12:45:26 GMT"), want: "200", asks: "RFC 9110 13.1.5", check: bodyIs(digits)},
		attack{name: "twice", send: ask("GET", blob, "Range: bytes=3-4", "Range: bytes=5-6"), want: "200|206|400|416", asks: "RFC 9110 5.3"},
	)
}

// conditions are on the present entity tag: the digest in quotes.
func conditions() (list []attack) {
	const (
		match     = "RFC 9110 13.1.1"
		none      = "RFC 9110 13.1.2"
		malformed = "RFC 9110 8.8.3, 13.1"
	)
	tag := func(content string) string { return `"` + sha(content) + `"` }
	for _, c := range []struct {
		name, line        string
		get, head, remove string // of a blob, of it again, and to delete a tag
		asks              string
	}{
		{"match", "If-Match: " + tag(img), "412", "412", "202", match},
		{"match_any", "If-Match: *", "200", "200", "202", match},
		{"match_another", `If-Match: "x"`, "412", "412", "412", match},
		{"match_weak", "If-Match: W/" + tag(img), "412", "412", "412", match},
		{"match_in_a_list", `If-Match: "x,y" , ` + tag(img) + `,, "z"`, "412", "412", "202", match},
		{"match_nothing", "If-Match:", "412", "412", "412", match},
		{"none_match_any", "If-None-Match: *", "304", "304", "412", none},
		{"none_match", "If-None-Match: " + tag(img), "200", "200", "412", none},
		{"none_match_weak", "If-None-Match: W/" + tag(img), "200", "200", "412", none},
		{"none_match_another", `If-None-Match: "x"`, "200", "200", "202", none},
		{"both_hold", "If-Match: *\r\nIf-None-Match: \"x\"", "200", "200", "202", match + ", 13.2.2"},
		{"one_holds", "If-Match: *\r\nIf-None-Match: *", "304", "304", "412", match + ", 13.2.2"},
		{"none_holds", "If-Match: \"x\"\r\nIf-None-Match: *", "412", "412", "412", match + ", 13.2.2"},
		{"no_quotes", "If-Match: " + sha(img), "400|412", "400|412", "400|412", malformed},
		{"no_end", `If-Match: "` + sha(img), "400|412", "400|412", "400|412", malformed},
		{"no_comma", `If-Match: "x" ` + tag(img), "400|412", "400|412", "400|412", malformed},
		{"none_match_no_quotes", "If-None-Match: " + sha(img), "400|200", "400|200", "400|202", malformed},
		{"long", "If-Match: " + strings.Repeat(`"x",`, 50_000) + `"y"`, "412", "412", "412", match},
		{"unmodified_since", "If-Unmodified-Since: Tue, 15 Nov 1994 12:45:26 GMT", "200|412", "200|412", "202|412", "RFC 9110 13.1.4"},
	} {
		list = append(list,
			attack{name: "get_" + c.name, send: ask("GET", "/v2/a/blobs/"+sha(digits), c.line), want: c.get, asks: c.asks},
			attack{name: "head_" + c.name, send: ask("HEAD", "/v2/a/blobs/"+sha(digits), c.line), want: c.head, asks: c.asks},
			attack{name: "delete_" + c.name, send: ask("DELETE", "/v2/a/manifests/tag", c.line), want: c.remove, asks: c.asks},
			attack{name: "delete_absent_" + c.name, send: ask("DELETE", "/v2/a/manifests/"+sha(fresh), c.line), want: "404|400", asks: c.asks + ", 13.2.1"},
			attack{name: "delete_absent_blob_" + c.name, send: ask("DELETE", "/v2/a/blobs/"+sha(fresh), c.line), want: "404|400", asks: c.asks + ", 13.2.1"},
		)
	}
	return append(list,
		attack{name: "put_new", send: push("PUT", "/v2/a/manifests/new", opaque, "If-None-Match: *"), want: "201", asks: none},
		attack{name: "put_existing", send: push("PUT", "/v2/a/manifests/tag", opaque, "If-None-Match: *"), want: "412", asks: none},
		attack{name: "put_over_another", send: push("PUT", "/v2/a/manifests/tag", opaque, "If-Match: "+tag(idx)), want: "412", asks: match},
		attack{name: "put_over", send: push("PUT", "/v2/a/manifests/tag", opaque, "If-Match: "+tag(img)), want: "201", asks: match},
		attack{name: "put_one_of_two_tags", send: push("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=new&tag=tag", opaque, "If-None-Match: *"), want: "412", asks: none},
		attack{name: "put_twice", send: strings.Repeat(push("PUT", "/v2/a/manifests/new", opaque, "If-None-Match: *"), 2), want: "201 412", asks: none},
	)
}

// jsonBombs are manifests that are hard to read, or lie.
func jsonBombs() (list []attack) {
	const (
		grammar   = "spec, Pushing Manifests (MANIFEST_INVALID); RFC 8259 2"
		unique    = "RFC 8259 4 (names SHOULD be unique; others' parsers differ)"
		shape     = "image-spec, manifest.md; spec, Pushing Manifests"
		text      = "RFC 8259 8.1 (MUST be UTF-8)"
		tooLarge  = "spec, Pushing Manifests (limit the size); RFC 9110 15.5.14"
		confusion = "CVE-2021-41190; image-spec, manifest.md, index.md"
	)
	const limit = 4 << 20
	layer := descriptor(typeLayer, digits)
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	wrap := func(members string) string {
		return `{"schemaVersion":2,"config":` + descriptor(typeConfig, config) + `,` + members + `}`
	}
	for _, c := range []struct{ name, mediaType, body, want, code, asks string }{
		{"empty", typeImage, "", "400", "MANIFEST_INVALID", grammar},
		{"no_JSON", typeImage, "\x7fELF", "400", "MANIFEST_INVALID", grammar},
		{"null", typeImage, "null", "400", "MANIFEST_INVALID", shape},
		{"number", typeImage, "1e400", "400", "MANIFEST_INVALID", shape},
		{"string", typeImage, `"x"`, "400", "MANIFEST_INVALID", shape},
		{"array", typeIndex, "[]", "400", "MANIFEST_INVALID", shape},
		{"cut", typeImage, img[:len(img)-1], "400", "MANIFEST_INVALID", grammar},
		{"two_documents", typeImage, img + img, "400", "MANIFEST_INVALID", grammar},
		{"something_after", typeImage, img + "x", "400", "MANIFEST_INVALID", grammar},
		{"spaces_after", typeImage, img + " \r\n\t", "201", "", grammar},
		{"a_NUL_after", typeImage, img + "\x00", "400", "MANIFEST_INVALID", grammar},
		{"a_comma_too_many", typeImage, `{"layers":[],}`, "400", "MANIFEST_INVALID", grammar},
		{"a_comment", typeImage, `{"layers":[]/*x*/}`, "400", "MANIFEST_INVALID", grammar},
		{"a_BOM", typeImage, "\ufeff" + img, "400", "MANIFEST_INVALID", "RFC 8259 8.1"},
		{"UTF-16", typeImage, "\xff\xfe{\x00}\x00", "400", "MANIFEST_INVALID", text},
		{"no_UTF-8_in_a_string", typeImage, wrap("\"annotations\":{\"a\":\"\xff\"}"), "400", "MANIFEST_INVALID", text},
		{"no_UTF-8_in_a_key", typeImage, wrap("\"\xff\":1"), "400", "MANIFEST_INVALID", text},
		{"half_a_surrogate", typeImage, wrap(`"annotations":{"a":"\ud800"}`), "201|400", "", "RFC 8259 8.2"},
		{"a_NUL_in_a_string", typeImage, wrap(`"annotations":{"a":"\u0000"}`), "201|400", "", "RFC 8259 7"},
		{"deep_array", typeImage, `{"a":` + strings.Repeat("[", 1_000_000), "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"deep_object", typeImage, strings.Repeat(`{"a":`, 500_000), "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"deep_and_closed", typeImage, `{"a":` + strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000) + `}`, "400", "MANIFEST_INVALID", "RFC 8259 9"},
		{"deep_enough", typeImage, wrap(`"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000)), "201", "", "RFC 8259 9"},
		{"a_long_number", typeImage, wrap(`"a":` + strings.Repeat("9", 1_000_000)), "201|400", "", "RFC 8259 6"},
		{"a_number_out_of_range", typeImage, wrap(`"a":1e999999999`), "201|400", "", "RFC 8259 6"},
		{"a_long_string", typeImage, wrap(`"a":"` + strings.Repeat("x", 1_000_000) + `"`), "201", "", "RFC 8259 7"},
		{"a_long_key", typeImage, wrap(`"` + strings.Repeat("x", 1_000_000) + `":1`), "201", "", "RFC 8259 7"},
		{"10000_layers", typeImage, wrap(`"layers":[` + many(10_000, layer) + `]`), "201", "", shape},
		{"10000_absent_layers", typeImage, wrap(`"layers":[` + many(10_000, descriptor(typeLayer, fresh)) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"a_million_empty_layers", typeImage, wrap(`"layers":[` + many(1_000_000, "{}") + `]`), "400", "MANIFEST_INVALID", shape},
		{"a_million_nulls", typeImage, wrap(`"layers":[` + many(800_000, "null") + `]`), "400", "MANIFEST_INVALID", shape},
		{"10000_children", typeIndex, `{"manifests":[` + many(10_000, descriptor(typeImage, img)) + `]}`, "201", "", shape},
		{"10000_unknown_members", typeImage, wrap(members(10_000)), "201", "", shape},
		{"100000_annotations", typeImage, wrap(`"annotations":{` + members(100_000) + `}`), "400", "MANIFEST_INVALID", shape},
		{"members_twice", typeImage, `{"layers":[],"layers":[` + layer + `]}`, "400", "MANIFEST_INVALID", unique},
		{"config_twice", typeImage, `{"config":` + layer + `,"config":` + descriptor(typeConfig, config) + `}`, "400", "MANIFEST_INVALID", unique},
		{"mediaType_twice", typeImage, `{"mediaType":"` + typeImage + `","mediaType":"` + typeIndex + `"}`, "400", "MANIFEST_INVALID", unique},
		{"digest_twice", typeImage, `{"layers":[{"digest":"` + sha(digits) + `","digest":"` + sha(config) + `"}]}`, "400", "MANIFEST_INVALID", unique},
		{"member_in_capitals", typeImage, `{"LAYERS":[` + layer + `]}`, "400", "MANIFEST_INVALID", unique},
		{"member_with_a_long_s", typeImage, "{\"layer\u017f\":[" + layer + "]}", "400", "MANIFEST_INVALID", unique},
		{"member_escaped", typeImage, `{"\u006cayers":[],"layers":[]}`, "400", "MANIFEST_INVALID", unique},
		{"layers_an_object", typeImage, `{"layers":{}}`, "400", "MANIFEST_INVALID", shape},
		{"layers_a_string", typeImage, `{"layers":"x"}`, "400", "MANIFEST_INVALID", shape},
		{"config_an_array", typeImage, `{"config":[]}`, "400", "MANIFEST_INVALID", shape},
		{"subject_a_string", typeImage, wrap(`"subject":"` + sha(img) + `"`), "400", "MANIFEST_INVALID", shape},
		{"subject_without_a_digest", typeImage, wrap(`"subject":{}`), "400", "MANIFEST_INVALID", shape},
		{"subject_of_a_path", typeImage, wrap(`"subject":{"digest":"../../x"}`), "400", "MANIFEST_INVALID", shape},
		{"digest_of_a_path", typeImage, `{"layers":[{"digest":"sha256:../../../../etc/passwd"}]}`, "400", "MANIFEST_INVALID", shape},
		{"digest_in_capitals", typeImage, `{"layers":[{"digest":"` + strings.ToUpper(sha(digits)) + `"}]}`, "400", "MANIFEST_INVALID", shape},
		{"digest_too_short", typeImage, `{"layers":[{"digest":"` + sha(digits)[:70] + `"}]}`, "400", "MANIFEST_INVALID", shape},
		{"digest_a_number", typeImage, `{"layers":[{"digest":1}]}`, "400", "MANIFEST_INVALID", shape},
		{"digest_null", typeImage, `{"layers":[{"digest":null}]}`, "400", "MANIFEST_INVALID", shape},
		{"annotations_a_list", typeImage, wrap(`"annotations":[]`), "400", "MANIFEST_INVALID", shape},
		{"annotation_a_number", typeImage, wrap(`"annotations":{"a":1}`), "400", "MANIFEST_INVALID", shape},
		{"annotation_null", typeImage, wrap(`"annotations":{"a":null}`), "400", "MANIFEST_INVALID", shape},
		{"size_negative", typeImage, `{"layers":[{"digest":"` + sha(digits) + `","size":-1}]}`, "201|400", "", shape},
		{"blob_of_another_repository", typeImage, wrap(`"layers":[` + descriptor(typeLayer, elsewhere) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"manifest_for_a_blob", typeImage, wrap(`"layers":[` + descriptor(typeImage, img) + `]`), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"blob_for_a_manifest", typeIndex, index(descriptor(typeImage, digits)), "404", "MANIFEST_BLOB_UNKNOWN", "spec, Pushing Manifests"},
		{"image_and_index", typeImage, `{"layers":[],"manifests":[]}`, "400", "MANIFEST_INVALID", confusion},
		{"index_and_image", typeIndex, `{"manifests":[],"config":` + layer + `}`, "400", "MANIFEST_INVALID", confusion},
		{"at_the_limit", typeImage, wrap(`"a":"x"`) + strings.Repeat(" ", limit-len(wrap(`"a":"x"`))), "201", "", tooLarge},
		{"over_the_limit", typeImage, wrap(`"a":"x"`) + strings.Repeat(" ", limit+1-len(wrap(`"a":"x"`))), "413", "SIZE_INVALID", tooLarge},
	} {
		list = append(list,
			attack{name: c.name, send: push("PUT", "/v2/a/manifests/new", c.body, "Content-Type: "+c.mediaType), want: c.want, code: c.code, asks: c.asks},
			attack{name: c.name + "_streamed", send: stream("PUT", "/v2/a/manifests/new", chunked(c.body), "Content-Type: "+c.mediaType), want: c.want, code: c.code, asks: c.asks},
		)
	}
	return list
}

// chunked has body in few chunks.
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

// members are n members of an object, of numbers.
func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%d":%d,`, i, i)
	}
	return b.String() + `"z":0`
}

// mediaTypes are Content-Types that are malformed, or disagree with the body.
func mediaTypes() (list []attack) {
	const (
		grammar   = "RFC 9110 8.3.1; spec, Pushing Manifests"
		agree     = "spec, Pushing Manifests (Content-Type MUST match mediaType); CVE-2021-41190"
		parameter = "spec, Pushing Manifests (SHOULD NOT include parameters)"
	)
	docker := strings.Replace(img, typeImage, typeDocker, 1)
	for i, c := range []struct{ mediaType, body, want, asks string }{
		{typeImage, img, "201", agree}, {strings.ToUpper(typeImage), img, "201", grammar}, {typeImage + "; charset=utf-8", img, "201", parameter}, {typeImage + ";", img, "201", parameter}, {typeImage + ";;;=", img, "201|400", parameter},
		{typeIndex, idx, "201", agree}, {typeDocker, docker, "201", agree},
		{typeIndex, img, "400", agree}, {typeImage, idx, "400", agree}, {typeDocker, img, "400", agree}, {typeImage, docker, "400", agree}, {typeDockerList, idx, "400", agree},
		{"application/json", img, "400", agree}, {"application/octet-stream", img, "400", agree}, {"text/html", img, "400", agree}, {"text/html", idx, "400", agree},
		{typeSchema1, `{"layers":[]}`, "400", agree}, {typeSigned, `{"fsLayers":[]}`, "400", agree}, {typeSigned, "{}", "400", agree},
		{"application/vnd.oci.image.manifest.v2+json", img, "400", agree},
		{"image", img, "400", grammar}, {"/", img, "400", grammar}, {"application/", img, "400", grammar}, {"/json", img, "400", grammar}, {"a/b/c", img, "400", grammar}, {"application json", img, "400", grammar}, {"application/json, text/html", opaque, "400", grammar}, {"*/*", opaque, "201|400", grammar}, {`"text/html"`, opaque, "400", grammar}, {"täxt/html", opaque, "400", grammar}, {strings.Repeat("a", 10_000) + "/b", opaque, "201|400", grammar},
		{"text/html", opaque, "201", grammar}, {"text/plain", "<script>", "201", grammar},
	} {
		list = append(list, attack{name: label(i, c.mediaType), send: push("PUT", "/v2/a/manifests/new", c.body, "Content-Type: "+c.mediaType), want: c.want, code: map[bool]string{true: "MANIFEST_INVALID"}[c.want == "400"], asks: c.asks})
	}
	// A browser that is led to what was pushed as HTML must not run it.
	harmless := func(t *testing.T, answers []*answer) {
		h := answers[len(answers)-1].Header
		qt.Check(t, qt.Equals(h.Get("X-Content-Type-Options"), "nosniff"))
		qt.Check(t, qt.IsTrue(!strings.Contains(h.Get("Content-Type"), "html") || strings.Contains(h.Get("Content-Security-Policy"), "sandbox")))
	}
	return append(list,
		attack{name: "html", send: push("PUT", "/v2/a/manifests/new", "<script>alert(1)</script>", "Content-Type: text/html") + ask("GET", "/v2/a/manifests/new"), want: "201 200", asks: "RFC 9110 17.1", check: harmless},
		attack{name: "html_blob", send: push("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, "Content-Type: text/html") + ask("GET", "/v2/a/blobs/"+sha(fresh)), want: "201 200", asks: "RFC 9110 17.1", check: harmless},
		attack{name: "none", send: push("PUT", "/v2/a/manifests/new", img), want: "201", asks: agree},
		attack{name: "none_and_no_JSON", send: push("PUT", "/v2/a/manifests/new", opaque), want: "201|400", asks: agree},
		attack{name: "two", send: push("PUT", "/v2/a/manifests/new", img, "Content-Type: "+typeImage, "Content-Type: "+typeIndex), want: "201|400", asks: "RFC 9110 5.3"},
		attack{name: "the_same_bytes_as_another_type", send: push("PUT", "/v2/a/manifests/"+sha(opaque), opaque, "Content-Type: text/plain") + push("PUT", "/v2/a/manifests/"+sha(opaque), opaque, "Content-Type: text/html") + ask("GET", "/v2/a/manifests/"+sha(opaque)), want: "201 201 200", asks: "spec, Pulling manifests (content-addressed)", check: func(t *testing.T, answers []*answer) {
			qt.Check(t, qt.Equals(answers[2].Header.Get("Content-Type"), "text/plain"))
		}},
	)
}

// queries are parameters that are malformed, too large, or twice there.
func queries() (list []attack) {
	const (
		number = "spec, Listing Tags (n)"
		parse  = "RFC 3986 2.1, 3.4"
		digest = "spec, Digests"
	)
	for _, path := range []string{"/v2/a/tags/list", "/v2/_catalog", "/v2/a/referrers/" + sha(img)} {
		kind := strings.Split(path, "/")[3-strings.Count(path, "_")]
		for i, n := range []string{"-1", "x", "1.5", "0x1", "1e3", "%2B1", "", "%20", "1%00", "٣", "--1", "1,2"} {
			list = append(list, attack{name: kind + "_no_number_" + label(i, n), send: ask("GET", path+"?n="+n), want: "400", code: "UNSUPPORTED", asks: number})
		}
		for i, n := range []string{"0", "1", "00001", "9223372036854775807", "9223372036854775808", "18446744073709551616", strings.Repeat("9", 5000)} {
			list = append(list, attack{name: kind + "_number_" + label(i, n), send: ask("GET", path+"?n="+n), want: "200", asks: number})
		}
		for i, last := range []string{"zzz", "", "%00", "%FF", "%0d%0aX-Injected:%20yes", "../..", strings.Repeat("z", 10_000), "%3Cscript%3E", "\"", "%22%3E%3Brel=%22next"} {
			list = append(list, attack{name: kind + "_last_" + label(i, last), send: ask("GET", path+"?n=1&last="+last), want: "200", asks: "spec, Listing Tags (last)"})
		}
		for i, query := range []string{"%", "%zz", "a=%", "n=1%", ";", "n=1;last=a"} {
			list = append(list, attack{name: kind + "_malformed_" + label(i, query), send: ask("GET", path+"?"+query), want: "400", asks: parse})
		}
		for i, query := range []string{"", "?", "&&&", "=", "x=y", "n=1&n=2", strings.Repeat("x=y&", 5000)} {
			list = append(list, attack{name: kind + "_odd_" + label(i, query), send: ask("GET", path+"?"+query), want: "200", asks: parse})
		}
	}
	for i, d := range []string{"", "sha256:", "sha256:x", "x", "sha256", ":", "md5:d41d8cd98f00b204e9800998ecf8427e", sha(fresh) + "0", strings.ToUpper(sha(fresh)), sha(fresh)[:70], "sha256:../../x", "%00", "%FF", "sha256%3A", strings.Repeat("a", 10_000), "sha256:" + strings.Repeat("0", 10_000)} {
		list = append(list,
			attack{name: "push_" + label(i, d), send: push("POST", "/v2/a/blobs/uploads/?digest="+d, fresh), want: "400", code: "DIGEST_INVALID", asks: digest},
			attack{name: "put_" + label(i, d), send: push("PUT", "/v2/a/blobs/uploads/{session}?digest="+d, fresh), want: "400", code: "DIGEST_INVALID", asks: digest},
			attack{name: "mount_" + label(i, d), send: push("POST", "/v2/a/blobs/uploads/?from=b&mount="+d, ""), want: "400|202", asks: digest},
			attack{name: "referrers_" + label(i, d), send: ask("GET", "/v2/a/referrers/"+d), want: "400|404", asks: digest},
		)
	}
	for i, from := range []string{"A", "..", "../b", "a/../b", "/b", "b/", "%00", "b%00", strings.Repeat("b", 10_000), "b%2F..%2Fa"} {
		list = append(list, attack{name: "mount_from_" + label(i, from), send: push("POST", "/v2/a/blobs/uploads/?mount="+sha(elsewhere)+"&from="+from, ""), want: "400|202", asks: "spec, Mounting a blob from another repository"})
	}
	for i, algorithm := range []string{"md5", "x", "sha256:", "sha-256", "%00", "SHA256", strings.Repeat("a", 10_000)} {
		list = append(list, attack{name: "algorithm_" + label(i, algorithm), send: push("POST", "/v2/a/blobs/uploads/?digest-algorithm="+algorithm, ""), want: "400", code: "DIGEST_INVALID", asks: "spec, POST then PUT (digest-algorithm)"})
	}
	for i, tag := range []string{"", ".", "-x", "a/b", "a:b", "%00", "a%20b", strings.Repeat("t", 129), "%0d%0aX-Injected:%20yes"} {
		list = append(list, attack{name: "tag_" + label(i, tag), send: push("PUT", "/v2/a/manifests/"+sha(opaque)+"?tag=good&tag="+tag, opaque), want: "400", code: "NAME_INVALID", asks: "spec, Pushing Manifests with Tags"})
	}
	return list
}

// uploads are sessions that are misused.
func uploads() (list []attack) {
	const (
		session   = "spec, Pushing blobs (<location>)"
		published = "spec, PUT"
	)
	put := "/v2/a/blobs/uploads/{session}?digest=" + sha(hello+fresh)
	for i, id := range []string{"unknown", ".", "..", "%2e%2e", "..%2f..", "%00", "%FF", "{foreign}", "{cancelled}", strings.Repeat("0", 10_000), "00000000-0000-0000-0000-000000000000", "list", "uploads", "%0d%0aX-Injected:%20yes", "*", "a b"[:1]} {
		target := "/v2/a/blobs/uploads/" + id
		for _, method := range []string{"PATCH", "PUT", "GET", "DELETE"} {
			list = append(list, attack{name: strings.ToLower(method) + "_" + label(i, id), send: push(method, target+map[bool]string{true: "?digest=" + sha(fresh)}[method == "PUT"], ""), want: "404|400", asks: session})
		}
	}
	return append(list,
		attack{name: "of_another_repository", send: push("PATCH", "/v2/b/blobs/uploads/{session}", fresh), want: "404", code: "BLOB_UPLOAD_UNKNOWN", asks: session},
		attack{name: "put_from_another_repository", send: push("PUT", strings.Replace(put, "/v2/a/", "/v2/b/", 1), fresh), want: "404", code: "BLOB_UPLOAD_UNKNOWN", asks: session},
		attack{name: "status_from_another_repository", send: ask("GET", "/v2/b/blobs/uploads/{session}"), want: "404", code: "BLOB_UPLOAD_UNKNOWN", asks: session},
		attack{name: "cancel_from_another_repository", send: ask("DELETE", "/v2/b/blobs/uploads/{session}"), want: "404", code: "BLOB_UPLOAD_UNKNOWN", asks: session},
		attack{name: "put_twice", send: push("PUT", put, fresh) + push("PUT", put, fresh), want: "201 404", asks: published},
		attack{name: "patch_after_put", send: push("PUT", put, fresh) + push("PATCH", "/v2/a/blobs/uploads/{session}", "x"), want: "201 404", asks: published},
		attack{name: "status_after_put", send: push("PUT", put, fresh) + ask("GET", "/v2/a/blobs/uploads/{session}"), want: "201 404", asks: published},
		attack{name: "patch_after_cancel", send: ask("DELETE", "/v2/a/blobs/uploads/{session}") + push("PATCH", "/v2/a/blobs/uploads/{session}", "x"), want: "204 404", asks: "spec, Cancel a blob upload"},
		attack{name: "cancel_twice", send: strings.Repeat(ask("DELETE", "/v2/a/blobs/uploads/{session}"), 2), want: "204 404", asks: "spec, Cancel a blob upload"},
		attack{name: "put_of_the_wrong_digest", send: push("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(fresh), fresh), want: "400", code: "DIGEST_INVALID", asks: "spec, POST then PUT"},
		attack{name: "put_of_the_wrong_digest_and_of_the_right", send: push("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(fresh), fresh) + push("PUT", put, fresh), want: "400 201", asks: "spec, POST then PUT"},
		attack{name: "put_without_a_digest", send: push("PUT", "/v2/a/blobs/uploads/{session}", fresh), want: "400", code: "DIGEST_INVALID", asks: "spec, POST then PUT"},
		attack{name: "put_of_sha512", send: push("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha512sum(hello+fresh), fresh), want: "201", asks: "spec, Digests"},
		attack{name: "put_of_two_digests", send: push("PUT", put+"&digest="+sha(fresh), fresh), want: "201|400", asks: "spec, POST then PUT"},
		attack{name: "push_of_the_wrong_digest", send: push("POST", "/v2/a/blobs/uploads/?digest="+sha("x"), fresh), want: "400", code: "DIGEST_INVALID", asks: "spec, Single POST"},
		attack{name: "push_over_what_is_there", send: push("POST", "/v2/a/blobs/uploads/?digest="+sha(digits), fresh), want: "400", code: "DIGEST_INVALID", asks: "spec, Single POST"},
		attack{name: "manifest_of_the_wrong_digest", send: push("PUT", "/v2/a/manifests/"+sha("x"), opaque), want: "400", code: "DIGEST_INVALID", asks: "spec, Pushing Manifests"},
		attack{name: "manifest_over_what_is_there", send: push("PUT", "/v2/a/manifests/"+sha(img), opaque), want: "400", code: "DIGEST_INVALID", asks: "spec, Pushing Manifests"},
		attack{name: "mount_from_where_it_is_not", send: push("POST", "/v2/a/blobs/uploads/?from=b&mount="+sha(fresh), ""), want: "202", asks: "spec, Mounting a blob from another repository"},
		attack{name: "mount_from_nowhere", send: push("POST", "/v2/a/blobs/uploads/?from=nowhere&mount="+sha(digits), ""), want: "202", asks: "spec, Mounting a blob from another repository"},
		attack{name: "mount_of_a_manifest", send: push("POST", "/v2/b/blobs/uploads/?from=a&mount="+sha(img), ""), want: "202", asks: "spec, Mounting a blob from another repository"},
		attack{name: "mount_onto_itself", send: push("POST", "/v2/a/blobs/uploads/?from=a&mount="+sha(digits), ""), want: "201", asks: "spec, Mounting a blob from another repository"},
	)
}

// limits are overrun.
func limits() (list []attack) {
	const tooLarge = "RFC 9110 15.5.14"
	patch := push("PATCH", "/v2/a/blobs/uploads/{session}", fresh)
	put := push("PUT", "/v2/a/blobs/uploads/{session}?digest="+sha(hello+fresh), fresh)
	post := push("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh)
	manifest := push("PUT", "/v2/a/manifests/new", opaque)
	streamed := stream("PUT", "/v2/a/manifests/new", chunk(opaque)+lastChunk)
	for _, c := range []struct {
		name, send, want, code string
		limits                 registry.Limits
	}{
		{"blob_by_patch", patch, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}},
		{"blob_by_patch_fits", patch, "202", "", registry.Limits{BlobBytes: 29}},
		{"blob_by_patch_streamed", stream("PATCH", "/v2/a/blobs/uploads/{session}", chunk(fresh)+lastChunk), "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}},
		{"blob_by_put", put, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 28}},
		{"blob_by_put_fits", put, "201", "", registry.Limits{BlobBytes: 29}},
		{"blob_by_post", post, "413", "SIZE_INVALID", registry.Limits{BlobBytes: 23}},
		{"blob_by_post_fits", post, "201", "", registry.Limits{BlobBytes: 24}},
		{"blob_announced", ask("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), "Content-Length: 1000000", "Expect: 100-continue"), "413", "SIZE_INVALID", registry.Limits{BlobBytes: 24}},
		{"manifest", manifest, "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 17}},
		{"manifest_fits", manifest, "201", "", registry.Limits{ManifestBytes: 18}},
		{"manifest_streamed", streamed, "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 17}},
		{"manifest_announced", ask("PUT", "/v2/a/manifests/new", "Content-Length: 1000000", "Expect: 100-continue"), "413", "SIZE_INVALID", registry.Limits{ManifestBytes: 24}},
		{"full_of_blobs", post, "413", "SIZE_INVALID", registry.Limits{TotalBytes: 1000}},
		{"full_of_manifests", manifest, "413", "SIZE_INVALID", registry.Limits{TotalBytes: 1000}},
		{"full_of_tags", push("PUT", "/v2/a/manifests/"+sha(img)+"?tag=new", img), "413", "SIZE_INVALID", registry.Limits{TotalBytes: 1000}},
		{"full_of_sessions", push("POST", "/v2/a/blobs/uploads/", ""), "413", "SIZE_INVALID", registry.Limits{TotalBytes: 1000}},
		{"full_of_mounts", push("POST", "/v2/a/blobs/uploads/?from=b&mount="+sha(elsewhere), ""), "413", "SIZE_INVALID", registry.Limits{TotalBytes: 1000}},
		{"too_many_sessions", push("POST", "/v2/a/blobs/uploads/", ""), "429", "TOOMANYREQUESTS", registry.Limits{Uploads: 3}},
		{"as_many_sessions", push("POST", "/v2/a/blobs/uploads/", ""), "202", "", registry.Limits{Uploads: 4}},
		{"too_many_sessions_by_post", post, "429", "TOOMANYREQUESTS", registry.Limits{Uploads: 3}},
		{"a_page", ask("GET", "/v2/a/tags/list?n=100"), "200", "", registry.Limits{PageNames: 1}},
		{"a_referrers_page", ask("GET", "/v2/a/referrers/"+sha(img)), "200", "", registry.Limits{ReferrersBytes: 1}},
	} {
		list = append(list, attack{name: c.name, send: c.send, want: c.want, code: c.code, limits: c.limits, asks: tooLarge + "; spec, Error Codes"})
	}
	return list
}
