// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// pullEvent returns the event of a pull.
func pullEvent() registry.Event {
	r := httptest.NewRequest("GET", "/v2/library/app/manifests/v1?a=b", nil)
	r.Header.Set("User-Agent", "containers/5.34.1 (github.com/containers/image)")
	req, _ := registry.ParseRequest(r)
	return registry.Event{Request: req, HTTP: r, Status: 200, BytesOut: 1024, Duration: 40 * time.Microsecond, Digest: digest.FromString("")}
}

// FuzzRequestLines compares the lines of requests with those that slog's handlers
// write.
func FuzzRequestLines(f *testing.F) {
	for _, text := range []string{"", "alice", "a b", "a=b", `a"b`, `a\b`, "a\nb", "a\u202eb", "\x80", "\x7f", "<&>", "é", "%20"} {
		f.Add(text, int64(1234567890), int64(1500))
	}
	f.Fuzz(func(t *testing.T, text string, when, duration int64) {
		e := pullEvent()
		e.User = text
		e.HTTP.Header.Set("User-Agent", text)
		e.HTTP.RequestURI = "/v2/" + text
		e.Duration = time.Duration(duration)
		var attrs attributes
		describe(e, &attrs)
		now := time.Unix(when%4e9, duration%1e9).In(time.FixedZone("", int(when%50)*900))
		for _, format := range []string{"text", "json"} {
			c := serveCmd{LogFormat: format}
			var want, got bytes.Buffer
			if !(&lineWriter{w: &got, json: format == "json"}).writeLine(now, e) {
				return // slog's handler writes the line
			}
			record := slog.NewRecord(now, slog.LevelInfo, "request", 0)
			record.AddAttrs(attrs...)
			if err := c.logHandler(&want, slog.LevelInfo).Handle(t.Context(), record); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("%s:\n%s\nwant\n%s", format, &got, &want)
			}
		}
	})
}

// BenchmarkRequestLog measures the line of a pull.
func BenchmarkRequestLog(b *testing.B) {
	log := (&serveCmd{LogFormat: "text"}).openLog(io.Discard)
	e := pullEvent()
	b.ReportAllocs()
	for b.Loop() {
		log.logRequest(e)
	}
}
