// SPDX-License-Identifier: Apache-2.0

// The line of a request in the log.

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	if level == slog.LevelInfo && l.writeLine(e.Time.Add(e.Duration), e) {
		return
	}
	var attrs attributes
	describe(e, &attrs)
	l.LogAttrs(e.HTTP.Context(), level, "request", attrs...)
}

// fields are those of a line.
type fields interface {
	text(key, value string)
	number(key string, value int64)
	duration(key string, value time.Duration)
}

// describe passes what a line says about a request to to.
func describe(e registry.Event, to fields) {
	to.text("op", string(e.Request.Op))
	to.text("method", e.HTTP.Method)
	to.text("url", target(e.HTTP))
	to.number("status", int64(e.Status))
	to.number("bytes", e.BytesOut)
	to.duration("duration", e.Duration)
	to.text("remote", e.HTTP.RemoteAddr)
	optional := func(key, value string) {
		if value != "" {
			to.text(key, value)
		}
	}
	optional("user", e.User)
	optional("user_agent", userAgent(e.HTTP))
	optional("digest", string(e.Digest))
	if e.Err != nil {
		optional("error", e.Err.Error())
	}
}

// target returns the target of a request, as the client has sent it.
func target(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.String()
}

// userAgent is faster than the method of that name, which looks for the canonical form.
func userAgent(r *http.Request) string {
	if values := r.Header["User-Agent"]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// attributes are fields for slog.
type attributes []slog.Attr

func (a *attributes) text(key, value string) { *a = append(*a, slog.String(key, clip(value))) }

func (a *attributes) number(key string, value int64) { *a = append(*a, slog.Int64(key, value)) }

func (a *attributes) duration(key string, value time.Duration) {
	*a = append(*a, slog.Duration(key, value))
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
// a sixth of their time: there is a line for each request.
type lineWriter struct {
	w     io.Writer
	json  bool
	clock clock
}

// lines are for lines that are being written.
var lines = sync.Pool{New: func() any { return new(line) }}

// writeLine writes a line about a request, at level Info. It reports false, and writes
// nothing, if the text in it is not plain.
func (l *lineWriter) writeLine(now time.Time, e registry.Event) bool {
	b := lines.Get().(*line)
	defer lines.Put(b)
	*b = line{buf: b.buf[:0], json: l.json}
	if l.json {
		b.add(`{"time":"`)
		b.buf = l.clock.appendNanos(b.buf, now)
		b.add(`","level":"INFO","msg":"request"`)
	} else {
		b.add("time=")
		b.buf = l.clock.appendMillis(b.buf, now)
		b.add(" level=INFO msg=request")
	}
	describe(e, b)
	if b.strange {
		return false
	}
	if l.json {
		b.add("}")
	}
	b.add("\n")
	l.w.Write(b.buf)
	return true
}

// line is a line that is being written.
type line struct {
	buf     []byte
	json    bool
	strange bool // some text is not plain
}

func (l *line) add(s string) { l.buf = append(l.buf, s...) }

func (l *line) key(key string) {
	if l.json {
		l.add(`,"`)
		l.add(key)
		l.add(`":`)
		return
	}
	l.add(" ")
	l.add(key)
	l.add("=")
}

func (l *line) text(key, value string) {
	l.key(key)
	value = clip(value)
	var kinds byte
	for i := range len(value) {
		kinds |= byteKinds[value[i]]
	}
	l.strange = l.strange || kinds&strangeByte != 0
	if l.json || kinds != 0 || value == "" {
		l.add(`"`)
		l.add(value)
		l.add(`"`)
	} else {
		l.add(value)
	}
}

func (l *line) number(key string, value int64) {
	l.key(key)
	l.buf = strconv.AppendInt(l.buf, value, 10)
}

func (l *line) duration(key string, value time.Duration) {
	if l.json {
		l.number(key, int64(value))
		return
	}
	l.key(key)
	l.add(value.String())
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

// clock formats times in RFC 3339. It keeps the text of the last second, which takes most
// of the time.
type clock struct{ last atomic.Pointer[second] }

// second is the text of a second: the fraction stands between date and zone.
type second struct {
	unix       int64
	location   *time.Location
	date, zone string
}

func (c *clock) second(t time.Time) *second {
	s := c.last.Load()
	if s == nil || s.unix != t.Unix() || s.location != t.Location() {
		s = &second{t.Unix(), t.Location(), t.Format("2006-01-02T15:04:05"), t.Format("Z07:00")}
		c.last.Store(s)
	}
	return s
}

// appendMillis appends a time with three digits of its fraction.
func (c *clock) appendMillis(b []byte, t time.Time) []byte {
	s := c.second(t)
	b = append(b, s.date...)
	ms := t.Nanosecond() / 1e6
	b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	return append(b, s.zone...)
}

// appendNanos appends a time in the format [time.RFC3339Nano].
func (c *clock) appendNanos(b []byte, t time.Time) []byte {
	s := c.second(t)
	b = append(b, s.date...)
	if ns := t.Nanosecond(); ns > 0 {
		start := len(b)
		b = strconv.AppendInt(b, int64(1e9+ns), 10) // has ten digits, the first of them a 1
		b[start] = '.'
		b = bytes.TrimRight(b, "0")
	}
	return append(b, s.zone...)
}
