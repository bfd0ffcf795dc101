// SPDX-License-Identifier: Apache-2.0

// The framing of bodies: Content-Length, Transfer-Encoding and Content-Range.

package attack

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// chunk returns data as one chunk.
func chunk(data string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(data), data) }

const lastChunk = "0\r\n\r\n"

// pushes are the requests that take a body. Each must handle every framing error.
var pushes = []struct {
	name, method, target string
	partial              bool
}{
	{"manifest", "PUT", "/v2/a/manifests/new", false},
	{"push", "POST", "/v2/a/blobs/uploads/?digest=" + sha(fresh), false},
	{"patch", "PATCH", "/v2/a/blobs/uploads/{session}", true},
	{"put", "PUT", "/v2/a/blobs/uploads/{session}?digest=" + sha(hello+fresh), false},
}

func framing() (list []attack) {
	const (
		contentLength    = "RFC 9110 8.6; RFC 9112 6.3"
		transferEncoding = "RFC 9112 6.1, 6.3"
		chunked          = "RFC 9112 7.1, 8; RFC 9110 15.5.1"
		truncated        = "RFC 9112 8"
		expect           = "RFC 9110 10.1.1"
	)
	for _, p := range pushes {
		add := func(name, send, want, code, section string) {
			list = append(list, attack{name: p.name + "_" + name, send: send, want: want, code: code, section: section, partial: p.partial})
		}
		ok := "201"
		if p.method == "PATCH" {
			ok = "202"
		}

		// Content-Length.
		for i, value := range []string{"-1", "+24", "24x", "0x18", "24.0", "2_4", "1e3", "24;", "24 24", "٢٤", "twenty-four", "24,25", "\"24\"", "99999999999999999999", "9223372036854775808", "18446744073709551616", "-9223372036854775808", strings.Repeat("9", 10_000)} {
			add("length_"+label(i, value), request(p.method, p.target, "Content-Length: "+value)+fresh, "400", "", contentLength)
		}
		add("length_empty", request(p.method, p.target, "Content-Length:")+fresh, "400", "", contentLength)
		add("length_with_zeros", request(p.method, p.target, "Content-Length: 00000000000000000000024")+fresh, ok+"|400", "", contentLength)
		add("differing_lengths", request(p.method, p.target, "Content-Length: 24", "Content-Length: 5")+fresh, "400", "", contentLength)
		add("equal_lengths", request(p.method, p.target, "Content-Length: 24", "Content-Length: 24")+fresh, ok+"|400", "", contentLength)
		add("body_truncated", request(p.method, p.target, "Content-Length: 25")+fresh, "400", "SIZE_INVALID|BLOB_UPLOAD_INVALID|MANIFEST_INVALID", truncated)
		add("body_missing", request(p.method, p.target, "Content-Length: 24"), "400", "SIZE_INVALID|BLOB_UPLOAD_INVALID|MANIFEST_INVALID", truncated)
		add("body_too_long", request(p.method, p.target, "Content-Length: 24")+fresh+secret+"\r\n\r\n", ok+" 400", "", "RFC 9112 6.3, 9.3")
		huge := "400"
		if p.name == "manifest" {
			huge = "413"
		}
		add("length_of_8_EiB", request(p.method, p.target, "Content-Length: 9223372036854775807")+fresh, huge, "SIZE_INVALID|BLOB_UPLOAD_INVALID", contentLength+"; RFC 9110 15.5.14")
		add("length_of_1_TiB", request(p.method, p.target, "Content-Length: 1099511627776")+fresh, huge, "SIZE_INVALID|BLOB_UPLOAD_INVALID", contentLength+"; RFC 9110 15.5.14")

		// Transfer-Encoding. For an unknown one, "the server SHOULD respond
		// with 501"; net/http does.
		for i, value := range []string{"identity", "gzip", "gzip, chunked", "chunked, gzip", "xchunked", "chunkedx", "x", "\"chunked\"", "chunked\x0b", "\x0bchunked", "chunked, identity", "chunked;q=1", "chunked, chunked", ",", "trailers"} {
			add("coding_"+label(i, value), request(p.method, p.target, "Transfer-Encoding: "+value)+chunk(fresh)+lastChunk, "400|501", "", transferEncoding)
		}
		add("coding_empty", request(p.method, p.target, "Transfer-Encoding:")+chunk(fresh)+lastChunk, "400|501", "", transferEncoding)
		add("coding_twice", withChunks(p.method, p.target, chunk(fresh)+lastChunk, "Transfer-Encoding: chunked"), "400|501", "", transferEncoding)
		add("coding_chunked_and_identity", withChunks(p.method, p.target, chunk(fresh)+lastChunk, "Transfer-Encoding: identity"), "400|501", "", transferEncoding)
		add("coding_in_upper_case", request(p.method, p.target, "Transfer-Encoding: CHUNKED")+chunk(fresh)+lastChunk, ok, "", "RFC 9112 7")
		add("coding_and_length", withChunks(p.method, p.target, chunk(fresh)+lastChunk, "Content-Length: 5"), ok+"|400", "", transferEncoding)

		// Chunks that are truncated or malformed: a client error.
		for _, c := range []struct{ name, chunks string }{
			{"missing", ""},
			{"truncated_in_the_size", "18"},
			{"truncated_after_the_size", "18\r\n"},
			{"truncated_in_the_data", "18\r\nwhat"},
			{"truncated_after_the_data", "18\r\n" + fresh},
			{"last_chunk_missing", chunk(fresh)},
			{"last_chunk_truncated", chunk(fresh) + "0"},
			{"last_chunk_truncated_after_CR", chunk(fresh) + "0\r"},
			{"trailer_truncated", chunk(fresh) + "0\r\nX: x\r\n"},
			{"size_missing", "\r\n" + fresh + "\r\n" + lastChunk},
			{"size_not_hex", "xyz\r\n" + fresh + "\r\n" + lastChunk},
			{"size_negative", "-18\r\n" + fresh + "\r\n" + lastChunk},
			{"size_with_plus", "+18\r\n" + fresh + "\r\n" + lastChunk},
			{"size_with_0x", "0x18\r\n" + fresh + "\r\n" + lastChunk},
			{"size_after_a_space", " 18\r\n" + fresh + "\r\n" + lastChunk},
			{"size_with_NUL", "18\x00\r\n" + fresh + "\r\n" + lastChunk},
			{"size_of_17_digits", "fffffffffffffffff\r\n" + fresh + "\r\n" + lastChunk},
			{"size_of_16_EiB", "ffffffffffffffff\r\n" + fresh + "\r\n" + lastChunk},
			{"size_of_8_EiB", "7fffffffffffffff\r\n" + fresh + "\r\n" + lastChunk},
			{"size_of_minus_2_63", "8000000000000000\r\n" + fresh + "\r\n" + lastChunk},
			{"size_too_small", "17\r\n" + fresh + "\r\n" + lastChunk},
			{"size_too_large", "19\r\n" + fresh + "\r\n" + lastChunk},
			{"no_CRLF_after_the_data", "18\r\n" + fresh + lastChunk},
			{"XY_after_the_data", "18\r\n" + fresh + "XY" + lastChunk},
			{"bare_LF", "18\n" + fresh + "\n0\n\n"},
			{"bare_LF_after_the_size", "18\n" + fresh + "\r\n" + lastChunk},
			{"bare_LF_in_an_extension", "18;x\n" + fresh + "\r\n" + lastChunk},
			{"second_malformed", chunk(hello) + "x\r\n\r\n"},
			{"line_of_10000_characters", "18;" + strings.Repeat("x", 10_000) + "\r\n" + fresh + "\r\n" + lastChunk},
			{"trailer_without_colon", chunk(fresh) + "0\r\nX\r\n\r\n"},
			{"long_extensions", strings.Repeat("1;"+strings.Repeat("x", 2_000)+"\r\nx\r\n", 100)},
		} {
			add("chunks_"+c.name, withChunks(p.method, p.target, c.chunks), "400", "SIZE_INVALID|BLOB_UPLOAD_INVALID|MANIFEST_INVALID", chunked)
		}
		for _, c := range []struct{ name, chunks, want string }{
			{"in_pieces", chunk("what the") + chunk(" attacker") + chunk(" pushes") + lastChunk, ok},
			{"one_byte_per_chunk", chunkPerByte(fresh), ok},
			{"with_an_extension", "18;a=b;c=\"d\"\r\n" + fresh + "\r\n" + lastChunk, ok},
			{"with_zeros", "00000018\r\n" + fresh + "\r\n" + lastChunk, ok},
			{"with_17_zeros", "00000000000000018\r\n" + fresh + "\r\n" + lastChunk, ok + "|400"},
			{"with_a_trailer", chunk(fresh) + "0\r\nX: x\r\n\r\n", ok},
			{"with_framing_in_the_trailer", chunk(fresh) + "0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: x\r\nContent-Range: 0-4\r\n\r\n", ok + "|400"},
		} {
			add("chunks_"+c.name, withChunks(p.method, p.target, c.chunks), c.want, "", "RFC 9112 7.1; RFC 9110 6.5.1")
		}

		// Expectations.
		add("expect_100", withBody(p.method, p.target, fresh, "Expect: 100-continue"), "100 "+ok, "", expect)
		add("expect_100_in_upper_case", withBody(p.method, p.target, fresh, "Expect: 100-CONTINUE"), "100 "+ok, "", expect)
		add("expect_100_without_body", withBody(p.method, p.target, "", "Expect: 100-continue"), "100|201|202|400 201|202|400|closed", "", expect)
		add("unknown_expectation", withBody(p.method, p.target, fresh, "Expect: 200-ok"), ok+"|417", "", expect)
		add("expect_100_then_truncated", request(p.method, p.target, "Content-Length: 24", "Expect: 100-continue"), "100 400", "SIZE_INVALID|BLOB_UPLOAD_INVALID|MANIFEST_INVALID", expect+"; "+truncated)
	}
	return append(list,
		// The registry rejects these requests without asking for the body.
		attack{name: "expect_100_with_malformed_name", send: request("PUT", "/v2/A/manifests/new", "Content-Length: 24", "Expect: 100-continue"), want: "400", code: "NAME_INVALID", section: expect},
		attack{name: "expect_100_with_unknown_session", send: request("PATCH", "/v2/a/blobs/uploads/unknown", "Content-Length: 24", "Expect: 100-continue"), want: "404", code: "BLOB_UPLOAD_UNKNOWN", section: expect},
		attack{name: "expect_100_with_chunk_out_of_order", send: request("PATCH", "/v2/a/blobs/uploads/{session}", "Content-Range: 0-23", "Content-Length: 24", "Expect: 100-continue"), want: "416", code: "BLOB_UPLOAD_INVALID", section: expect + "; spec, Pushing a blob in chunks"},
		attack{name: "expect_100_with_large_Content-Length", send: request("PUT", "/v2/a/manifests/new", "Content-Length: 1099511627776", "Expect: 100-continue"), want: "413", code: "SIZE_INVALID", section: expect + "; RFC 9110 15.5.14"},
		attack{name: "expect_100_in_HTTP_1.0", send: "PUT /v2/a/manifests/new HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 24\r\n\r\n" + fresh, want: "201", section: expect + " (100-continue in HTTP/1.0 MUST be ignored)"},
		attack{name: "chunked_in_HTTP_1.0", send: "POST /v2/a/blobs/uploads/?digest=" + sha(fresh) + " HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(fresh) + lastChunk, want: "400", section: "RFC 9112 6.1 (faulty framing)"},
		attack{name: "no_length", send: request("PUT", "/v2/a/manifests/new") + fresh + "\r\n\r\n", want: "201|400|411 400", section: "RFC 9112 6.3"},
		attack{name: "GET_truncated", send: request("GET", "/v2/", "Content-Length: 25") + fresh, want: "200|400", section: truncated},
		attack{name: "GET_with_malformed_chunks", send: withChunks("GET", "/v2/", "x\r\n"), want: "200|400", section: chunked},
		attack{name: "DELETE_with_malformed_chunks", send: withChunks("DELETE", "/v2/a/manifests/tag", "x\r\n"), want: "202|400", section: chunked},
		attack{name: "start_with_malformed_chunks", send: withChunks("POST", "/v2/a/blobs/uploads/", "x\r\n"), want: "202|400", section: chunked},
		attack{name: "start_with_a_body", send: withBody("POST", "/v2/a/blobs/uploads/", fresh) + request("GET", "/v2/"), want: "202|400 200", section: "spec, POST then PUT; RFC 9112 6.3"},
		attack{name: "PATCH_truncated_keeps_bytes", send: request("PATCH", "/v2/a/blobs/uploads/{session}", "Content-Length: 25") + fresh, want: "400", partial: true, section: "spec, Pushing a blob in chunks (GET for the current offset)"},
	)
}

// chunkPerByte returns data in chunks of one byte.
func chunkPerByte(data string) string {
	var b strings.Builder
	for _, c := range []byte(data) {
		b.WriteString(chunk(string(rune(c))))
	}
	return b.String() + lastChunk
}

// contentRanges sends chunks with a Content-Range in the spec's own form. The
// session has 5 bytes, a chunk 24.
func contentRanges() (list []attack) {
	const (
		order  = `spec, Pushing a blob in chunks ("out of order … MUST respond with a 416")`
		form   = `spec, Pushing a blob in chunks ("It MUST match … ^[0-9]+-[0-9]+$")`
		length = `spec, Pushing a blob in chunks ("<length> is the content-length, in bytes, of the current chunk")`
	)
	checkPosition := func(t *testing.T, responses []*response) {
		h := responses[0].Header
		qt.Check(t, qt.Matches(h.Get("Location"), "/v2/a/blobs/uploads/[^/]+"))
		qt.Check(t, qt.Equals(h.Get("Range"), "0-4"))
	}
	for _, p := range []struct{ name, method, target, ok string }{
		{"patch", "PATCH", "/v2/a/blobs/uploads/{session}", "202"},
		{"put", "PUT", "/v2/a/blobs/uploads/{session}?digest=" + sha(hello+fresh), "201"},
	} {
		add := func(name, value, want, code, section string) {
			list = append(list,
				attack{name: p.name + "_" + name, send: withBody(p.method, p.target, fresh, "Content-Range: "+value), want: want, code: code, section: section},
				attack{name: p.name + "_" + name + "_streamed", send: withChunks(p.method, p.target, chunk(fresh)+lastChunk, "Content-Range: "+value), want: want, code: code, section: section},
			)
		}
		for _, value := range []string{"0-23", "4-27", "6-29", "24-47", "1-24", "00-23"} {
			list = append(list, attack{name: p.name + "_out_of_order_" + value, send: withBody(p.method, p.target, fresh, "Content-Range: "+value), want: "416", code: "BLOB_UPLOAD_INVALID", section: order, check: checkPosition})
		}
		for i, value := range []string{"9223372036854775807-9223372036854775830", "9223372036854775784-9223372036854775807", "18446744073709551615-18446744073709551638", "18446744073709551621-18446744073709551644", "4611686018427387904-4611686018427387927", "99999999999999999999999-99999999999999999999999", strings.Repeat("9", 5_000) + "-" + strings.Repeat("9", 5_001)} {
			add("overflows_"+label(i, value), value, "400|416", "", order)
		}
		for i, value := range []string{"bytes=5-28", "bytes 5-28/29", "bytes 5-28/*", "bytes */29", "5", "5-", "-28", "-", "--", "5--28", "-5-28", "5-28-", "5-28/29", "5 - 28", "5- 28", "+5-28", "5-+28", "0x5-0x1c", "5.0-28.0", "5_0-28", "5e0-28", "5-28,29-30", "5-28, 5-28", "٥-٢٨", "a-b", "*", "5–28", "5\x00-28", strings.Repeat("-", 10_000)} {
			want := "400|416"
			if strings.Contains(value, "\x00") {
				want = "400"
			}
			add("malformed_"+label(i, value), value, want, "", form)
		}
		for i, value := range []string{"5-27", "5-29", "5-5", "5-4", "5-3", "5-0", "28-5", "5-9223372036854775807", "5-18446744073709551615", "5-18446744073709551644", "5-4294967324", "5-" + strings.Repeat("9", 10_000)} {
			add("disagrees_"+label(i, value), value, "400|416", "", length)
		}
		add("in_order", "5-28", p.ok, "", form)
		add("with_zeros", "005-0028", p.ok, "", form)
		add("with_10000_zeros", strings.Repeat("0", 10_000)+"5-28", p.ok, "", form)
		add("with_spaces_around", " \t5-28\t ", p.ok, "", "RFC 9110 5.5")
		list = append(list,
			attack{name: p.name + "_twice", send: withBody(p.method, p.target, fresh, "Content-Range: 5-28", "Content-Range: 0-23"), want: "400|416", section: form + "; RFC 9110 5.3"},
			attack{name: p.name + "_truncated", send: request(p.method, p.target, "Content-Range: 5-29", "Content-Length: 25") + fresh, want: "400", code: "SIZE_INVALID|BLOB_UPLOAD_INVALID", section: "RFC 9112 8", partial: p.method == "PATCH"},
			attack{name: p.name + "_too_long", send: withBody(p.method, p.target, fresh+secret, "Content-Range: 5-28"), want: "400|416", section: length},
			attack{name: p.name + "_unknown_session", send: withBody(p.method, strings.Replace(p.target, "{session}", "unknown", 1), fresh, "Content-Range: x"), want: "400|404", section: "spec, Endpoints (end-5, end-6)"},
		)
	}
	manifest := withBody("PUT", "/v2/a/manifests/new", opaque, "Content-Range: bytes 0-17/100")
	return append(list,
		attack{name: "first_chunk", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", fresh, "Content-Range: 0-23"), want: "202", section: form},
		attack{name: "first_chunk_not_at_0", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", fresh, "Content-Range: 1-24"), want: "416", code: "BLOB_UPLOAD_INVALID", section: `spec, Pushing a blob in chunks ("The first chunk's range MUST begin with 0")`},
		attack{name: "empty_first_chunk", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", "", "Content-Range: 0-0"), want: "202|400|416", section: length},
		attack{name: "one_byte", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", "x", "Content-Range: 0-0"), want: "202", section: form},
		attack{name: "two_bytes_as_one", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", "xy", "Content-Range: 0-0"), want: "400|416", section: length},
		attack{name: "same_chunk_twice", send: strings.Repeat(withBody("PATCH", "/v2/a/blobs/uploads/{empty}", fresh, "Content-Range: 0-23"), 2), want: "202 416", section: order},
		attack{name: "rejected_then_in_order", send: withBody("PATCH", "/v2/a/blobs/uploads/{empty}", fresh, "Content-Range: 1-24") + withBody("PATCH", "/v2/a/blobs/uploads/{empty}", fresh, "Content-Range: 0-23"), want: "416 202", section: order},
		attack{name: "push", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, "Content-Range: 0-23"), want: "201|400|416", section: "spec, Single POST"},
		attack{name: "push_not_at_0", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, "Content-Range: 5-28"), want: "400|416", section: order},
		attack{name: "push_that_disagrees", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, "Content-Range: 0-9"), want: "400|416", section: length},
		attack{name: "on_a_manifest", send: manifest, want: "400", section: "RFC 9110 9.3.4 (an origin server SHOULD respond with 400 … that does not support partial PUT)"},
		attack{name: "on_a_pull", send: request("GET", "/v2/a/blobs/"+sha(digits), "Content-Range: bytes 0-1/10"), want: "200|400", section: "RFC 9110 14.4"},
	)
}
