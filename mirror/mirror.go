// SPDX-License-Identifier: Apache-2.0

// Mirror, its options and its life.

package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// Options are the options of New.
type Options struct {
	// Upstreams are the registries to mirror.
	Upstreams []Upstream

	// Default is the name of the upstream for repositories that no upstream's name
	// begins, and that are not found here: for dockerd, which asks its mirrors for
	// the names of docker.io.
	Default string

	// MaxBytes is the number of bytes of fetched content beyond which the least
	// recently used content is evicted; 0 means unlimited. Content counts once,
	// however many repositories have it. What clients read stays until they have
	// read it.
	MaxBytes int64

	// Dir is the folder of temporary files, which hold blobs while they are fetched;
	// the default is os.TempDir.
	Dir string

	// Timeout is how long an upstream may take to respond, and to send the next bytes
	// of a blob; the default is 30 s.
	Timeout time.Duration

	// Transport sends the requests; the default is like http.DefaultTransport.
	Transport http.RoundTripper

	// Logger gets a warning for each failure of an upstream. The default discards
	// them.
	Logger *slog.Logger
}

// Check returns an error if New would reject the options.
func (o Options) Check() error {
	if o.MaxBytes < 0 || o.Timeout < 0 {
		return errors.New("mirror: a negative number")
	}
	_, err := newUpstreams(o.Default, o.Upstreams, &o, new(upstreams))
	return err
}

const (
	defaultTimeout = 30 * time.Second
	defaultTTL     = time.Minute

	// maxFetches is the number of blobs that are fetched from an upstream at the same
	// time. The others wait, but not for another upstream.
	maxFetches = 64

	// maxDocuments is the number of manifests and lists that are read from an upstream at
	// the same time, since each is in memory.
	maxDocuments = 32

	// forgetUnknown is how long the mirror remembers that an upstream does not have
	// something.
	forgetUnknown = 3 * time.Second

	// maxRemembered bounds what the mirror remembers of tags and of unknown content,
	// and maxLists and maxListBytes the lists of tags and referrers that it keeps.
	maxRemembered = 100_000
	maxLists      = 32
	maxListBytes  = 16 << 20
)

// Mirror is a registry.Store that fetches what it lacks from other registries. It is
// safe for concurrent use.
type Mirror struct {
	store   registry.Store // content under its own name, and under CachePrefix
	nearby  bool           // store looks things up faster than a goroutine starts
	opts    Options
	log     *slog.Logger
	current atomic.Pointer[upstreams]

	flights   singleflight.Group            // of manifests and lists
	fresh     *lru.Cache[tagKey, freshness] // of fetched tags
	unknown   *lru.Cache[string, time.Time] // by URL, until when upstream does not have it
	lists     *lru.Cache[string, *upstreamList]
	listBytes atomic.Int64 // of the documents that lists were read from
	usage     usage

	mu         sync.Mutex // guards fetches and closed
	fetches    map[fetchKey]*fetch
	closed     bool
	ctx        context.Context // ends when the mirror is closed
	stop       context.CancelFunc
	background sync.WaitGroup
}

var _ registry.Store = (*Mirror)(nil)

// New returns a mirror that keeps everything in s. It asks no upstream. The caller must
// close it.
//
// Errors: those of invalid options.
func New(s registry.Store, opts Options) (*Mirror, error) {
	if err := opts.Check(); err != nil {
		return nil, err
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Transport == nil {
		opts.Transport = newTransport(opts.Timeout)
	}
	m := &Mirror{
		store:   s,
		nearby:  isLocal(s),
		opts:    opts,
		log:     opts.Logger,
		fetches: make(map[fetchKey]*fetch),
	}
	m.fresh, _ = lru.New[tagKey, freshness](maxRemembered)
	m.unknown, _ = lru.New[string, time.Time](maxRemembered)
	m.lists, _ = lru.NewWithEvict(maxLists, func(_ string, l *upstreamList) { m.listBytes.Add(-l.size) })
	m.usage.init(opts.MaxBytes)
	m.ctx, m.stop = context.WithCancel(context.Background())
	if err := m.SetUpstreams(opts.Default, opts.Upstreams...); err != nil {
		return nil, err
	}
	if opts.MaxBytes > 0 {
		m.background.Go(m.load)
	}
	return m, nil
}

// SetUpstreams replaces the upstreams, and the name of the default one, if any. Fetches in
// progress go on. Errors: those of invalid upstreams, which change nothing.
func (m *Mirror) SetUpstreams(defaultName string, list ...Upstream) error {
	old := m.current.Load()
	if old == nil {
		old = new(upstreams)
	}
	next, err := newUpstreams(defaultName, list, &m.opts, old)
	if err == nil {
		m.current.Store(next)
	}
	return err
}

func newUpstreams(defaultName string, list []Upstream, opts *Options, old *upstreams) (*upstreams, error) {
	next := &upstreams{byName: make(map[string]*upstream)}
	for _, u := range list {
		up, err := newUpstream(u, opts, old)
		if err == nil && next.byName[up.Name] != nil {
			err = errors.New("there are two with this name")
		}
		if err != nil {
			return nil, fmt.Errorf("mirror: upstream %q: %w", u.Name, err)
		}
		next.byName[up.Name] = up
	}
	if defaultName != "" {
		if next.byDefault = next.byName[canonicalHost(defaultName)]; next.byDefault == nil {
			return nil, fmt.Errorf("mirror: the default %q is none of the upstreams", defaultName)
		}
	}
	return next, nil
}

// begin reports whether the mirror is open. If so, Close waits until the caller calls
// m.background.Done.
func (m *Mirror) begin() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.background.Add(1)
	}
	return !m.closed
}

// Close ends the fetches in progress, and waits for them. Their readers get errors.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.background.Wait()
	return nil
}

// isLocal reports whether the store s is in memory or in a directory.
func isLocal(s registry.Store) bool {
	for {
		outer, ok := s.(interface{ Unwrap() registry.Store })
		if !ok {
			break
		}
		s = outer.Unwrap()
	}
	switch s.(type) {
	case *registry.MemStore, *ocidir.Store:
		return true
	}
	return false
}
