// SPDX-License-Identifier: Apache-2.0

// The log of requests.

package registry

import (
	"fmt"
	"log"
	"log/slog"
	"strconv"
	"strings"
	"unicode"
)

func logTo(l *log.Logger) func(Event) {
	return func(e Event) {
		line := fmt.Sprintf("%s %s %d", e.HTTP.Method, e.HTTP.URL, e.Status)
		if e.Err != nil {
			line += " " + e.Err.Error()
		}
		l.Print(printable(line))
	}
}

// printable escapes the characters of s that a terminal may interpret: method and
// URL come from the client.
func printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func slogTo(l *slog.Logger) func(Event) {
	return func(e Event) {
		level := slog.LevelInfo
		attrs := []slog.Attr{
			slog.String("op", string(e.Request.Op)),
			slog.String("method", e.HTTP.Method),
			slog.String("url", e.HTTP.URL.String()),
			slog.Int("status", e.Status),
			slog.Int64("bytes", e.BytesOut),
			slog.Duration("duration", e.Duration),
			slog.String("remote", e.HTTP.RemoteAddr),
		}
		if e.Err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", e.Err.Error()))
		}
		if e.Status >= 500 {
			level = slog.LevelError
		}
		l.LogAttrs(e.HTTP.Context(), level, "request", attrs...)
	}
}
