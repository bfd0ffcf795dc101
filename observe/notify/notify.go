// SPDX-License-Identifier: Apache-2.0

// Sender, its options and its queue.

package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/pattern"
)

// Options are the options of [New].
type Options struct {
	// URL is the endpoint's, with http or https. A user and a password in it are sent
	// as Basic authentication.
	URL string

	// Header holds further headers of the requests, such as Authorization.
	Header http.Header

	// Format is the format of the requests: [Distribution] by default.
	Format Format

	// Secret, unless empty, signs the requests: see the package documentation.
	Secret []byte

	// Actions, unless nil, are the actions to send: [Push], [Pull], [Mount], [Delete].
	// A busy registry has far more pulls than others.
	Actions []string

	// Repositories, unless nil, are patterns for the repositories whose events are
	// sent, as in auth.Rule: "*" matches a component of a name, or a part of one. A
	// final "/**" matches one or more components, and "**" alone every repository.
	Repositories []string

	// MediaTypes, unless nil, are patterns of path.Match for the media types whose
	// events are sent, such as "application/vnd.oci.image.*". That of a blob is
	// application/octet-stream. Deletes have none, and are always sent.
	MediaTypes []string

	// Journal, unless empty, is the directory of the journal. It is made if it does not
	// exist. Each Sender must have its own.
	Journal string

	// Durable makes a request to the registry that causes an event wait until the
	// event is in the journal and synced, so that no crash after the response loses
	// it; requests at the same time share a sync. It waits for at most Timeout. It
	// requires Journal. Responses that do not fit into the connection's buffer, such
	// as blobs, may reach the client before.
	Durable bool

	// Queue is the maximum number of events that wait: 10,000 by default, each of
	// which takes about 1 KiB of memory, at most about 5.
	Queue int

	// Batch is the maximum number of events in one request: 100 by default, and 1 for
	// the format CloudEvents, which has no more.
	Batch int

	// Timeout is the maximum duration of one request: 10 seconds by default.
	Timeout time.Duration

	// Backoff is the pause after the first failed request: a second by default. It
	// doubles with each further one up to MaxBackoff, a minute by default. A random
	// part of up to a half is subtracted. A response's Retry-After extends it, to at
	// most an hour.
	Backoff, MaxBackoff time.Duration

	// Attempts, unless 0, is the number of failed requests after which an event is
	// dropped. By default it stays at the head of the queue until the endpoint accepts
	// it, even if the endpoint rejects it with 400.
	Attempts int

	// BaseURL is the registry's URL as clients see it, without /v2/, for the URLs of
	// content and the source of CloudEvents. By default the URL is made of each
	// request's Host, which its client can choose, and the source of the host's name.
	BaseURL string

	// Source is the source's addr in events: the host's name by default.
	Source string

	// Logger gets failures and drops; by default slog.Default(). It is not used by the
	// goroutines of requests.
	Logger *slog.Logger

	// Transport sends the requests; by default one of its own, with the settings of
	// http.DefaultTransport. Redirects are not followed, and count as failures.
	Transport http.RoundTripper
}

// Stats describes the work of a [Sender] since New.
type Stats struct {
	Queued    int    // events that wait now, those being sent included
	Delivered uint64 // events that the endpoint has accepted
	Dropped   uint64 // events that were lost: the queue was full or closed, or Attempts used up
	Failures  uint64 // requests to the endpoint that have failed
}

// Sender sends the events of a registry to an endpoint. It is safe for concurrent use.
type Sender struct {
	opts     Options
	endpoint string // for logs, without a password
	source   Source
	origin   string // the source of CloudEvents
	log      *slog.Logger
	client   *http.Client
	journal  *journal // nil without one; used by the goroutine store alone

	ownTransport bool // the client's

	wakeStore chan struct{} // there is something for the journal
	wakeSend  chan struct{} // there is something to send
	closing   chan struct{} // closed by Close
	ctx       context.Context
	cancel    context.CancelFunc // gives up sending
	sent      chan struct{}      // closed when the goroutine send has ended
	ended     chan struct{}      // closed when both have

	mu         sync.Mutex // guards the fields below
	entries    []*entry   // that are not delivered
	ready      int        // the number of the first entries that may be sent: those in the journal
	lastSeq    uint64     // the number of the last entry
	delivered  uint64     // the number of the last that was delivered
	stats      Stats      // without Queued
	overflow   uint64     // the dropped events for which the queue was full or closed
	closed     bool
	journalErr error // of the last write, nil if it has succeeded
}

// entry is an event in the queue. Its fields change only until it may be sent.
type entry struct {
	seq      uint64
	event    Event
	data     []byte        // its JSON
	manifest bool          // the target is one
	tls      bool          // the request came by HTTPS
	stored   chan struct{} // closed when it is in the journal; nil unless somebody waits
}

// New returns a Sender, which starts two goroutines, and continues with the events in
// its journal, if any. It must be closed. Errors: mistakes in o, those of reading
// and locking the journal. The endpoint need not be reachable.
func New(o Options) (*Sender, error) {
	own := o.Transport == nil
	endpoint, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("notify: %w", err)
	}
	s := &Sender{
		opts:         o,
		endpoint:     endpoint.Redacted(),
		source:       Source{Addr: o.Source, InstanceID: newID()},
		origin:       o.BaseURL,
		log:          o.Logger,
		client:       &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		ownTransport: own,
		wakeStore:    make(chan struct{}, 1),
		wakeSend:     make(chan struct{}, 1),
		closing:      make(chan struct{}),
		sent:         make(chan struct{}),
		ended:        make(chan struct{}),
	}
	if s.source.Addr == "" {
		s.source.Addr, _ = os.Hostname()
	}
	if s.origin == "" {
		s.origin = "//" + url.PathEscape(s.source.Addr)
	}
	if o.Journal != "" {
		next, damaged := uint64(0), 0
		s.journal, s.entries, next, damaged, err = openJournal(o.Journal)
		if err != nil {
			return nil, fmt.Errorf("notify: %w", err)
		}
		s.lastSeq, s.delivered, s.ready = next-1, s.journal.marked, len(s.entries)
		if damaged > 0 {
			s.log.Error("lines of the journal of notifications are damaged", "journal", o.Journal, "lines", damaged)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	go s.send()
	go s.store()
	return s, nil
}

// check sets defaults. It returns the endpoint, and reports mistakes.
func (o *Options) check() (*url.URL, error) {
	endpoint, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("the URL is malformed") // err contains it, and it may contain a password
	}
	if endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" {
		return nil, fmt.Errorf("the URL %q is not one of http or https", endpoint.Redacted())
	}
	for _, action := range o.Actions {
		if !slices.Contains([]string{Push, Pull, Mount, Delete}, action) {
			return nil, fmt.Errorf("unknown action %q", action)
		}
	}
	for _, p := range slices.Concat(o.Repositories, o.MediaTypes) {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("malformed pattern %q", p)
		}
	}
	switch {
	case o.Format < Distribution || o.Format > CloudEventsBatch:
		return nil, fmt.Errorf("unknown format %d", o.Format)
	case o.Format == CloudEvents && o.Batch > 1:
		return nil, errors.New("the format CloudEvents has one event in a request; CloudEventsBatch has more")
	case o.Durable && o.Journal == "":
		return nil, errors.New("the option Durable requires a Journal")
	}
	setDefault(&o.Queue, 10000)
	setDefault(&o.Batch, 100)
	if o.Format == CloudEvents {
		o.Batch = 1
	}
	setDefault(&o.Timeout, 10*time.Second)
	setDefault(&o.Backoff, time.Second)
	setDefault(&o.MaxBackoff, time.Minute)
	o.MaxBackoff = max(o.MaxBackoff, o.Backoff)
	o.BaseURL = strings.TrimSuffix(o.BaseURL, "/")
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return endpoint, nil
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// Observe adds the event of a request, if it has one, to the queue. It is a hook for
// [registry.Observe]. Unless Durable is set, it waits for nothing.
func (s *Sender) Observe(e registry.Event) {
	action := actionOf(&e)
	if action == "" || s.opts.Actions != nil && !slices.Contains(s.opts.Actions, action) {
		return
	}
	if s.opts.Repositories != nil && !slices.ContainsFunc(s.opts.Repositories, func(p string) bool { return pattern.Match(p, e.Request.Repo) }) {
		return
	}
	first := &entry{event: newEvent(&e, action), manifest: isManifest(e.Request.Op), tls: e.HTTP.TLS != nil}
	if s.opts.MediaTypes != nil && action != Delete && !slices.ContainsFunc(s.opts.MediaTypes, func(p string) bool {
		ok, _ := path.Match(p, first.event.Target.MediaType)
		return ok
	}) {
		return
	}
	if len(e.Tags) < 2 {
		if len(e.Tags) == 1 {
			first.event.Target.Tag = e.Tags[0]
		}
		s.enqueue(first)
		return
	}
	if first.event.Request.ID == "" {
		first.event.Request.ID = newID()
	}
	all := make([]*entry, len(e.Tags))
	for i, tag := range e.Tags {
		one := *first
		one.event.Target.Tag = tag
		all[i] = &one
	}
	s.enqueue(all...)
}

// enqueue adds entries to the queue, all or none.
func (s *Sender) enqueue(entries ...*entry) {
	last := entries[len(entries)-1]
	if s.opts.Durable {
		last.stored = make(chan struct{})
	}
	s.mu.Lock()
	if s.closed || len(s.entries)+len(entries) > s.opts.Queue {
		s.stats.Dropped += uint64(len(entries))
		s.overflow += uint64(len(entries))
		s.mu.Unlock()
		return
	}
	for _, e := range entries {
		s.lastSeq++
		e.seq = s.lastSeq
	}
	s.entries = append(s.entries, entries...)
	if s.journal == nil {
		s.ready = len(s.entries)
	}
	s.mu.Unlock()
	if s.journal == nil {
		wake(s.wakeSend)
		return
	}
	wake(s.wakeStore)
	if last.stored == nil {
		return
	}
	timeout := time.NewTimer(s.opts.Timeout)
	defer timeout.Stop()
	select {
	case <-last.stored:
	case <-timeout.C:
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it will be woken
	}
}

// complete adds to an entry what need not delay a request.
func (s *Sender) complete(e *entry) {
	if e.data != nil { // from the journal
		return
	}
	e.event.ID = newID()
	if e.event.Request.ID == "" {
		e.event.Request.ID = newID()
	}
	e.event.Source = s.source
	if p := targetPath(e.event.Target, e.manifest); p != "" {
		base := s.opts.BaseURL
		if base == "" {
			scheme := "http"
			if e.tls {
				scheme = "https"
			}
			base = (&url.URL{Scheme: scheme, Host: e.event.Request.Host}).String()
		}
		e.event.Target.URL = base + p
	}
	e.event.Timestamp = e.event.Timestamp.Round(0).UTC()
	data, err := json.Marshal(e.event)
	if err != nil { // impossible: strings, numbers and a time
		panic(err)
	}
	e.data = data
}

// store writes entries to the journal until the Sender has ended. Without a journal it
// only waits.
func (s *Sender) store() {
	defer close(s.ended)
	if s.journal == nil {
		<-s.sent
		return
	}
	var retry <-chan time.Time
	for last := false; !last; {
		select {
		case <-s.wakeStore:
		case <-retry:
		case <-s.sent:
			last = true
		}
		retry = nil
		if !s.writeJournal() {
			retry = time.After(time.Second)
		}
	}
	s.mu.Lock()
	empty := len(s.entries) == 0
	s.mu.Unlock()
	if err := s.journal.close(empty); err != nil {
		s.mu.Lock()
		s.journalErr = errors.Join(s.journalErr, err)
		s.mu.Unlock()
	}
}

// writeJournal writes what the journal lacks, and reports whether it could. If not,
// the entries can be sent all the same.
func (s *Sender) writeJournal() bool {
	s.mu.Lock()
	start := s.ready
	if s.journal.broken() {
		start = 0
	}
	batch := slices.Clone(s.entries[start:])
	fresh := s.entries[s.ready:]
	delivered := s.delivered
	failed := s.journalErr != nil
	n := len(fresh)
	s.mu.Unlock()

	for _, e := range batch {
		s.complete(e)
	}
	err := s.journal.write(batch, delivered)
	if (err != nil) != failed {
		if err != nil {
			s.log.Error("the journal of notifications can't be written: they are in memory only", "journal", s.opts.Journal, "error", err)
		} else {
			s.log.Info("the journal of notifications can be written again", "journal", s.opts.Journal)
		}
	}
	s.mu.Lock()
	s.journalErr = err
	s.ready += n // others are added at the end, and removed at the beginning only if they are ready
	s.mu.Unlock()
	for _, e := range batch {
		if e.stored != nil {
			select {
			case <-e.stored: // an entry that is written again
			default:
				close(e.stored)
			}
		}
	}
	if n > 0 {
		wake(s.wakeSend)
	}
	return err == nil
}

// Stats returns what the Sender has done.
func (s *Sender) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Queued = len(s.entries)
	return stats
}

// Close sends the events in the queue until it is empty or ctx ends; events that
// Observe gets meanwhile are dropped. Those that remain stay in the journal for the
// next New. It returns nil if no event is lost: else an error that wraps that of ctx, or of the
// journal. Further calls return an error.
func (s *Sender) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("notify: already closed")
	}
	s.closed = true
	s.mu.Unlock()
	close(s.closing)
	wake(s.wakeSend)
	select {
	case <-s.sent:
	case <-ctx.Done():
		s.cancel()
	}
	<-s.ended
	s.cancel()
	if s.ownTransport {
		s.client.CloseIdleConnections()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.entries)
	switch {
	case n == 0 && s.journalErr == nil:
		return nil
	case s.journalErr != nil:
		return fmt.Errorf("notify: %d events are not delivered: %w", n, s.journalErr)
	case s.journal == nil:
		return fmt.Errorf("notify: %d events are not delivered: %w", n, ctx.Err())
	}
	return nil
}
