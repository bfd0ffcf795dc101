// SPDX-License-Identifier: Apache-2.0

// A running registry as a store: its address, requests and errors.

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
	orasregistry "oras.land/oras-go/v2/registry"
	orasremote "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/berth-oci/registry"
)

const remoteHelp = "http://HOST[:PORT] or https://HOST[:PORT] is a running registry, of which only content that tags lead to, with its referrers, can be listed; with a path, as in https://HOST/PREFIX, only its repositories below PREFIX/, named without it. " +
	"Credentials are those of docker login (the file config.json in $DOCKER_CONFIG or ~/.docker, and its helpers)"

// isRemote reports whether the name of a store is the address of a running registry.
func isRemote(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// checkUser returns an error if a user is given for a store, which has no users.
func checkRemote(flag, value, store string) error {
	if value != "" && !isRemote(store) {
		return fmt.Errorf("%s is only for a running registry: http://… or https://…", flag)
	}
	return nil
}

// remoteFlags are the flags of commands about a running registry.
type remoteFlags struct {
	User string // NAME:PASSWORD, NAME for a password in BERTH_PASSWORD, or ""
	CA   string
}

func (r *remoteFlags) define(f *pflag.FlagSet) {
	f.StringVar(&r.User, "user", "", "User of the registry, `NAME[:PASSWORD]` (default: that of docker login).")
	defineCA(f, &r.CA)
}

// defineCA defines the flag --ca.
func defineCA(f *pflag.FlagSet, file *string) {
	f.Var(pathValue{file, true}, "ca", "Trust the authorities in this `FILE`, in PEM, too, besides those of the system.")
}

func (r remoteFlags) check(store string) error {
	return errors.Join(checkRemote("--user", r.User, store), checkRemote("--ca", r.CA, store))
}

// transport returns the transport to a registry.
func (r remoteFlags) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = responseTimeout
	if r.CA == "" {
		return t, nil
	}
	authorities, err := readAuthorities(r.CA)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	for _, cert := range authorities {
		pool.AddCert(cert)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return t, nil
}

// remote is a running registry. As a Store it lists only the manifests and blobs that
// tags lead to, and the sizes of blobs in lists are those that manifests state.
type remote struct {
	registry.UnimplementedStore
	base   url.URL // without a path
	prefix string  // "" or a repository name and a slash
	client *auth.Client
	reg    *orasremote.Registry

	mu        sync.Mutex // guards the fields below
	repos     map[string]*orasremote.Repository
	known     map[string]registry.Info // content that exists, by repository and digest
	manifests map[string]registry.Manifest
	cached    int // bytes of manifests
	uploads   map[string]*remoteUpload
	lastID    int
}

// openRemote connects to a running registry.
func openRemote(ctx context.Context, address string, flags remoteFlags) (*remote, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, err
	case u.User != nil:
		return nil, errors.New("the address may not contain a password: run docker login, or use --user")
	case u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the address of a registry is http://HOST[:PORT][/PREFIX] or https://HOST[:PORT][/PREFIX]")
	}
	s := &remote{
		base:      url.URL{Scheme: u.Scheme, Host: u.Host},
		repos:     make(map[string]*orasremote.Repository),
		known:     make(map[string]registry.Info),
		manifests: make(map[string]registry.Manifest),
		uploads:   make(map[string]*remoteUpload),
	}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if !validRepo(prefix) {
			return nil, fmt.Errorf("%q is not a prefix of repository names", prefix)
		}
		s.prefix = prefix + "/"
	}
	transport, err := flags.transport()
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &retry.Transport{Base: transport, Policy: func() retry.Policy { return retryPolicy }}, CheckRedirect: checkRedirect}
	s.client = &auth.Client{Client: client, Cache: auth.NewCache()}
	s.client.SetUserAgent("berth")
	if s.client.Credential, err = credentialsFor(u.Host, flags.User); err != nil {
		return nil, err
	}
	if s.reg, err = orasremote.NewRegistry(u.Host); err != nil {
		return nil, err
	}
	s.reg.Client, s.reg.PlainHTTP = s.client, u.Scheme == "http"
	resp, err := s.do(ctx, request{method: "GET", path: "/v2/"})
	if err != nil && !errors.Is(err, registry.ErrUnauthorized) && !errors.Is(err, registry.ErrDenied) {
		return nil, err // a registry may allow requests for some repositories only
	}
	if err == nil {
		resp.Body.Close()
	}
	return s, nil
}

// responseTimeout is how long a registry may take to respond once it has a request: to
// store a large blob, some copy it first. It is shorter in tests.
var responseTimeout = 10 * time.Minute

// credentialsFor returns the credentials of --user for a host, or those of docker
// login.
func credentialsFor(host, user string) (auth.CredentialFunc, error) {
	if user != "" {
		name, password, ok := strings.Cut(user, ":")
		if !ok {
			password, ok = os.LookupEnv("BERTH_PASSWORD")
		}
		if !ok || name == "" {
			return nil, errors.New("--user requires NAME:PASSWORD, or NAME and the password in the environment variable BERTH_PASSWORD")
		}
		return func(_ context.Context, hostport string) (auth.Credential, error) {
			if hostport != host {
				return auth.EmptyCredential, nil
			}
			return auth.Credential{Username: name, Password: password}, nil
		}, nil
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("the credentials of docker login: %w", err)
	}
	return credentials.Credential(store), nil
}

// retryPolicy is that of oras, but waits as long as a busy registry asks for in
// Retry-After, up to a minute, instead of 3 seconds.
var retryPolicy retry.Policy = &retry.GenericPolicy{
	Retryable: retry.DefaultPredicate,
	Backoff:   retry.DefaultBackoff,
	MinWait:   200 * time.Millisecond,
	MaxWait:   time.Minute,
	MaxRetry:  5,
}

// checkRedirect ends redirects that lead nowhere, and keeps credentials from other
// servers: oras compares a redirect with the last one only, and net/http ignores the
// port and the scheme.
func checkRedirect(req *http.Request, via []*http.Request) error {
	const maxRedirects = 10
	if len(via) >= maxRedirects {
		return fmt.Errorf("stopped after %d redirects", maxRedirects)
	}
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		req.Header.Del("Authorization")
	}
	return nil
}

// Close implements io.Closer.
func (s *remote) Close() error {
	s.client.Client.CloseIdleConnections()
	return nil
}

// unlisted reports whether a store can't list all of its content, so that one has to
// ask for each manifest and blob.
func unlisted(s registry.Store) bool {
	_, ok := s.(*remote)
	return ok
}

// repository returns oras's client of a repository, for what is more than a request.
func (s *remote) repository(repo string) *orasremote.Repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[repo]
	if r == nil {
		r = &orasremote.Repository{
			Client:               s.client,
			Reference:            orasregistry.Reference{Registry: s.base.Host, Repository: s.prefix + repo},
			PlainHTTP:            s.base.Scheme == "http",
			MaxMetadataBytes:     maxManifest,
			ReferrerListMaxPages: 10_000,
		}
		s.repos[repo] = r
	}
	return r
}

// request is a request to a registry.
type request struct {
	method string
	repo   string // "" for none
	path   string // after the repository, or from the root
	query  url.Values
	url    *url.URL // instead of repo, path and query
	header http.Header
	body   io.Reader      // nil for none; a bytes.Reader can be sent again
	also   string         // another repository to read from
	want   registry.Error // of a 404 without a body
}

// scopes returns the actions to ask a token server for.
func (r request) actions() []string {
	switch r.method {
	case "GET", "HEAD":
		return []string{auth.ActionPull}
	case "DELETE":
		return []string{auth.ActionPull, auth.ActionDelete}
	}
	return []string{auth.ActionPull, auth.ActionPush}
}

// do sends a request, and returns the response if it is a success. The caller must
// close its body.
func (s *remote) do(ctx context.Context, r request) (*http.Response, error) {
	u := r.url
	if u == nil {
		full := s.base
		full.Path = r.path
		if r.repo != "" {
			full.Path = "/v2/" + s.prefix + r.repo + "/" + r.path
		}
		full.RawQuery = r.query.Encode()
		u = &full
	}
	if r.repo != "" {
		name := orasregistry.Reference{Registry: s.base.Host, Repository: s.prefix + r.repo}
		ctx = auth.AppendRepositoryScope(ctx, name, r.actions()...)
	}
	if r.also != "" {
		ctx = auth.AppendRepositoryScope(ctx, orasregistry.Reference{Registry: s.base.Host, Repository: s.prefix + r.also}, auth.ActionPull)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), r.body)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, requestError(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, responseError(resp, r.want)
}

// drop sends a request and closes the body of the response.
func (s *remote) drop(ctx context.Context, r request) error {
	resp, err := s.do(ctx, r)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// unreachable is the error of a request without a response. It matches
// registry.ErrUnavailable.
type unreachable struct{ error }

func (e unreachable) Unwrap() error        { return e.error }
func (e unreachable) Is(target error) bool { return target == registry.ErrUnavailable }

// requestError returns the error of a request without a response.
func requestError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return fmt.Errorf("%w: run docker login, or use --user", registry.ErrUnauthorized)
	}
	var rejected *errcode.ErrorResponse
	if errors.As(err, &rejected) { // by a token server
		return orasResponseError(rejected, registry.Error{Status: http.StatusNotFound, Message: "404 Not Found"})
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		return unreachable{err}
	}
	return err
}

// maxErrorBody is how much of the body of an error is read.
const maxErrorBody = 64 << 10

// responseError returns the error in a response. notFound is that of a 404 without a
// body.
func responseError(resp *http.Response, notFound registry.Error) error {
	var body struct {
		Errors []struct{ Code, Message string }
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	e := &registry.Error{Status: resp.StatusCode, Message: resp.Status}
	if json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 && body.Errors[0].Code != "" {
		e.Code, e.Message = clean(body.Errors[0].Code), resp.Status
		if text := clean(body.Errors[0].Message); text != "" {
			e.Message += ": " + text
		}
	}
	switch status := resp.StatusCode; {
	case status == http.StatusServiceUnavailable, status == http.StatusBadGateway, status == http.StatusGatewayTimeout:
		unavailable := *registry.ErrUnavailable
		unavailable.Message = e.Message
		e = &unavailable
	case status == http.StatusRequestEntityTooLarge:
		tooLarge := *registry.ErrTooLarge
		tooLarge.Message = e.Message
		e = &tooLarge
	case e.Code != "":
	case status == http.StatusNotFound:
		e.Code, e.Message = notFound.Code, notFound.Message
	default:
		e.Code = codes[status]
	}
	where := *resp.Request.URL
	where.RawQuery, where.User = "", nil
	return fmt.Errorf("%s %s: %w", resp.Request.Method, &where, e)
}

// codes are the codes of responses without a body.
var codes = map[int]string{
	http.StatusUnauthorized:     registry.ErrUnauthorized.Code,
	http.StatusForbidden:        registry.ErrDenied.Code,
	http.StatusMethodNotAllowed: registry.ErrUnsupported.Code,
	http.StatusTooManyRequests:  registry.ErrTooManyRequests.Code,
}

// maxKnown bounds the content that a remote remembers.
const maxKnown = 100_000

// remember notes that a repository has content.
func (s *remote) remember(repo string, info registry.Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[repo+"@"+info.Digest.String()] = info
}

// recall returns content that a repository has, if that is known.
func (s *remote) recall(repo string, d digest.Digest) (registry.Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	info, ok := s.known[repo+"@"+d.String()]
	return info, ok
}

// forget is called before content of a repository is deleted.
func (s *remote) forget(repo string, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := repo + "@" + d.String()
	delete(s.known, key)
	s.cached -= len(s.manifests[key].Content)
	delete(s.manifests, key)
}
