// SPDX-License-Identifier: Apache-2.0

// Upstream, and requests to it.

package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry/internal/pattern"
)

// Upstream is a registry to mirror.
type Upstream struct {
	// Name is the registry's name in the names of images: docker.io, for example. In
	// names of repositories a port follows an underscore: localhost_5000/app.
	Name string

	// URL is where the registry is, https://registry-1.docker.io for example. A path
	// begins the names of its repositories there.
	URL string

	// TTL is how long a tag is served without a call upstream. The default is a
	// minute, and a negative TTL asks each time.
	TTL time.Duration

	// Repositories are patterns for the names of the repositories that are mirrored,
	// as the upstream names them, in the syntax of path.Match: "*" matches a component
	// of a name, or a part of one, and a final "/**" one or more. Without any, all
	// repositories are.
	Repositories []string

	// Private serves no stored tag while the upstream denies access, and takes no other
	// upstream's word for who has its blobs: they are fetched once for each.
	Private bool

	// KeepDeleted serves a stored tag even if the upstream has it no longer.
	KeepDeleted bool

	// Credential returns the credentials for a host, which is that of URL or of the
	// upstream's token server. The default is to ask anonymously.
	Credential auth.CredentialFunc
}

// Check returns an error if a mirror of the upstream can't work.
func (u Upstream) Check() error {
	_, err := newUpstream(u, new(Options), new(upstreams))
	return err
}

// upstream is an Upstream with its client.
type upstream struct {
	Upstream
	base   *url.URL
	prefix string // of names at the upstream: "" or a path with a final slash
	client *auth.Client
	*state
}

// state is what survives a change of an upstream's options.
type state struct {
	counters
	slots     chan struct{} // one for each fetch of a blob
	documents chan struct{} // one for each manifest and list in memory

	mu      sync.Mutex
	resting *failure // the response to all calls until the time
	until   time.Time
}

func newState() *state {
	return &state{slots: make(chan struct{}, maxFetches), documents: make(chan struct{}, maxDocuments)}
}

// reserve waits until a document of the upstream may be in memory. The caller must call
// release. Errors: a *failure.
func (u *upstream) reserve(ctx context.Context) (release func(), err error) {
	select {
	case u.documents <- struct{}{}:
		return func() { <-u.documents }, nil
	case <-ctx.Done():
		return nil, u.failure(context.Cause(ctx))
	}
}

// newUpstream returns the upstream u with the state that it has in old.
func newUpstream(u Upstream, opts *Options, old *upstreams) (*upstream, error) {
	base, err := url.Parse(u.URL)
	switch {
	case err != nil: // whose text has the URL, and so perhaps a password
		return nil, fmt.Errorf("the URL: %w", errors.Unwrap(err))
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, fmt.Errorf("the URL %q has no http:// or https:// and a host", base.Redacted())
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("the URL %q has more than a host and a path", base.Redacted())
	}
	u.Name = canonicalHost(u.Name)
	if !validHost(u.Name) {
		return nil, errors.New("the name is not that of a host")
	}
	for _, p := range u.Repositories {
		if err := pattern.Check(p); err != nil {
			return nil, fmt.Errorf("the pattern %q: %w", p, err)
		}
	}
	if u.TTL == 0 {
		u.TTL = defaultTTL
	}
	up := &upstream{Upstream: u, base: base, state: newState()}
	if path := strings.Trim(base.Path, "/"); path != "" {
		up.prefix = path + "/"
	}
	if before := old.byName[u.Name]; before != nil && before.URL == u.URL {
		up.state = before.state
	}
	up.client = &auth.Client{
		Client:     &http.Client{Transport: opts.Transport, CheckRedirect: checkRedirect},
		Header:     http.Header{"User-Agent": {"berth"}},
		Credential: tellErrors(u.Credential),
		Cache:      newTokenCache(),
		ClientID:   "berth",
	}
	return up, nil
}

// validHost reports whether names of repositories can begin with host: the grammar of the
// spec's section "Pulling manifests".
func validHost(host string) bool {
	for part := range strings.FieldsFuncSeq(host, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
				return false
			}
		}
	}
	return host != "" && !strings.ContainsAny(host[:1]+host[len(host)-1:], ".-_") && !strings.Contains(host, "..") && host+"/" != CachePrefix
}

func (u *upstream) mirrors(name string) bool {
	return pattern.MatchAny(u.Repositories, name)
}

// newTransport returns a transport whose waits end.
func newTransport(timeout time.Duration) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: min(timeout, 10*time.Second), KeepAlive: 30 * time.Second}).DialContext
	t.ResponseHeaderTimeout = timeout
	t.MaxIdleConnsPerHost = 16
	return t
}

// checkRedirect follows redirects that keep TLS, without credentials if the host changes:
// net/http sends them to other ports and to subdomains, and the authentication client
// removes them only where the host changes, so that a second redirect there has them again.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("too many redirects")
	}
	req.Header.Del("Referer") // which can be a signed URL
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		req.Header.Del("Authorization")
	}
	if req.URL.Scheme != "https" && via[len(via)-1].URL.Scheme == "https" {
		return errors.New("a redirect from https to http")
	}
	return nil
}

// manifestTypes are the types of manifests that the upstream may send.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.oci.artifact.manifest.v1+json, application/vnd.docker.distribution.manifest.v1+prettyjws, " +
	"application/vnd.docker.distribution.manifest.v1+json, application/json;q=0.5, */*;q=0.1"

// call is a request to an upstream.
type call struct {
	method string
	name   string // of the repository
	kind   string // manifests, blobs, tags or referrers
	ref    string // the rest of the path, or the path and query of a next page
	from   int64  // the first byte, if it is not 0
}

// path returns the URL of the call without the registry's address.
func (c call) path(prefix string) string {
	return "/v2/" + prefix + c.name + "/" + c.kind + "/" + c.ref
}

// do sends a request, and returns a response with the status 200 or 206, whose body the
// caller must close, or a *failure. It tries again once if the upstream fails, or if a
// signed URL that it redirects to has expired.
func (u *upstream) do(ctx context.Context, c call) (*http.Response, error) {
	if f := u.rests(); f != nil {
		return nil, f
	}
	for try := 0; ; try++ {
		start := time.Now()
		resp, err := u.send(ctx, c)
		u.calls.Add(1)
		u.time.Add(int64(time.Since(start)))
		switch cause := context.Cause(ctx); {
		case cause != nil: // even if it made the upstream end a response
			err = failureOf(cause)
		case err != nil:
			err = failureOf(err)
		default:
			u.noteRateLimit(resp.Header)
			err = u.check(resp, c)
		}
		if err == nil {
			return resp, nil
		}
		f := err.(*failure)
		again := f.kind == broken && f.status >= 500 || f.kind == denied && resp != nil && resp.Request.URL.Host != u.base.Host
		if resp != nil {
			resp.Body.Close()
		}
		f.upstream = u.Name
		if try == 0 && again {
			select {
			case <-time.After(retryDelay):
				continue
			case <-ctx.Done():
			}
		}
		if ctx.Err() == nil || f.kind == timeout {
			if f.kind != missing { // which is a response like others
				u.failures.Add(1)
			}
			u.rest(f)
		}
		return nil, f
	}
}

// retryDelay is the time between two tries.
const retryDelay = 200 * time.Millisecond

func (u *upstream) send(ctx context.Context, c call) (*http.Response, error) {
	// The host that the client keeps tokens for.
	ctx = auth.WithScopesForHost(ctx, u.base.Host, auth.ScopeRepository(u.prefix+c.name, auth.ActionPull))
	req, err := http.NewRequestWithContext(ctx, c.method, u.base.Scheme+"://"+u.base.Host+c.path(u.prefix), nil)
	if err != nil {
		return nil, err
	}
	// Bytes that a proxy compresses would have another digest and other ranges.
	req.Header.Set("Accept-Encoding", "identity")
	if c.kind == "manifests" {
		req.Header.Set("Accept", manifestTypes)
	}
	if c.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", c.from))
	}
	return u.client.Do(req)
}

// rests returns the failure after which the upstream is left in peace, if that has not
// ended.
func (u *upstream) rests() *failure {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.resting == nil || !time.Now().Before(u.until) {
		u.resting = nil
		return nil
	}
	f := *u.resting
	f.retryAfter = time.Until(u.until)
	return &f
}

// pause returns how long the upstream is still left in peace after a timeout.
func (u *upstream) pause() time.Duration {
	if f := u.rests(); f != nil && f.kind == timeout {
		return f.retryAfter
	}
	return 0
}

// rest leaves the upstream in peace after some failures: until its Retry-After, and for
// a moment after one that took long.
func (u *upstream) rest(f *failure) {
	pause := f.retryAfter
	switch f.kind {
	case limited:
	case timeout:
		pause = timeoutPause
	default:
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if until := time.Now().Add(pause); u.resting == nil || until.After(u.until) {
		u.resting, u.until = f, until
	}
}

// timeoutPause is how long an upstream is not called after it did not respond in time, so
// that not each request waits for it.
const timeoutPause = 5 * time.Second

// tokenCache is a bounded cache of tokens: they are requested by repository, and clients
// choose the names of repositories.
type tokenCache struct {
	current atomic.Pointer[auth.Cache]
	sets    atomic.Int64
}

const maxTokens = 1000

func newTokenCache() *tokenCache {
	c := new(tokenCache)
	c.reset()
	return c
}

func (c *tokenCache) reset() {
	cache := auth.NewCache()
	c.current.Store(&cache)
}

func (c *tokenCache) GetScheme(ctx context.Context, registry string) (auth.Scheme, error) {
	return (*c.current.Load()).GetScheme(ctx, registry)
}

func (c *tokenCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	return (*c.current.Load()).GetToken(ctx, registry, scheme, key)
}

func (c *tokenCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	if c.sets.Add(1)%maxTokens == 0 {
		c.reset()
	}
	return (*c.current.Load()).Set(ctx, registry, scheme, key, fetch)
}
