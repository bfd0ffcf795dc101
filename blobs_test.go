// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

func TestGetBlob(t *testing.T) {
	h := registry.New()
	d := sha(hello)
	etag := `"` + d + `"`
	url := "/v2/a/blobs/" + d
	full := map[string]string{
		"Content-Length":         "12",
		"Content-Type":           "application/octet-stream",
		"Docker-Content-Digest":  d,
		"Etag":                   etag,
		"Accept-Ranges":          "bytes",
		"X-Content-Type-Options": "nosniff",
	}
	part := func(contentRange string) map[string]string {
		return map[string]string{"Content-Range": contentRange, "Docker-Content-Digest": d, "Etag": etag}
	}
	get := func(header ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(header); i += 2 {
			m[header[i]] = header[i+1]
		}
		return m
	}
	run(t, h, []call{
		pushBlob("a", hello),
		pushBlob("a", ""),
		{url: url, status: 200, wantBody: hello, wantHeader: full},
		{method: "HEAD", url: url, status: 200, wantHeader: full},
		{url: "/v2/b/blobs/" + d, status: 404, wantCode: "NAME_UNKNOWN"},
		{url: "/v2/a/blobs/" + otherDigest, status: 404, wantCode: "BLOB_UNKNOWN"},

		{name: "part", url: url, header: get("Range", "bytes=7-9"), status: 206, wantBody: "wor", wantHeader: part("bytes 7-9/12")},
		{name: "clamped", url: url, header: get("Range", "bytes=7-99"), status: 206, wantBody: "world", wantHeader: part("bytes 7-11/12")},
		{name: "open", url: url, header: get("Range", "bytes=7-"), status: 206, wantBody: "world", wantHeader: part("bytes 7-11/12")},
		{name: "suffix", url: url, header: get("Range", "bytes=-5"), status: 206, wantBody: "world", wantHeader: part("bytes 7-11/12")},
		{name: "long suffix", url: url, header: get("Range", "bytes=-99"), status: 206, wantBody: hello, wantHeader: part("bytes 0-11/12")},
		{name: "unit in capitals", url: url, header: get("Range", "Bytes=7-9"), status: 206, wantBody: "wor"},
		{name: "unknown unit", url: url, header: get("Range", "lines=1-2"), status: 200, wantBody: hello},
		{name: "HEAD has no ranges", method: "HEAD", url: url, header: get("Range", "bytes=7-9"), status: 200, wantHeader: full},
		{name: "past the end", url: url, header: get("Range", "bytes=12-"), status: 416, wantCode: "SIZE_INVALID", wantHeader: get("Content-Range", "bytes */12", "Docker-Content-Digest", d)},
		{name: "reversed", url: url, header: get("Range", "bytes=5-2"), status: 416, wantCode: "SIZE_INVALID"},
		{name: "malformed", url: url, header: get("Range", "bytes=x"), status: 416, wantHeader: get("Content-Range", "bytes */12")},
		{name: "a range of an empty blob", url: "/v2/a/blobs/" + sha(""), header: get("Range", "bytes=0-"), status: 200},
		{name: "a suffix of an empty blob", url: "/v2/a/blobs/" + sha(""), header: get("Range", "bytes=-1"), status: 200},
		{name: "the last 0 bytes", url: url, header: get("Range", "bytes=-0"), status: 416, wantHeader: get("Content-Range", "bytes */12")},
		{name: "the last 0 bytes and others", url: url, header: get("Range", "bytes=-00, 7-9"), status: 206, wantBody: "wor"},
		{name: "an end beyond an int64", url: url, header: get("Range", "bytes=7-"+strings.Repeat("9", 30)), status: 206, wantBody: "world", wantHeader: part("bytes 7-11/12")},
		{name: "a start beyond an int64", url: url, header: get("Range", "bytes="+strings.Repeat("9", 30)+"-"), status: 416, wantCode: "SIZE_INVALID"},
		{name: "leading zeros", url: url, header: get("Range", "bytes="+strings.Repeat("0", 30)+"7-009"), status: 206, wantBody: "wor"},
		{name: "empty elements", url: url, header: get("Range", "bytes=, ,7-9,"), status: 206, wantBody: "wor"},
		{name: "signs", url: url, header: get("Range", "bytes=+7-+9"), status: 416},
		{name: "too many ranges", url: url, header: get("Range", "bytes="+strings.Repeat("1-1,", 100)+"1-1"), status: 200, wantBody: hello},

		{name: "cached", url: url, header: get("If-None-Match", etag), status: 304, wantHeader: part("")},
		{name: "another blob cached", url: url, header: get("If-None-Match", `"x"`), status: 200},
		{name: "If-Range holds", url: url, header: get("Range", "bytes=7-9", "If-Range", etag), status: 206, wantBody: "wor"},
		{name: "If-Range fails", url: url, header: get("Range", "bytes=7-9", "If-Range", `"x"`), status: 200, wantBody: hello},
		{name: "If-Match fails", url: url, header: get("If-Match", `"x"`), status: 412, wantCode: "DENIED"},
		{name: "If-Match holds", url: url, header: get("If-Match", `"x,y", `+etag, "Range", "bytes=7-9"), status: 206, wantBody: "wor"},
		{name: "empty If-Match", url: url, header: get("If-Match", ""), status: 412},
		{name: "both conditions hold", url: url, header: get("If-Match", "*", "If-None-Match", `"x"`), status: 200},
		{name: "one of two conditions fails", url: url, header: get("If-Match", etag, "If-None-Match", "W/"+etag), status: 304},
		{name: "a condition precedes a range", url: url, header: get("If-None-Match", "*", "Range", "bytes=99-"), status: 304},
		{name: "* in a list", url: url, header: get("If-None-Match", `"x", *`), status: 400, wantCode: "UNSUPPORTED"},
		{name: "a space in an entity tag", url: url, header: get("If-None-Match", `"a b"`), status: 400, wantCode: "UNSUPPORTED"},
		{name: "an entity tag without quotes", url: url, header: get("If-None-Match", d), status: 400, wantCode: "UNSUPPORTED"},
		{name: "an unterminated entity tag", url: url, header: get("If-None-Match", `"x`), status: 400, wantCode: "UNSUPPORTED"},
		{name: "entity tags without a comma", url: url, header: get("If-None-Match", `"x""y"`), status: 400, wantCode: "UNSUPPORTED"},
	})

	w := call{name: "multi", url: url, header: get("Range", "bytes=0-4,-5"), status: 206}.do(t, h)
	_, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	qt.Assert(t, qt.IsNil(err))
	parts := multipart.NewReader(w.Body, params["boundary"])
	for _, want := range []string{"hello", "world"} {
		p, err := parts.NextPart()
		qt.Assert(t, qt.IsNil(err))
		got, _ := io.ReadAll(p)
		qt.Check(t, qt.Equals(string(got), want))
	}
}

func TestDeleteBlob(t *testing.T) {
	h := registry.New()
	d := sha(hello)
	run(t, h, []call{
		{method: "DELETE", url: "/v2/a/blobs/" + d, status: 404, wantCode: "NAME_UNKNOWN"},
		pushBlob("a", hello),
		pushBlob("a", "other"),
		{method: "DELETE", url: "/v2/a/blobs/" + d, header: map[string]string{"If-Match": `"x"`}, status: 412, wantCode: "DENIED"},
		{method: "DELETE", url: "/v2/a/blobs/" + d, header: map[string]string{"If-Match": d}, status: 400, wantCode: "UNSUPPORTED"},
		{name: "a condition on an absent blob", method: "DELETE", url: "/v2/a/blobs/" + otherDigest, header: map[string]string{"If-Match": `"x"`}, status: 404, wantCode: "BLOB_UNKNOWN"},
		{method: "DELETE", url: "/v2/a/blobs/" + d, header: map[string]string{"If-Match": `"` + d + `"`}, status: 202, wantHeader: map[string]string{"Docker-Content-Digest": d}},
		{method: "DELETE", url: "/v2/a/blobs/" + d, status: 404, wantCode: "BLOB_UNKNOWN"},
		{method: "HEAD", url: "/v2/a/blobs/" + d, status: 404},
		{url: "/v2/a/blobs/" + sha("other"), status: 200},
		{url: "/v2/_catalog", status: 200, wantBody: `{"repositories":["a"]}`},
		{method: "DELETE", url: "/v2/a/blobs/" + sha("other"), status: 202},
		{name: "an empty repository does not exist", url: "/v2/_catalog", status: 200, wantBody: `{"repositories":[]}`},
	})
}

// TestLargeBlob pushes a blob of many segments in chunks of odd sizes, and reads all
// of it, and ranges around the ends of the segments.
func TestLargeBlob(t *testing.T) {
	h := registry.New()
	data := strings.Repeat("0123456789abcde", 300_000) // 4.5 MB
	loc := start(t, h, "a")
	for rest, n := data, 1; rest != ""; n = n*3 + 1 {
		n = min(n, len(rest))
		call{method: "PATCH", url: loc, body: rest[:n], status: 202}.do(t, h)
		rest = rest[n:]
	}
	call{method: "PUT", url: loc + "?digest=" + sha(data), status: 201}.do(t, h)
	url := "/v2/a/blobs/" + sha(data)
	call{url: url, status: 200, wantBody: data}.do(t, h)
	for _, at := range []int{1, 4095, 4096, 4097, 8192, 1 << 20, 1<<20 + 4096, 2 << 20, len(data) - 20} {
		call{
			url: url, header: map[string]string{"Range": "bytes=" + contentRange(at-1, 20)}, status: 206,
			wantBody: data[at-1 : at+19],
		}.do(t, h)
	}
}
