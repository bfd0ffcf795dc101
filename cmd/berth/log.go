// SPDX-License-Identifier: Apache-2.0

// The log.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/internal/recorder"
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

// logRequests logs each request to h and its response, in one line: at level Info,
// at Warn if it was rejected, and at Error if the server has failed. Two errors are
// a client's normal course: a 404 for HEAD, by which it finds out what to push, and
// the 401 by which it learns to authenticate.
//
// It logs all that the server responds to, so that other handlers need not: the
// registry reports its errors by the log of [registryLog].
func logRequests(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		resp := &loggedResponse{Recorder: recorder.Recorder{ResponseWriter: w}}
		ctx, report := auth.WithReport(r.Context())
		ctx = context.WithValue(ctx, loggedResponseKey{}, resp)
		returned := false
		defer func() {
			req, _ := registry.ParseRequest(r)
			reason := resp.reason(report)
			if !returned {
				reason = "the response was aborted"
			} else if resp.Status == 0 { // net/http sends it for a handler that writes nothing
				resp.Status = http.StatusOK
			}
			attrs := []slog.Attr{
				slog.String("op", string(req.Op)),
				slog.String("method", clip(r.Method)),
				slog.String("url", clip(r.URL.String())),
				slog.Int("status", resp.Status),
				slog.Int64("bytes", resp.Bytes),
				slog.Duration("duration", time.Since(start)),
				slog.String("remote", r.RemoteAddr),
			}
			for _, attr := range []struct{ key, value string }{
				{"user", report.User},
				{"user_agent", r.UserAgent()},
				{"digest", w.Header().Get("Docker-Content-Digest")},
				{"error", reason},
			} {
				if attr.value != "" {
					attrs = append(attrs, slog.String(attr.key, clip(attr.value)))
				}
			}
			log.LogAttrs(ctx, requestLevel(r, resp.Status, returned), "request", attrs...)
		}()
		h.ServeHTTP(resp, r.WithContext(ctx))
		returned = true
	})
}

func requestLevel(r *http.Request, status int, returned bool) slog.Level {
	switch {
	case status >= 500:
		return slog.LevelError
	case status == http.StatusNotFound && r.Method == http.MethodHead,
		status == http.StatusUnauthorized && r.Header.Get("Authorization") == "":
		return slog.LevelInfo
	case status >= 400 || !returned:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// loggedResponse is a response that logRequests logs.
type loggedResponse struct {
	recorder.Recorder
	err  string // reported by the registry
	body []byte // the beginning of the body of an error
}

type loggedResponseKey struct{}

func (r *loggedResponse) Write(p []byte) (int, error) {
	n, err := r.Recorder.Write(p)
	if r.Status >= 400 {
		r.body = append(r.body, p[:min(n, maxLogged-len(r.body))]...)
	}
	return n, err
}

// reason returns the text of the error that the response reports. The client got
// less of it if the error is internal.
func (r *loggedResponse) reason(report *auth.Report) string {
	switch {
	case r.Status < 400:
		return ""
	case report.Err != nil:
		return report.Err.Error()
	case r.err != "":
		return r.err
	}
	var doc struct{ Errors []struct{ Message string } }
	json.Unmarshal(r.body, &doc)
	var texts []string
	for _, e := range doc.Errors {
		texts = append(texts, e.Message)
	}
	return strings.Join(texts, "; ")
}

// registryLog is the handler of the log that the registry gets: it passes the
// errors on to logRequests.
type registryLog struct{}

func (registryLog) Handle(ctx context.Context, record slog.Record) error {
	resp, ok := ctx.Value(loggedResponseKey{}).(*loggedResponse)
	if !ok {
		return nil
	}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			resp.err = a.Value.String()
		}
		return a.Key != "error"
	})
	return nil
}

func (registryLog) Enabled(context.Context, slog.Level) bool { return true }

func (h registryLog) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h registryLog) WithGroup(string) slog.Handler { return h }
