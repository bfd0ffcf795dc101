// SPDX-License-Identifier: Apache-2.0

// The log of requests.

package registry

import (
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/berth-oci/registry/internal/recorder"
)

// logFunc logs a request, its response, the error that the response reports, if
// any, and the time that it took.
type logFunc func(r *http.Request, req Request, resp *recorder.Recorder, err error, d time.Duration)

func logTo(l *log.Logger) logFunc {
	return func(r *http.Request, _ Request, resp *recorder.Recorder, err error, _ time.Duration) {
		line := fmt.Sprintf("%s %s %d", r.Method, r.URL, resp.Status)
		if err != nil {
			line += " " + err.Error()
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

func slogTo(l *slog.Logger) logFunc {
	return func(r *http.Request, req Request, resp *recorder.Recorder, err error, d time.Duration) {
		level := slog.LevelInfo
		attrs := []slog.Attr{
			slog.String("op", string(req.Op)),
			slog.String("method", r.Method),
			slog.String("url", r.URL.String()),
			slog.Int("status", resp.Status),
			slog.Int64("bytes", resp.Bytes),
			slog.Duration("duration", d),
			slog.String("remote", r.RemoteAddr),
		}
		if err != nil {
			level = slog.LevelWarn
			attrs = append(attrs, slog.String("error", err.Error()))
		}
		if resp.Status >= 500 {
			level = slog.LevelError
		}
		l.LogAttrs(r.Context(), level, "request", attrs...)
	}
}
