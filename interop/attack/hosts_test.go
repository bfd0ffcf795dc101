// SPDX-License-Identifier: Apache-2.0

// The destination that a request names: Host, the forms of a target, and the
// headers that proxies add. Also request lines, headers and pipelining.

package attack

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// hosts sends hosts that the registry must not trust. No response may reflect
// them: see parse.
func hosts() (list []attack) {
	const (
		hostHeader = "RFC 9112 3.2"
		absolute   = "RFC 9112 3.2.2 (a server MUST accept the absolute-form)"
		location   = "RFC 9110 10.2.2; spec, POST then PUT (the location MAY be relative)"
	)
	get := func(lines ...string) string { return "GET /v2/ HTTP/1.1\r\n" + headerLines(lines) + "\r\n" }
	list = []attack{
		{name: "none", send: get(), want: "400", section: hostHeader},
		{name: "none_in_HTTP_1.0", send: "GET /v2/ HTTP/1.0\r\n\r\n", want: "200", section: hostHeader},
		{name: "two", send: get("Host: a", "Host: b"), want: "400", section: hostHeader},
		{name: "two_equal", send: get("Host: a", "Host: a"), want: "400", section: hostHeader},
		{name: "two_in_HTTP_1.0", send: "GET /v2/ HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", want: "400", section: hostHeader},
		{name: "empty", send: get("Host:"), want: "200", section: hostHeader},
	}
	for i, value := range []string{"a b", "a/b", "a\\b", "a@b", "a?b", "a#b", "<script>", "a\"b", "a\tb", "{a}", "a|b", "a^b", "\xff", "ä"} {
		list = append(list, attack{name: "malformed_" + label(i, value), send: get("Host: " + value), want: "400", section: hostHeader})
	}
	for i, value := range []string{"127.0.0.1", "[::1]:80", host + ":65535", strings.Repeat("a.", 5_000) + "a", "169.254.169.254", "localhost"} {
		list = append(list, attack{name: "not_reflected_" + label(i, value), send: "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: " + value + "\r\n\r\n", want: "202", section: location})
	}
	for _, target := range []string{"http://" + host + "/v2/", "HTTP://" + host + "/v2/", "https://" + host + ":8443/v2/", "http://" + host + "/v2/a/tags/list?n=1"} {
		list = append(list,
			attack{name: "absolute_" + label(len(list), target), send: request("GET", target), want: "200", section: absolute},
			attack{name: "absolute_with_another_Host_" + label(len(list), target), send: "GET " + target + " HTTP/1.1\r\nHost: other.example\r\n\r\n", want: "200", section: absolute},
		)
	}
	list = append(list,
		attack{name: "absolute_start", send: request("POST", "http://"+host+"/v2/a/blobs/uploads/"), want: "202", section: absolute},
		attack{name: "absolute_put", send: withBody("PUT", "http://"+host+"/v2/a/manifests/new", opaque), want: "201", section: absolute},
		attack{name: "absolute_with_malformed_name", send: request("GET", "http://"+host+"/v2/A/tags/list"), want: "400", code: "NAME_INVALID", section: absolute},
		attack{name: "absolute_without_path", send: request("GET", "http://"+host), want: "400|404", section: absolute},
		attack{name: "absolute_with_userinfo", send: request("GET", "http://user:"+secret+"@"+host+"/v2/"), want: "200|400", section: "RFC 9110 4.2.4"},
		attack{name: "absolute_of_another_scheme", send: request("GET", "ftp://"+host+"/v2/"), want: "200|400|404|421", section: "RFC 9110 7.4"},
		attack{name: "absolute_without_Host", send: "GET http://" + host + "/v2/ HTTP/1.1\r\n\r\n", want: "200|400", section: hostHeader},
		attack{name: "no_scheme", send: request("GET", "//"+host+"/v2/"), want: "400|404", section: "RFC 9112 3.2.1"},
		attack{name: "no_slash", send: request("GET", "v2/"), want: "400", section: "RFC 9112 3.2.1"},
		attack{name: "GET_with_authority_form", send: request("GET", host+":443"), want: "400|404", section: "RFC 9112 3.2.3"},
		attack{name: "opaque_URI", send: request("GET", "javascript:alert(1)"), want: "400|404", section: "RFC 9112 3.2"},
		attack{name: "backslashes", send: request("GET", `\\`+host+`\v2\`), want: "400|404", section: "RFC 9112 3.2.1"},
		attack{name: "absolute_with_dots", send: request("GET", "http://"+host+"/x/../v2/"), want: "400|404", section: "spec, Endpoints"},
	)

	// Headers that a proxy adds, or that a client forges.
	for _, line := range []string{
		"X-Forwarded-Host: " + host, "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /" + host, "X-Forwarded-For: " + host, "X-Forwarded-Server: " + host, "X-Forwarded-Port: 8443",
		"Forwarded: for=" + host + ";host=" + host + ";proto=https", "X-Host: " + host, "X-Original-URL: /v2/" + host + "/", "X-Rewrite-URL: /v2/" + host + "/", "X-Real-IP: " + host, "Referer: http://" + host + "/", "Origin: http://" + host, "Via: 1.1 " + host, "X-Request-Id: " + host, "Cookie: " + secret, "Authorization: Bearer " + secret, "User-Agent: " + secret,
	} {
		header, _, _ := strings.Cut(line, ":")
		for _, c := range []attack{
			{name: "start", send: request("POST", "/v2/a/blobs/uploads/", line), want: "202"},
			{name: "push", send: withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh, line), want: "201"},
			{name: "put", send: withBody("PUT", "/v2/a/manifests/new", opaque, line), want: "201"},
			{name: "status", send: request("GET", "/v2/a/blobs/uploads/{session}", line), want: "204"},
			{name: "Link", send: request("GET", "/v2/a/tags/list?n=1", line), want: "200"},
			{name: "error", send: request("GET", "/v2/"+secret+"/tags/list", line), want: "404", code: "NAME_UNKNOWN"},
		} {
			c.name, c.section = header+"_"+c.name, location
			list = append(list, c)
		}
	}
	return append(list, attack{name: "X-Original-URL_is_not_the_target", send: request("GET", "/v2/", "X-Original-URL: /v2/a/tags/list", "X-Rewrite-URL: /v2/a/tags/list"), want: "200", section: "RFC 9110 7.1", check: func(t *testing.T, responses []*response) {
		qt.Check(t, qt.Equals(string(responses[0].body), "{}"))
	}})
}

// lines sends request lines and headers that are malformed or large, and several
// requests on one connection.
func lines() (list []attack) {
	const (
		requestLine = "RFC 9112 3"
		version     = "RFC 9112 2.3; RFC 9110 15.6.6"
		parsing     = "RFC 9112 2.2"
		headerLine  = "RFC 9112 5"
		large       = "RFC 9110 15.5.15; RFC 6585 5"
	)
	end := "\r\nHost: " + host + "\r\n\r\n"
	raw := func(name, send, want, section string) {
		list = append(list, attack{name: name, send: send, want: want, section: section})
	}
	raw("nothing", "", "closed", "RFC 9112 8")
	raw("partial_line", "GET /v2/ HT", "400|closed", "RFC 9112 8")
	raw("partial_header", "GET /v2/ HTTP/1.1\r\nHost: a\r\n", "400|closed", "RFC 9112 8")
	raw("no_version", "GET /v2/"+end, "400", requestLine)
	raw("no_target", "GET HTTP/1.1"+end, "400", requestLine)
	raw("no_method", "/v2/ HTTP/1.1"+end, "400", requestLine)
	raw("leading_space", " GET /v2/ HTTP/1.1"+end, "400", requestLine)
	raw("two_spaces", "GET  /v2/ HTTP/1.1"+end, "400", requestLine)
	raw("tabs", "GET\t/v2/\tHTTP/1.1"+end, "400", requestLine)
	raw("extra_word", "GET /v2/ x HTTP/1.1"+end, "400", requestLine)
	raw("space_in_the_target", "GET /v2/a b/tags/list HTTP/1.1"+end, "400", "RFC 9112 3.2")
	raw("NUL_in_the_target", "GET /v2/a\x00/tags/list HTTP/1.1"+end, "400", "RFC 9112 3.2")
	raw("DEL_in_the_target", "GET /v2/a\x7f/tags/list HTTP/1.1"+end, "400", "RFC 9112 3.2")
	raw("byte_ff_in_the_target", "GET /v2/a\xff/tags/list HTTP/1.1"+end, "400", "RFC 9112 3.2")
	raw("bare_CR_in_the_target", "GET /v2/a\rb/tags/list HTTP/1.1"+end, "400", "RFC 9112 2.2")
	raw("partial_escape", "GET /v2/a%2/tags/list HTTP/1.1"+end, "400", "RFC 3986 2.1")
	raw("escape_not_hex", "GET /v2/a%zz/tags/list HTTP/1.1"+end, "400", "RFC 3986 2.1")
	raw("method_not_a_token", "G(T /v2/ HTTP/1.1"+end, "400", "RFC 9110 9.1")
	raw("method_with_NUL", "GET\x00 /v2/ HTTP/1.1"+end, "400", "RFC 9110 9.1")
	raw("a_TLS_handshake", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400", requestLine)
	raw("another_protocol", "HELO a\r\nMAIL FROM:<a@b>\r\n\r\n", "400", requestLine)
	raw("HTTP_2_preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400|404|405|505", "RFC 9113 3.4")
	for i, v := range []string{"HTTP/1", "HTTP/1.10", "HTTP/11.1", "HTTP/+1.1", "HTTP/-1.1", "HTTP/1.1x", "http/1.1", "HTTP/1,1", "HTTP/x.y", "HTTPS/1.1", "HTTP/1.1 ", "1.1", "HTTP/"} {
		raw("version_"+label(i, v), "GET /v2/ "+v+end, "400", version)
	}
	for i, v := range []string{"HTTP/0.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"} {
		raw("unsupported_version_"+label(i, v), "GET /v2/ "+v+end, "400|505", version)
	}
	raw("HTTP_1.2_is_treated_as_1.1", "GET /v2/ HTTP/1.2"+end, "200", "RFC 9110 2.5")
	raw("HTTP_0.9", "GET /v2/\r\n", "400", version)
	raw("leading_empty_line", "\r\nGET /v2/ HTTP/1.1"+end, "200|400", parsing)
	raw("only_empty_lines", strings.Repeat("\r\n", 1_000), "400", parsing)
	raw("bare_LF", "GET /v2/ HTTP/1.1\nHost: a\n\n", "200|400", parsing)
	raw("bare_CR", "GET /v2/ HTTP/1.1\rHost: a\r\r", "400|closed", parsing)
	raw("space_before_the_first_header", "GET /v2/ HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", "200|400", parsing)

	// Headers.
	for _, c := range []struct{ name, line, want, section string }{
		{"no_colon", "X", "400", headerLine},
		{"no_name", ": x", "400", headerLine},
		{"space_before_the_colon", "X : x", "400", "RFC 9112 5.1"},
		{"tab_before_the_colon", "Content-Length\t: 5", "400", "RFC 9112 5.1"},
		{"space_in_the_name", "X Y: x", "400", "RFC 9110 5.1"},
		{"bracket_in_the_name", "X(Y): x", "400", "RFC 9110 5.1"},
		{"NUL_in_the_name", "X\x00Y: x", "400", "RFC 9110 5.1"},
		{"byte_ff_in_the_name", "X\xffY: x", "400", "RFC 9110 5.1"},
		{"quote_in_the_name", "\"X\": x", "400", "RFC 9110 5.1"},
		{"NUL_in_the_value", "X: a\x00b", "200|400", "RFC 9110 5.5"},
		{"bare_CR_in_the_value", "X: a\rX-Injected: yes", "200|400", "RFC 9110 5.5"},
		{"folded", "X: a\r\n b", "200|400", "RFC 9112 5.2"},
		{"byte_ff_in_the_value", "X: \xff", "200", "RFC 9110 5.5"},
		{"empty_value", "X:", "200", "RFC 9110 5.5"},
		{"name_of_10000_characters", strings.Repeat("X", 10_000) + ": x", "200|431", large},
		{"value_of_100000_characters", "X: " + strings.Repeat("x", 100_000), "200|431", large},
		{"10000_headers", strings.TrimSuffix(strings.Repeat("X: x\r\n", 10_000), "\r\n"), "200|431", large},
		{"value_of_2_MB", "X: " + strings.Repeat("x", 2_000_000), "431", large},
		{"300000_headers", strings.TrimSuffix(strings.Repeat("X: x\r\n", 300_000), "\r\n"), "431", large},
		{"upgrade_to_a_websocket", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "200", "RFC 9110 7.8"},
		{"upgrade_to_h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "200", "RFC 9110 7.8"},
		{"connection_names_end_to_end_headers", "Connection: Host, Content-Length, Docker-Content-Digest", "200|400", "RFC 9110 7.6.1"},
		{"connection_without_token", "Connection: ,;=,", "200|400", "RFC 9110 7.6.1"},
		{"unknown_expectation", "Expect: the-spanish-inquisition", "200|417", "RFC 9110 10.1.1"},
		{"no_coding_acceptable", "Accept-Encoding: identity;q=0, *;q=0", "200|406", "RFC 9110 12.5.3"},
		{"nothing_acceptable", "Accept: */*;q=0", "200|406", "RFC 9110 12.5.1"},
		{"malformed_Accept", "Accept: ;;;,/,*", "200|400|406", "RFC 9110 12.5.1"},
		{"malformed_Date", "Date: yesterday", "200", "RFC 9110 6.6.1"},
		{"Max-Forwards", "Max-Forwards: -1", "200", "RFC 9110 7.6.2"},
	} {
		raw("header_"+c.name, request("GET", "/v2/", c.line), c.want, c.section)
	}
	raw("target_of_100000_characters", request("GET", "/v2/"+strings.Repeat("a", 100_000)+"/tags/list"), "400|414|431", large)
	raw("target_of_100000_slashes", request("GET", "/v2/"+strings.Repeat("/", 100_000)), "400|404|414|431", large)
	raw("target_of_300000_escapes", request("GET", "/v2/"+strings.Repeat("%61", 300_000)+"/tags/list"), "400|414|431", large)
	raw("query_of_100000_characters", request("GET", "/v2/a/tags/list?last="+strings.Repeat("a", 100_000)), "200|400|414|431", large)
	raw("target_of_2_MB", request("GET", "/v2/"+strings.Repeat("a", 2_000_000)), "414|431", large)

	// Several requests on one connection.
	const pipelining = "RFC 9112 9.3.2"
	ping := request("GET", "/v2/")
	raw("pipelined_2", ping+ping, "200 200", pipelining)
	raw("pipelined_100", strings.Repeat(ping, 100), strings.TrimSpace(strings.Repeat("200 ", 100)), pipelining)
	raw("pipelined_after_204", request("GET", "/v2/a/blobs/uploads/{session}")+ping, "204 200", "RFC 9110 15.3.5; RFC 9112 6.3")
	raw("pipelined_after_304", request("GET", "/v2/a/blobs/"+sha(digits), "If-None-Match: *")+ping, "304 200", "RFC 9110 15.4.5; RFC 9112 6.3")
	raw("pipelined_after_HEAD", request("HEAD", "/v2/a/blobs/"+sha(digits))+ping, "200 200", "RFC 9110 9.3.2; RFC 9112 6.3")
	raw("pipelined_after_HEAD_of_tags", request("HEAD", "/v2/a/tags/list")+ping, "200 200", "RFC 9110 9.3.2; RFC 9112 6.3")
	raw("pipelined_after_206", request("GET", "/v2/a/blobs/"+sha(digits), "Range: bytes=1-2")+ping, "206 200", "RFC 9112 6.3")
	raw("pipelined_after_416", request("GET", "/v2/a/blobs/"+sha(digits), "Range: bytes=10-")+ping, "416 200", "RFC 9112 6.3")
	raw("pipelined_after_GET_with_a_body", withBody("GET", "/v2/", ping)+ping, "200 200", "RFC 9110 9.3.1; RFC 9112 6")
	raw("pipelined_after_DELETE_with_a_body", withBody("DELETE", "/v2/a/manifests/tag", ping)+ping, "202 200", "RFC 9110 9.3.5; RFC 9112 6")
	raw("pipelined_after_close", request("GET", "/v2/", "Connection: close")+ping, "200 closed", "RFC 9112 9.6")
	raw("pipelined_push_and_pull", withBody("POST", "/v2/a/blobs/uploads/?digest="+sha(fresh), fresh)+request("GET", "/v2/a/blobs/"+sha(fresh)), "201 200", pipelining)
	raw("pipelined_push_and_delete", withBody("PUT", "/v2/a/manifests/new", opaque)+request("DELETE", "/v2/a/manifests/new")+request("GET", "/v2/a/manifests/new"), "201 202 404", pipelining)
	raw("pipelined_garbage", ping+"\x00\x01\x02\r\n\r\n", "200 400", requestLine)
	raw("HTTP_1.0_closes", strings.Repeat("GET /v2/ HTTP/1.0\r\n\r\n", 2), "200 closed", "RFC 9112 9.3")
	raw("HTTP_1.0_keeps_alive", strings.Repeat("GET /v2/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 2), "200 200", "RFC 9112 9.3, C.2.2")
	raw("HTTP_1.0_push", "POST /v2/a/blobs/uploads/?digest="+sha(hello)+" HTTP/1.0\r\nContent-Length: 5\r\n\r\n"+hello, "201", "RFC 9112 2.3")
	raw("HTTP_1.0_POST_without_length", "POST /v2/a/blobs/uploads/ HTTP/1.0\r\n\r\n", "202|400|411", "RFC 9112 6.3")
	// A body that is rejected unread must not be parsed as the next request.
	for _, size := range []int{0, 10_000, 200_000} {
		body := request("DELETE", "/v2/a/manifests/tag") + strings.Repeat(" ", size)
		raw("rejected_body_is_not_a_request_"+label(size, ""), withBody("PUT", "/v2/A/manifests/new", body)+ping, "400 200", "RFC 9112 9.3, 6.3")
		raw("rejected_chunks_are_not_a_request_"+label(size, ""), withChunks("PUT", "/v2/A/manifests/new", chunk(body)+lastChunk)+ping, "400 200", "RFC 9112 9.3, 7.1")
	}
	body := strings.Repeat(request("DELETE", "/v2/a/manifests/tag"), 20_000)
	raw("rejected_body_of_1_MB_is_not_a_request", withBody("PUT", "/v2/A/manifests/new", body)+ping, "400 200|closed", "RFC 9112 9.3, 6.3")
	return list
}
