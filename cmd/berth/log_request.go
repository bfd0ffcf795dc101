// SPDX-License-Identifier: Apache-2.0

// The line of a request in the log.

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// maxLogged is the maximum length in bytes of each part of a request in the log.
const maxLogged = 2 << 10

func clip(s string) string {
	if len(s) > maxLogged {
		return strings.ToValidUTF8(s[:maxLogged], "") + "…"
	}
	return s
}

// logRequest logs a request and its response, in one line: at level Info, at Warn if it
// was rejected, and at Error if the server has failed.
func (l *serverLog) logRequest(e registry.Event) {
	level := requestLevel(e)
	if !l.Enabled(context.Background(), level) {
		return
	}
	var fields [12]field
	all := requestFields(fields[:0], e)
	if level == slog.LevelInfo && allPlain(all) {
		l.writeLine(time.Now(), "INFO", all)
		return
	}
	attrs := make([]slog.Attr, len(all))
	for i, f := range all {
		attrs[i] = f.attr()
	}
	l.LogAttrs(e.HTTP.Context(), level, "request", attrs...)
}

// field is a field of a line: text, a number or a duration.
type field struct {
	key      string
	kind     slog.Kind
	text     string
	quoted   bool // in the text format
	number   int64
	duration time.Duration
}

func (f field) attr() slog.Attr {
	switch f.kind {
	case slog.KindInt64:
		return slog.Int64(f.key, f.number)
	case slog.KindDuration:
		return slog.Duration(f.key, f.duration)
	}
	return slog.String(f.key, f.text)
}

// requestFields appends the fields of a request to fields.
func requestFields(fields []field, e registry.Event) []field {
	text := func(key, value string) field { return field{key: key, kind: slog.KindString, text: clip(value)} }
	fields = append(fields,
		text("op", string(e.Request.Op)),
		text("method", e.HTTP.Method),
		text("url", e.HTTP.URL.String()),
		field{key: "status", kind: slog.KindInt64, number: int64(e.Status)},
		field{key: "bytes", kind: slog.KindInt64, number: e.BytesOut},
		field{key: "duration", kind: slog.KindDuration, duration: e.Duration},
		text("remote", e.HTTP.RemoteAddr),
	)
	reason := ""
	if e.Err != nil {
		reason = e.Err.Error()
	}
	for _, more := range [...]field{
		text("user", e.User),
		text("user_agent", e.HTTP.UserAgent()),
		text("digest", string(e.Digest)),
		text("error", reason),
	} {
		if more.text != "" {
			fields = append(fields, more)
		}
	}
	return fields
}

// requestLevel returns the level of a request in the log. Two errors are a client's
// normal course: a 404 for HEAD, by which it finds out what to push, and the 401 by
// which it learns to authenticate.
func requestLevel(e registry.Event) slog.Level {
	switch {
	case e.Status >= 500:
		return slog.LevelError
	case e.Status == http.StatusNotFound && e.HTTP.Method == http.MethodHead, asksToLogIn(e):
		return slog.LevelInfo
	case e.Status >= 400 || errors.Is(e.Err, http.ErrAbortHandler):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// asksToLogIn reports whether a response is the 401 by which a client learns to
// authenticate. A form for a token may have the password, in place of a header.
func asksToLogIn(e registry.Event) bool {
	return e.Status == http.StatusUnauthorized && e.HTTP.Header.Get("Authorization") == "" &&
		!(isLogin(e) && e.HTTP.Method == http.MethodPost)
}

// isLogin reports whether a request was one for a token.
func isLogin(e registry.Event) bool {
	return e.HTTP.URL.Path == tokenPath && e.Status != http.StatusNotFound
}

// lineWriter writes lines whose fields are plain in the formats of slog's handlers, in
// a quarter of their time: there is a line for each request.
type lineWriter struct {
	w    io.Writer
	json bool
}

// Kinds of bytes in a text that can't stand in a line as they are.
const (
	spaceByte   = 1 << iota // requires quotes in the text format
	strangeByte             // slog's handlers escape it, or may
)

// byteKinds has the kind of each byte.
var byteKinds = func() (kinds [256]byte) {
	for c := range kinds {
		switch {
		case c < ' ' || c > '~' || c == '"' || c == '\\':
			kinds[c] = strangeByte
		case c == ' ' || c == '=':
			kinds[c] = spaceByte
		}
	}
	return kinds
}()

// allPlain reports whether the text of all fields can stand in a line as it is, or
// between quotes, and notes where it requires those.
func allPlain(fields []field) bool {
	for i := range fields {
		f := &fields[i]
		var kinds byte
		for _, c := range []byte(f.text) {
			kinds |= byteKinds[c]
		}
		if kinds&strangeByte != 0 {
			return false
		}
		f.quoted = kinds != 0 || f.text == ""
	}
	return true
}

// lines are buffers for lines.
var lines = sync.Pool{New: func() any { return new([]byte) }}

// writeLine writes a line with the message "request".
func (l *lineWriter) writeLine(now time.Time, level string, fields []field) {
	buffer := lines.Get().(*[]byte)
	defer lines.Put(buffer)
	if l.json {
		*buffer = appendJSON((*buffer)[:0], now, level, fields)
	} else {
		*buffer = appendText((*buffer)[:0], now, level, fields)
	}
	l.w.Write(*buffer)
}

func appendText(b []byte, now time.Time, level string, fields []field) []byte {
	b = append(b, "time="...)
	b = appendMillis(b, now)
	b = append(b, " level="...)
	b = append(b, level...)
	b = append(b, " msg=request"...)
	for i := range fields {
		f := &fields[i]
		b = append(b, ' ')
		b = append(b, f.key...)
		b = append(b, '=')
		switch {
		case f.kind == slog.KindInt64:
			b = strconv.AppendInt(b, f.number, 10)
		case f.kind == slog.KindDuration:
			b = append(b, f.duration.String()...)
		case f.quoted:
			b = append(b, '"')
			b = append(b, f.text...)
			b = append(b, '"')
		default:
			b = append(b, f.text...)
		}
	}
	return append(b, '\n')
}

// appendMillis appends a time with three digits of its fraction, whose format takes the
// package time three times as long.
func appendMillis(b []byte, t time.Time) []byte {
	const fraction = len("2006-01-02T15:04:05.000")
	start := len(b)
	b = t.Truncate(time.Millisecond).Add(time.Nanosecond).AppendFormat(b, time.RFC3339Nano) // has nine digits
	return append(b[:start+fraction], b[start+fraction+6:]...)
}

func appendJSON(b []byte, now time.Time, level string, fields []field) []byte {
	b = append(b, `{"time":"`...)
	b = now.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"`...)
	b = append(b, level...)
	b = append(b, `","msg":"request"`...)
	for i := range fields {
		f := &fields[i]
		b = append(b, `,"`...)
		b = append(b, f.key...)
		b = append(b, `":`...)
		switch f.kind {
		case slog.KindInt64:
			b = strconv.AppendInt(b, f.number, 10)
		case slog.KindDuration:
			b = strconv.AppendInt(b, int64(f.duration), 10)
		default:
			b = append(b, '"')
			b = append(b, f.text...)
			b = append(b, '"')
		}
	}
	return append(b, "}\n"...)
}
