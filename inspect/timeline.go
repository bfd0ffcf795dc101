// SPDX-License-Identifier: Apache-2.0

// The requests that were recorded, and how many there were when.

package inspect

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/redact"
)

const (
	maxRecords = 2000
	maxBytes   = 8 << 20 // of all records
	maxText    = 1 << 10 // of a name or a value
	maxHeaders = 4 << 10 // of the headers of a request or a response
	maxMinutes = 24 * 60 // of the graph
)

// record is a request and its response, as the page gets it. It contains no secrets.
type record struct {
	ID       uint64        `json:"id"`
	Time     int64         `json:"time"`     // Unix time in ms
	Duration float64       `json:"duration"` // in ms
	Method   string        `json:"method"`
	URI      string        `json:"uri"`
	Host     string        `json:"host"`
	Client   string        `json:"client"` // its address
	Agent    string        `json:"agent"`
	User     string        `json:"user,omitempty"`
	Op       registry.Op   `json:"op"`
	Repo     string        `json:"repo,omitempty"`
	Tag      string        `json:"tag,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"`
	From     string        `json:"from,omitempty"`
	Tags     []string      `json:"tags,omitempty"`
	Status   int           `json:"status"` // 0 if the connection was aborted
	In       int64         `json:"in"`
	Out      int64         `json:"out"`
	Type     string        `json:"type,omitempty"` // the media type of the content
	Code     string        `json:"code,omitempty"` // of the error
	Error    string        `json:"error,omitempty"`
	Changed  bool          `json:"changed,omitempty"`

	proto             string
	request, response http.Header // without secrets
	subject           digest.Digest
	size              int // of the record, about
}

// timeline holds the newest records.
type timeline struct {
	mu      sync.Mutex
	records []*record // guarded by mu; the oldest first
	bytes   int       // guarded by mu
	last    uint64    // guarded by mu; the newest ID
	minutes []minute  // guarded by mu; the oldest first
	// changed is closed and replaced when there is a new record. It is nil if nobody waits.
	changed chan struct{} // guarded by mu
	started time.Time
}

// minute counts the requests of a minute.
type minute struct {
	Time     int64 `json:"time"` // Unix time in s
	Requests int   `json:"requests"`
	Failed   int   `json:"failed"` // with a status from 500, or aborted
	In       int64 `json:"in"`
	Out      int64 `json:"out"`
	Pushed   int64 `json:"pushed"` // bytes of content
}

func (t *timeline) init() { t.started = time.Now() }

// Record records a request. It is a hook for [registry.Observe], which has no effect on the
// response.
func (i *Inspector) Record(e registry.Event) {
	r := newRecord(e)
	t := &i.timeline
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	r.ID = t.last
	t.records = append(t.records, r)
	t.bytes += r.size
	old := 0
	for len(t.records)-old > maxRecords || t.bytes > maxBytes {
		t.bytes -= t.records[old].size
		t.records[old] = nil
		old++
	}
	t.records = t.records[old:]
	t.count(e)
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// count adds a request to its minute.
func (t *timeline) count(e registry.Event) {
	now := e.Time.Truncate(time.Minute).Unix()
	if n := len(t.minutes); n == 0 || t.minutes[n-1].Time < now {
		if n == maxMinutes {
			t.minutes = slices.Delete(t.minutes, 0, n/10)
		}
		t.minutes = append(t.minutes, minute{Time: now})
	}
	m := &t.minutes[len(t.minutes)-1]
	m.Requests++
	if e.Status >= 500 || e.Status == 0 {
		m.Failed++
	}
	m.In += e.BytesIn
	m.Out += e.BytesOut
	if e.Changed && e.Size > 0 && e.Request.Op != registry.OpBlobMount {
		m.Pushed += e.Size
	}
}

// since returns the records after an ID, and a channel that is closed when there are more.
func (t *timeline) since(id uint64) ([]*record, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	if id > t.last { // of an earlier process
		id = 0
	}
	n, _ := slices.BinarySearchFunc(t.records, id+1, func(r *record, id uint64) int { return int(int64(r.ID - id)) })
	return slices.Clone(t.records[n:]), t.changed
}

// newRecord returns what is kept of a request.
func newRecord(e registry.Event) *record {
	r := &record{
		Time:     e.Time.UnixMilli(),
		Duration: float64(e.Duration.Microseconds()) / 1000,
		Method:   clip(e.HTTP.Method),
		URI:      clip(redact.URI(e.HTTP.URL)),
		Host:     clip(e.HTTP.Host),
		Client:   e.HTTP.RemoteAddr,
		Agent:    clip(e.HTTP.UserAgent()),
		User:     clip(e.User),
		Op:       e.Request.Op,
		Repo:     clip(e.Request.Repo),
		Tag:      clip(e.Request.Tag),
		Digest:   digest.Digest(clip(string(e.Digest))),
		From:     clip(e.Request.From),
		Status:   e.Status,
		In:       e.BytesIn,
		Out:      e.BytesOut,
		Type:     clip(e.MediaType),
		Changed:  e.Changed,
		proto:    e.HTTP.Proto,
		subject:  digest.Digest(clip(string(e.Subject))),
	}
	if e.Request.Op != registry.OpManifestPut || e.Request.Tag == "" {
		r.Tags = e.Tags[:min(len(e.Tags), 10)]
	}
	if e.Err != nil {
		r.Error = clip(e.Err.Error())
		if se := (*registry.Error)(nil); errors.As(e.Err, &se) {
			r.Code = se.Code
		}
	}
	var n, m int
	r.request, n = redact.Header(e.HTTP.Header, maxHeaders)
	r.response, m = redact.Header(e.Header, maxHeaders)
	r.size = 1000 + n + m + len(r.URI) + len(r.Host) + len(r.Agent) + len(r.User) + len(r.Repo) + len(r.From) + len(r.Type) + len(r.Error)
	return r
}

// clip returns s, or its beginning if it is too long, which does not keep all of s.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:maxText]), "") + "…"
}
