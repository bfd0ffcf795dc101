// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// client is a client that sends one request at a time, and remembers those that
// were acknowledged.
type client struct {
	t            *testing.T
	addr         string
	shared, own  string // repositories: that of several clients, and its own
	prefix       string // begins its tags
	random       *rand.Rand
	acknowledged int

	// cut is set at the moment from which responses no longer count, because the
	// power has failed. Upload sessions are lost then.
	cut          *atomic.Bool
	losesUploads bool

	state   state // acknowledged
	pending state // the effects of the request in progress

	manifests map[string]manifest      // all that were pushed, by path
	blobs     map[string]digest.Digest // those that it may delete, by path
	deleted   map[string]bool          // the paths of those that it has tried to delete
	recent    []byte                   // a blob that it has pushed

	upload string // the location of an upload in progress
	sent   int    // its acknowledged bytes
	data   []byte
}

// state maps the paths of tags, manifests and blobs to the digests of their
// content, or to "" if they do not exist. A referrer's path is that of the list
// with the referrer's digest as the fragment.
type state map[string]digest.Digest

// newClients returns clients that use the repositories in pairs.
func newClients(t *testing.T, n int) []*client {
	clients := make([]*client, n)
	cut := new(atomic.Bool)
	for i := range clients {
		clients[i] = &client{
			t:         t,
			shared:    fmt.Sprint("crash/", i%((n+1)/2)),
			own:       fmt.Sprint("crash/own/", i),
			prefix:    fmt.Sprint("c", i, "-"),
			random:    rand.New(rand.NewPCG(uint64(i), rand.Uint64())),
			cut:       cut,
			state:     make(state),
			manifests: make(map[string]manifest),
			blobs:     make(map[string]digest.Digest),
			deleted:   make(map[string]bool),
		}
	}
	return clients
}

// work has clients use a registry until stop kills it. It returns when they no longer
// use it.
func work(clients []*client, stop func()) {
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for c.step() == nil {
			}
		})
	}
	stop()
	wg.Wait()
}

// verify has each client check a registry.
func verify(clients []*client, addr string) {
	var wg sync.WaitGroup
	for _, c := range clients {
		c.addr = addr
		wg.Go(c.verify)
	}
	wg.Wait()
}

var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 10}, Timeout: 30 * time.Second}

// send sends a request. It fails if no response arrives, because the registry was
// killed, or if the response no longer counts.
func (c *client) send(method, path string, header http.Header, body []byte, want ...int) (*http.Response, []byte, error) {
	if strings.HasPrefix(path, "/") {
		path = "http://" + c.addr + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(req.Header, header)
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	response, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if c.cut.Load() {
		return nil, nil, errors.New("the power is off")
	}
	if !slices.Contains(want, resp.StatusCode) {
		c.t.Errorf("%s %s: %s %s", method, path, resp.Status, response)
		return nil, nil, errors.New("unexpected status")
	}
	c.acknowledged++
	return resp, response, nil
}

// change sends a request with effects.
func (c *client) change(method, path string, header http.Header, body []byte, want int, effects state) error {
	c.pending = effects
	if _, _, err := c.send(method, path, header, body, want); err != nil {
		return err
	}
	maps.Copy(c.state, effects)
	c.pending = nil
	return nil
}

// octets is the header of a request with the bytes of a blob.
var octets = http.Header{"Content-Type": {"application/octet-stream"}}

// verify checks that the registry has everything that was acknowledged, and that
// the request in progress took effect in full or not at all.
func (c *client) verify() {
	seen := make(state)
	for path := range c.state {
		if err := c.observe(path, seen); err != nil {
			c.t.Errorf("%s: %v", path, err)
			return
		}
	}
	before, after := true, len(c.pending) > 0
	for path, d := range c.pending {
		if err := c.observe(path, seen); err != nil {
			c.t.Errorf("%s: %v", path, err)
			return
		}
		before = before && seen[path] == c.state[path]
		after = after && seen[path] == d
	}
	switch {
	case after:
		maps.Copy(c.state, c.pending)
	case !before:
		c.t.Errorf("a request took effect in part: it was to change\n%v to\n%v, but now there is\n%v", only(c.state, c.pending), c.pending, only(seen, c.pending))
	}
	for path, d := range c.pending {
		if d != "" && seen[path] == "" && c.state[path] == "" {
			// If the push was the first to a repository, its file may be
			// there, and is a blob once another push creates the repository.
			delete(c.state, path)
		}
	}
	c.pending = nil
	for path, d := range c.state {
		if seen[path] != d {
			c.t.Errorf("%s is %q, want the acknowledged %q", path, seen[path], d)
		}
		if d == "" && c.random.IntN(4) == 0 {
			delete(c.state, path) // it has stayed deleted for some time
			delete(c.manifests, path)
			delete(c.blobs, path)
		}
	}
	c.verifyUpload()
}

// only returns the part of s that other has too.
func only(s, other state) state {
	part := make(state)
	for path := range other {
		part[path] = s[path]
	}
	return part
}

// observe adds the content at a path to seen.
func (c *client) observe(path string, seen state) error {
	if _, ok := seen[path]; ok {
		return nil
	}
	resp, content, err := c.send("GET", path, nil, nil, 200, 404)
	if err != nil {
		return err
	}
	seen[path] = ""
	_, referrer, isReferrer := strings.Cut(path, "#")
	switch {
	case resp.StatusCode == 404:
	case !isReferrer:
		seen[path] = digest.FromBytes(content)
	case bytes.Contains(content, []byte(referrer)):
		seen[path] = digest.Digest(referrer)
	}
	return nil
}

// verifyUpload checks that the upload in progress has its acknowledged bytes, and
// continues after those that it has.
func (c *client) verifyUpload() {
	if c.upload == "" {
		return
	}
	resp, _, err := c.send("GET", c.upload, nil, nil, 204, 404)
	if err != nil {
		c.t.Error(err)
		return
	}
	if resp.StatusCode == 404 {
		if !c.losesUploads {
			c.t.Error("an upload is lost")
		}
		c.upload = ""
		return
	}
	var last int
	fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &last)
	if last > 0 {
		last++
	}
	if last < c.sent && !c.losesUploads {
		c.t.Errorf("an upload has %d bytes, want the acknowledged %d", last, c.sent)
	}
	c.sent = last
}
