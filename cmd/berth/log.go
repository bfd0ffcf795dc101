// SPDX-License-Identifier: Apache-2.0

// The log.

package main

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode"
)

// serverLog is the log of a server.
type serverLog struct {
	*slog.Logger
	lineWriter // for the lines of requests
	level      *slog.LevelVar
	flush      func() // writes lines that still wait for others
}

// openLog opens the server's log. A terminal shows each line at once.
func (c *serveCmd) openLog(w io.Writer) *serverLog {
	flush := func() {}
	if !isTerminal(w) {
		batches := &batchWriter{w: w}
		w, flush = batches, batches.flush
	}
	level := new(slog.LevelVar)
	level.Set(c.LogLevel)
	return &serverLog{
		Logger:     slog.New(batchHandler{c.logHandler(w, level), flush}),
		level:      level,
		lineWriter: lineWriter{w: w, json: c.LogFormat == "json"},
		flush:      flush,
	}
}

func (c *serveCmd) logHandler(w io.Writer, level slog.Leveler) slog.Handler {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
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
