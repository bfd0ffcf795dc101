// SPDX-License-Identifier: Apache-2.0

// The details of recorded requests, and whether they follow the spec.

package inspect

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/redact"
	"github.com/berth-oci/registry/journal"
)

// details is a record with what the page shows of an opened request.
type details struct {
	*record
	Proto    string      `json:"proto"`
	Request  http.Header `json:"request"`
	Response http.Header `json:"response"`
}

// getRequests returns the details of the request with the parameter id, or of all. Those of
// all are in the order of the IDs.
func (i *Inspector) getRequests(r *http.Request) (any, error) {
	records, _, _ := i.timeline.since(0)
	id := r.URL.Query().Get("id")
	all := []details{}
	for _, record := range records {
		if (id == "" || id == strconv.FormatUint(record.ID, 10)) && i.maySee(r.Context(), record) {
			all = append(all, details{record, record.proto, redact.ParseHeader(record.request), redact.ParseHeader(record.response)})
		}
	}
	if id != "" && len(all) == 0 {
		return nil, &registry.Error{Status: http.StatusNotFound, Message: "the request is not among the last ones anymore"}
	}
	return all, nil
}

// finding is a violation of the spec by a recorded request.
type finding struct {
	ID      uint64 `json:"id"` // of the record
	Must    bool   `json:"must"`
	Section string `json:"section"`
	Text    string `json:"text"`
}

// getFindings returns the violations of the spec by clients.
func (i *Inspector) getFindings(r *http.Request) (any, error) {
	all := []finding{}
	records, _, _ := i.timeline.since(0)
	visible := records[:0]
	for _, record := range records {
		if i.maySee(r.Context(), record) {
			visible = append(visible, record)
		}
	}
	for _, f := range i.replay(r.Context(), visible).Lint() {
		record := visible[f.Entry.Number-1]
		if slices.Contains(unfinished, f.Section) && time.Since(time.UnixMilli(record.Time)) < time.Minute {
			continue // the client may be about to send what is missing
		}
		all = append(all, finding{record.ID, f.Must, f.Section, f.Text})
	}
	return all, nil
}

// unfinished are the sections about requests that must follow others.
var unfinished = []string{`"Cancel a blob upload"`, `"Unavailable Referrers API"`, `"Pushing Manifests with Subject"`}

// replay returns a journal of the recorded requests.
func (i *Inspector) replay(ctx context.Context, records []*record) *journal.Journal {
	j := new(journal.Journal)
	left, buf := maxReplayed, make([]byte, 1<<20)
	for _, record := range records {
		if ctx.Err() != nil {
			break
		}
		h := j.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.CopyBuffer(onlyWriter{io.Discard}, r.Body, buf)
			if record.Status == 0 {
				panic(http.ErrAbortHandler)
			}
			for name, values := range redact.ParseHeader(record.response) {
				w.Header()[name] = values
			}
			w.WriteHeader(record.Status)
		}))
		r := &http.Request{Method: record.Method, Host: record.Host, Header: redact.ParseHeader(record.request), Body: io.NopCloser(&blank{record.In})}
		if r.URL, _ = url.ParseRequestURI(record.URI); r.URL == nil {
			r.URL = new(url.URL)
		}
		if record.Op == registry.OpManifestPut && record.Status == http.StatusCreated {
			if info, err := i.store.StatManifest(ctx, record.Repo, record.Digest); err == nil && info.Size <= left {
				if m, err := i.store.GetManifest(ctx, record.Repo, record.Digest); err == nil {
					left -= info.Size
					r.Body = io.NopCloser(bytes.NewReader(m.Content))
				}
			}
		}
		replayOne(h, r.WithContext(ctx))
	}
	return j
}

// maxReplayed is how many bytes of manifests are checked. Those of further ones count as if
// they could not be understood.
const maxReplayed int64 = 16 << 20

// replayOne serves a request, which may be aborted.
func replayOne(h http.Handler, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	h.ServeHTTP(discard{make(http.Header)}, r)
}

// onlyWriter hides other methods, which would use a buffer of their own.
type onlyWriter struct{ io.Writer }

// blank reads as n bytes of any value.
type blank struct{ n int64 }

func (b *blank) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.n)
	b.n -= n
	return int(n), nil
}

// discard is a ResponseWriter.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

// getStats returns the counts of requests by minute, and those of a mirror.
func (i *Inspector) getStats(r *http.Request) (any, error) {
	stats := struct {
		Started int64                  `json:"started"`
		Now     int64                  `json:"now"`
		Minutes []minute               `json:"minutes"`
		Mirrors map[string]MirrorStats `json:"mirrors,omitempty"`
	}{Started: i.timeline.started.Unix(), Now: time.Now().Unix(), Minutes: []minute{}}
	if err := i.allowCatalog(r.Context()); err != nil {
		return nil, err
	}
	i.timeline.mu.Lock()
	stats.Minutes = append(stats.Minutes, i.timeline.minutes...)
	i.timeline.mu.Unlock()
	if i.Mirrors != nil {
		stats.Mirrors = i.Mirrors()
	}
	return stats, nil
}
