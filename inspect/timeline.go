// SPDX-License-Identifier: Apache-2.0

// The requests that were recorded, and how many there were when.

package inspect

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
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
	recordSize = 500     // bytes of a record without its text
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
	request, response string // headers, for redact.ParseHeader
	size              int    // of the record, about
}

// timeline holds the newest records.
type timeline struct {
	mu      sync.Mutex
	records []*record     // guarded by mu; the oldest first
	bytes   int           // guarded by mu
	last    uint64        // guarded by mu; the newest ID, also of a request without a record
	second  time.Duration // guarded by mu; of the newest request, since the start
	rates   [kinds]int    // guarded by mu; the records of that second
	minutes []minute      // guarded by mu; the oldest first
	// changed is closed and replaced when there is a new request. It is nil if nobody waits.
	changed chan struct{} // guarded by mu
	started time.Time
	server  string // tells the records of this timeline from those of others
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

func (t *timeline) init() {
	t.started = time.Now()
	t.server = strconv.FormatInt(t.started.UnixNano(), 36)
}

// Record records a request. It is a hook for [registry.Observe], which has no effect on the
// response. Of the requests of a busy second, it only counts some.
func (i *Inspector) Record(e registry.Event) {
	if i.timeline.admit(e) {
		i.timeline.add(i.newRecord(e))
	}
}

// admit counts a request, and reports whether it gets a record. Of a second, the first do.
// Nobody could read more, and all records would be of the last few milliseconds. A flood of
// requests, or of those that fail, hides no change.
func (t *timeline) admit(e registry.Event) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(e)
	if second := e.Time.Add(e.Duration).Sub(t.started).Truncate(time.Second); second > t.second {
		t.second = second
		t.rates = [kinds]int{}
	}
	kind := other
	switch {
	case e.Changed:
		kind = change
	case e.Status == 0 || e.Status >= 400:
		kind = failure
	}
	if t.rates[kind] == maxRates[kind] {
		t.last++
		t.wake()
		return false
	}
	t.rates[kind]++
	return true
}

// Kinds of requests.
const (
	other = iota
	failure
	change
	kinds
)

// maxRates are the records of a second, by kind: together not more than maxRecords.
var maxRates = [kinds]int{other: 1000, failure: 500, change: 500}

// add adds a record, and drops the oldest ones if there are too many.
func (t *timeline) add(r *record) {
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
	t.wake()
}

// wake tells those who wait that there is a new request. It must be called with mu held.
func (t *timeline) wake() {
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

// since returns the records after an ID, the newest ID, which may have no record, and a
// channel that is closed when there is a newer one.
func (t *timeline) since(id uint64) (records []*record, newest uint64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	n, _ := slices.BinarySearchFunc(t.records, id, func(r *record, id uint64) int { return cmp.Compare(r.ID-1, id) })
	return slices.Clone(t.records[n:]), t.last, t.changed
}

// newRecord returns what is kept of a request. All of its strings are parts of one, since
// those of an event may be parts of larger ones: the method keeps its entire request line.
func (i *Inspector) newRecord(e registry.Event) *record {
	var scratch [2 << 10]byte
	b := redact.AppendHeader(scratch[:0], e.HTTP.Header, maxHeaders)
	request := len(b)
	b = redact.AppendHeader(b, e.Header, maxHeaders)
	response := len(b)
	b = redact.AppendURI(b, e.HTTP.URL, maxText)
	uri := len(b)
	err, code := i.errorText(e.Err)
	values := [...]string{
		e.HTTP.Method, e.HTTP.Host, e.HTTP.RemoteAddr, e.HTTP.Proto, first(e.HTTP.Header["User-Agent"]), e.User,
		e.Request.Repo, e.Request.Tag, e.Request.From, string(e.Digest), e.MediaType, code, err,
	}
	var ends [len(values)]int
	for n, value := range values {
		b = appendClipped(b, value)
		ends[n] = len(b)
	}
	text := string(b)
	start := uri
	for n, end := range ends {
		values[n], start = text[start:end], end
	}
	r := &record{
		Time:     e.Time.UnixMilli(),
		Duration: float64(e.Duration.Microseconds()) / 1000,
		Method:   values[0],
		URI:      text[response:uri],
		Host:     values[1],
		Client:   values[2],
		proto:    values[3],
		Agent:    values[4],
		User:     values[5],
		Op:       e.Request.Op,
		Repo:     values[6],
		Tag:      values[7],
		From:     values[8],
		Digest:   digest.Digest(values[9]),
		Status:   e.Status,
		In:       e.BytesIn,
		Out:      e.BytesOut,
		Type:     values[10],
		Code:     values[11],
		Error:    values[12],
		Changed:  e.Changed,
		request:  text[:request],
		response: text[request:response],
		size:     recordSize + len(text),
	}
	if e.Request.Op != registry.OpManifestPut || e.Request.Tag == "" {
		for _, tag := range e.Tags[:min(len(e.Tags), 10)] {
			r.Tags = append(r.Tags, strings.Clone(clip(tag)))
			r.size += len(tag)
		}
	}
	return r
}

// errorText returns the text and the code of an error. If not everyone may do everything, it
// is the text that the client got: there may be secrets in another, such as signed URLs.
func (i *Inspector) errorText(err error) (text, code string) {
	if err == nil {
		return "", ""
	}
	if e := (*registry.Error)(nil); errors.As(err, &e) {
		code = e.Code
	}
	if i.Policy != nil && !errors.Is(err, http.ErrAbortHandler) {
		return publicText(err), code
	}
	return redact.Text(err.Error()), code
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// appendClipped appends clip(s).
func appendClipped(b []byte, s string) []byte {
	if len(s) > maxText {
		s = clip(s)
	}
	return append(b, s...)
}

// clip returns s, or its beginning if it is too long, which does not keep all of s.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:maxText]), "") + "\u2026"
}
