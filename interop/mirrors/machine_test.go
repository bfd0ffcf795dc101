// SPDX-License-Identifier: Apache-2.0

// The model of a mirror, and its clients.

package mirrors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"
	"pgregory.net/rapid"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// upstreamContent is what each upstream has at first.
var upstreamContent = func() *registry.MemStore {
	s := new(registry.MemStore)
	for _, repo := range []string{"library/app", "team/app"} {
		for _, b := range blobPool {
			if err := registry.PushBlob(context.Background(), s, repo, b.digest, strings.NewReader(b.data)); err != nil {
				panic(err)
			}
		}
		pushUpstream(s, repo, 0, "1")
	}
	return s
}()

// machine is the model of a mirror. Its actions are methods. Its view of what was fetched
// is the mirror's store itself; the model says what may become of it.
type machine struct {
	w     *world
	store *registry.MemStore
	opts  mirror.Options
	log   lockedBuffer

	mirror *mirror.Mirror
	client atomic.Pointer[http.Client]

	pushed map[string]*pushed // by the local name

	// Of the mirror since its start.
	fetched map[string]bool      // by the name of fetched content, whether that had a manifest
	fresh   map[string]span      // by the name of fetched content and the tag
	unknown map[string]time.Time // by the name of the upstream and the path, until when it is not asked
	lists   map[string]list      // by the name of fetched content and the kind of list
	slow    [2]time.Time         // until when each upstream may be left in peace after a timeout
}

// pushed is the content that was pushed to a repository.
type pushed struct {
	blobs, manifests map[digest.Digest]bool
	tags             map[string]digest.Digest
}

// span is when something ends: in the time of a request.
type span struct{ from, to time.Time }

// list is a list of an upstream that the mirror has.
type list struct {
	items []string
	until span
}

// newMachine returns a mirror of two upstreams.
func newMachine(t *rapid.T) *machine {
	m := &machine{
		w:      new(world),
		store:  new(registry.MemStore),
		pushed: make(map[string]*pushed),
	}
	for _, n := range namings {
		m.pushed[n.local] = &pushed{make(map[digest.Digest]bool), make(map[digest.Digest]bool), make(map[string]digest.Digest)}
	}
	dir, err := os.MkdirTemp("", "mirrors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m.opts = mirror.Options{
		Default:   "docker.io",
		MaxBytes:  pick[int64](t, "MaxBytes", 0, 0, 0, 3<<20),
		Dir:       dir,
		Timeout:   timeout,
		Transport: m.w,
		Logger:    slog.New(slog.NewTextHandler(&m.log, nil)),
	}
	ttl := pick(t, "TTL", -1, time.Minute)
	for _, name := range upstreamNames {
		o := newOrigin(m.w, name)
		o.auth = pick(t, "auth", "", "Bearer", "Basic")
		o.noReferrers = rapid.Bool().Draw(t, "noReferrers")
		o.noHeadDigest = pick(t, "noHeadDigest", false, false, true)
		o.cdn = pick(t, "cdn", nil, []string{"storage." + name}, []string{"cdn." + o.host}, []string{o.host + ":8443"}, []string{"cdn." + o.host, "cdn." + o.host}, []string{"storage." + name, "other." + name})
		m.w.origins = append(m.w.origins, o)
		m.opts.Upstreams = append(m.opts.Upstreams, mirror.Upstream{
			Name:        name,
			URL:         "https://" + o.host,
			TTL:         ttl,
			Private:     rapid.Bool().Draw(t, "private"),
			KeepDeleted: rapid.Bool().Draw(t, "keepDeleted"),
			Credential: func(context.Context, string) (auth.Credential, error) {
				return auth.Credential{Username: "user", Password: upstreamSecret}, nil
			},
		})
	}
	m.start(t)
	return m
}

// start makes a mirror over the store.
func (m *machine) start(t *rapid.T) {
	var err error
	if m.mirror, err = mirror.New(m.store, m.opts); err != nil {
		t.Fatal(err)
	}
	m.client.Store(&http.Client{Transport: registrytest.Transport(m.mirror.Handler(registry.New(registry.WithStore(m.mirror))))})
	m.fetched, m.fresh, m.lists = make(map[string]bool), make(map[string]span), make(map[string]list)
	m.unknown, m.slow = make(map[string]time.Time), [2]time.Time{}
	for _, o := range m.w.origins {
		o.mu.Lock()
		o.quietFrom, o.quietUntil = time.Time{}, time.Time{}
		clear(o.notFound)
		o.mu.Unlock()
	}
}

// close ends the mirror.
func (m *machine) close() { m.mirror.Close() }

// pick draws an element of a list.
func pick[T any](t *rapid.T, label string, from ...T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}

// origin returns the upstream of a name, with its options.
func (m *machine) origin(n naming) (*origin, mirror.Upstream) {
	return m.w.origins[n.upstream], m.opts.Upstreams[n.upstream]
}

// callsSince returns the requests after the first ones.
func (m *machine) callsSince(counts []int) (all []string) {
	for i, o := range m.w.origins {
		o.mu.Lock()
		all = append(all, o.calls[counts[i]:]...)
		o.mu.Unlock()
	}
	return all
}

// counts returns the number of requests to each upstream so far.
func (m *machine) counts() (counts []int) {
	for _, o := range m.w.origins {
		counts = append(counts, o.callCount())
	}
	return counts
}

// response is a response to a client.
type response struct {
	request string
	status  int
	header  http.Header
	body    string
	err     error // of reading the body
	calls   []string
	from    time.Time // of the request
}

// warned reports whether the response says that it is stale.
func (r response) warned() bool { return r.header.Get("Warning") != "" }

// String says what a response is in the terms of expectations.
func (r response) String() string {
	switch {
	case r.err != nil:
		return "broken off"
	case r.status == http.StatusOK && r.warned():
		return "stale " + r.header.Get("Docker-Content-Digest")
	case r.status == http.StatusOK:
		return "200 " + r.header.Get("Docker-Content-Digest")
	}
	return fmt.Sprint(r.status)
}

// send sends a request, waits for the response, and checks what applies to all responses.
func (m *machine) send(t *rapid.T, method, url, header, body string) response {
	t.Helper()
	counts := m.counts()
	r, err := m.try(context.Background(), method, url, header, body)
	if err != nil {
		t.Fatalf("%s: %v", r.request, err)
	}
	synctest.Wait()
	r.calls = m.callsSince(counts)
	t.Logf("%s: %v, calls %q", r.request, r, r.calls)
	m.checkResponse(t, r)
	return r
}

// patience is how long a client waits for the end of a response. Everything that the
// mirror waits for has ended before.
const patience = 10 * time.Minute

// try sends a request, and waits for the response.
func (m *machine) try(ctx context.Context, method, url, header, body string) (response, error) {
	r := response{request: strings.TrimSpace(method + " " + url + " " + header), from: time.Now()}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errHangs)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://mirror.test"+url, strings.NewReader(body))
	if err != nil {
		return r, err
	}
	req.Header.Set("Authorization", "Bearer "+clientSecret)
	req.Header.Set("Cookie", "session="+clientSecret)
	req.Header.Set("Content-Type", "application/octet-stream")
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	resp, err := m.client.Load().Do(req)
	if err != nil {
		return r, errors.Join(err, context.Cause(ctx))
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	r.status, r.header, r.body, r.err = resp.StatusCode, resp.Header, string(content), err
	if context.Cause(ctx) == errHangs {
		return r, errHangs
	}
	return r, nil
}

var errHangs = errors.New("the response hangs")

// codes are the codes of errors with each status.
var codes = map[int][]string{
	403: {"DENIED"},
	404: {"MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"},
	429: {"TOOMANYREQUESTS"},
	502: {"UNAVAILABLE"},
	504: {"UNAVAILABLE"},
}

// checkResponse checks what applies to all responses.
func (m *machine) checkResponse(t *rapid.T, r response) {
	t.Helper()
	for name, values := range r.header {
		if name == "Www-Authenticate" || name == "Set-Cookie" || strings.Contains(fmt.Sprint(values), upstreamSecret) {
			t.Fatalf("%s: the header %s comes from upstream: %q", r.request, name, values)
		}
	}
	if strings.Contains(r.body, upstreamSecret) {
		t.Fatalf("%s: the body comes from upstream: %q", r.request, r.body)
	}
	if r.status >= 400 && !strings.HasPrefix(r.request, http.MethodHead) {
		_, rest, _ := strings.Cut(r.body, `"code":"`)
		code, _, _ := strings.Cut(rest, `"`)
		if !slices.Contains(codes[r.status], code) {
			t.Fatalf("%s: the status %d has the code %q", r.request, r.status, code)
		}
	}
	if wait := r.header.Get("Retry-After"); (wait != "") != (r.status == http.StatusTooManyRequests) {
		t.Fatalf("%s: the status %d has the Retry-After %q", r.request, r.status, wait)
	}
	if r.status == http.StatusOK && r.err == nil && strings.HasPrefix(r.request, http.MethodGet) {
		if d := r.header.Get("Docker-Content-Digest"); d != "" && digest.FromString(r.body).String() != d {
			t.Fatalf("%s: %d bytes with another digest than %s", r.request, len(r.body), d)
		}
	}
}

// expect fails the test unless a response is one of those that the model allows, with at
// most so many calls.
func expect(t *rapid.T, r response, calls int, allowed ...string) {
	t.Helper()
	if !slices.Contains(allowed, r.String()) {
		t.Fatalf("%s: %v, want %q; %s", r.request, r, allowed, r.body[:min(len(r.body), 300)])
	}
	if len(r.calls) > calls {
		t.Fatalf("%s: %d calls, want at most %d: %q", r.request, len(r.calls), calls, r.calls)
	}
}

// Check checks what always holds.
func (m *machine) Check(t *rapid.T) {
	synctest.Wait()
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	for _, f := range m.w.faults {
		t.Errorf("%s", f)
	}
	if log := m.log.String(); strings.Contains(log, upstreamSecret) || strings.Contains(log, clientSecret) {
		t.Errorf("the log has secrets: %s", log)
	}
	for name, p := range m.pushed {
		tags := make(map[string]digest.Digest)
		for tag := range m.store.Tags(ctx, name, "") {
			if got, err := m.store.GetTag(ctx, name, tag); err == nil {
				tags[tag] = got.Digest
			}
		}
		if !maps.Equal(tags, p.tags) {
			t.Errorf("%s: the tags %v are pushed, want %v", name, tags, p.tags)
		}
		manifests := make(map[digest.Digest]bool)
		for info, err := range m.store.Manifests(ctx, name, "") {
			manifests[info.Digest] = err == nil
		}
		delete(manifests, "")
		if !maps.Equal(manifests, p.manifests) {
			t.Errorf("%s: the manifests %v are pushed, want %v", name, manifests, p.manifests)
		}
		for d := range p.blobs {
			if _, err := m.store.StatBlob(ctx, name, d); err != nil {
				t.Errorf("%s: the blob %s is pushed: %v", name, d, err)
			}
		}
	}
	if max := m.opts.MaxBytes; max > 0 {
		stored := m.fetchedBytes()
		if counted := m.mirror.Bytes(); counted > max || stored > counted {
			t.Errorf("%d bytes of fetched content, of which %d are counted, with a maximum of %d", stored, counted, max)
		}
	}
	files, err := os.ReadDir(m.opts.Dir)
	if err != nil || len(files) > 0 {
		t.Errorf("temporary files: %v %v", files, err)
	}
}

// fetchedBytes returns the number of bytes of fetched content.
func (m *machine) fetchedBytes() (total int64) {
	sizes := make(map[digest.Digest]int64)
	for _, n := range namings {
		for info, err := range m.store.Blobs(ctx, n.cache, "") {
			if err == nil {
				sizes[info.Digest] = info.Size
			}
		}
		for info, err := range m.store.Manifests(ctx, n.cache, "") {
			if err == nil {
				sizes[info.Digest] = info.Size
			}
		}
	}
	for _, size := range sizes {
		total += size
	}
	return total
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
