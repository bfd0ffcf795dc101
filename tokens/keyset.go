// SPDX-License-Identifier: Apache-2.0

// The keys of a server, by the URL of its JWK Set.

package tokens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/berth-oci/registry/guard"
)

const (
	maxSet       = 1 << 20          // bytes of a JWK Set
	fetchTimeout = 10 * time.Second // of all of a fetch
	minInterval  = 10 * time.Second // between fetches
	maxAge       = time.Hour        // of keys; older ones are fetched again
	maxStale     = 24 * time.Hour   // of keys, if they can't be fetched again
)

// keySet is a JWK Set at a URL.
type keySet struct {
	url    string
	client *http.Client

	// guarded by mu:
	mu       sync.Mutex
	keys     []key
	fetched  time.Time     // the time of keys
	tried    time.Time     // the end of the last fetch
	err      error         // of the last fetch
	fetching chan struct{} // closed at the end of the fetch in progress; nil without one
}

func newKeySet(location string, client *http.Client) (*keySet, error) {
	u, err := url.Parse(location)
	if err == nil {
		err = checkURL(u)
	}
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	s := &keySet{url: location, client: new(http.Client)}
	if client != nil {
		*s.client = *client
	}
	if s.client.CheckRedirect == nil {
		s.client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
			if len(via) > 5 {
				return errors.New("too many redirects")
			}
			return checkURL(r.URL)
		}
	}
	return s, nil
}

// checkURL rejects a URL that others in the network could respond to: who chooses
// the keys chooses the users.
func checkURL(u *url.URL) error {
	switch {
	case u.Host == "":
	case u.Scheme == "https", u.Scheme == "http" && guard.IsLocal(u.Hostname()):
		return nil
	}
	return fmt.Errorf("the URL of a JWK Set must be https: %s", u.Redacted())
}

// get returns the keys. With refresh, it fetches them first, unless it has just done
// so. Errors: that of the last fetch, with the keys if they are still acceptable.
func (s *keySet) get(ctx context.Context, refresh bool) ([]key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	usable := s.keys != nil && now.Sub(s.fetched) < maxStale
	if (refresh || !usable || now.Sub(s.fetched) >= maxAge) && s.fetching == nil && now.Sub(s.tried) >= minInterval {
		s.fetching = make(chan struct{})
		go s.fetch(s.fetching)
	}
	if (refresh || !usable) && s.fetching != nil {
		done := s.fetching
		s.mu.Unlock()
		var err error
		select {
		case <-done:
		case <-ctx.Done():
			err = ctx.Err()
		}
		s.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	if s.keys == nil || time.Since(s.fetched) >= maxStale {
		return nil, s.err
	}
	return s.keys, s.err
}

// fetch fetches the keys, independently of the requests that wait for them.
func (s *keySet) fetch(done chan struct{}) {
	keys, err := s.download()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = nil; err != nil {
		s.err = fmt.Errorf("tokens: the keys of the token server: %w", err)
	} else {
		s.keys, s.fetched = keys, time.Now()
	}
	s.tried, s.fetching = time.Now(), nil
	close(done)
}

func (s *keySet) download() ([]key, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.url, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSet:
		return nil, fmt.Errorf("%s: larger than %d bytes", s.url, maxSet)
	}
	keys, err := parseSet(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url, err)
	}
	return keys, nil
}
