// SPDX-License-Identifier: Apache-2.0

// The log.

package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"unicode"

	"github.com/berth-oci/registry"
)

func (c *serveCmd) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: c.LogLevel, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch v := a.Value.Any().(type) {
		case string:
			a.Value = slog.StringValue(printable(v))
		case error:
			a.Value = slog.StringValue(printable(v.Error()))
		}
		return a
	}}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// printable escapes the characters of s that could control a terminal and that
// slog's handlers leave as they are: DEL, C1 controls such as U+009B, and
// characters that change the direction of text.
func printable(s string) string {
	special := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if strings.IndexFunc(s, special) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if special(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// maxLogged is the maximum length in bytes of each part of a request in the log.
const maxLogged = 2 << 10

func clip(s string) string {
	if len(s) > maxLogged {
		return strings.ToValidUTF8(s[:maxLogged], "") + "…"
	}
	return s
}

// requestLog returns a hook that logs each request and its response, in one line: at
// level Info, at Warn if it was rejected, and at Error if the server has failed.
func requestLog(log *slog.Logger) func(registry.Event) {
	return func(e registry.Event) {
		attrs := []slog.Attr{
			slog.String("op", string(e.Request.Op)),
			slog.String("method", clip(e.HTTP.Method)),
			slog.String("url", clip(e.HTTP.URL.String())),
			slog.Int("status", e.Status),
			slog.Int64("bytes", e.BytesOut),
			slog.Duration("duration", e.Duration),
			slog.String("remote", e.HTTP.RemoteAddr),
		}
		reason := ""
		if e.Err != nil {
			reason = e.Err.Error()
		}
		for _, attr := range []struct{ key, value string }{
			{"user", e.User},
			{"user_agent", e.HTTP.UserAgent()},
			{"digest", string(e.Digest)},
			{"error", reason},
		} {
			if attr.value != "" {
				attrs = append(attrs, slog.String(attr.key, clip(attr.value)))
			}
		}
		log.LogAttrs(e.HTTP.Context(), requestLevel(e), "request", attrs...)
	}
}

// requestLevel returns the level of a request in the log. Two errors are a client's
// normal course: a 404 for HEAD, by which it finds out what to push, and the 401 by
// which it learns to authenticate.
func requestLevel(e registry.Event) slog.Level {
	switch {
	case e.Status >= 500:
		return slog.LevelError
	case e.Status == http.StatusNotFound && e.HTTP.Method == http.MethodHead,
		e.Status == http.StatusUnauthorized && e.HTTP.Header.Get("Authorization") == "":
		return slog.LevelInfo
	case e.Status >= 400 || errors.Is(e.Err, http.ErrAbortHandler):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
