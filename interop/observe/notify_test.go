// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

var kills = flag.Int("kills", 3, "how often TestKilled kills the registry")

// receiver decodes notifications with distribution's types.
type receiver struct {
	down atomic.Bool

	mu       sync.Mutex // guards the fields below
	byID     map[string]notifications.Event
	blobs    map[digest.Digest]bool
	order    []digest.Digest // of the first delivery of each event
	received int             // events, the same ones again included
	rejected int             // requests while it was down
	err      error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down.Load() {
		r.rejected++
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	var envelope struct {
		Events []notifications.Event `json:"events"` // in distribution's Envelope it is an interface
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := errors.Join(err, d.Decode(&envelope)); err != nil {
		r.err = fmt.Errorf("%w: %s", err, body)
		return
	}
	if got := req.Header.Get("Content-Type"); got != notifications.EventsMediaType {
		r.err = fmt.Errorf("Content-Type %s", got)
	}
	for _, e := range envelope.Events {
		r.received++
		if _, ok := r.byID[e.ID]; ok {
			continue
		}
		r.byID[e.ID] = e
		r.blobs[e.Target.Digest] = true
		r.order = append(r.order, e.Target.Digest)
	}
}

func newReceiver(t *testing.T) (*receiver, *httptest.Server) {
	r := &receiver{byID: make(map[string]notifications.Event), blobs: make(map[digest.Digest]bool)}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, s
}

// child is a registry in a process of its own.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   bytes.Buffer
	url   string
}

func startChild(t *testing.T, endpoint, journal string) *child {
	t.Helper()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), endpointVariable+"="+endpoint, journalVariable+"="+journal)
	c.cmd.Stderr = &c.log
	c.stdin, err = c.cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	stdout, err := c.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.cmd.Start()))
	t.Cleanup(c.kill)
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		c.kill()
		t.Fatalf("the registry did not start: %v: %s", err, &c.log)
	}
	c.url = "http://" + strings.TrimSpace(addr)
	return c
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// TestKilled pushes blobs from several clients while the receiver is down for a while
// and the registry is killed. The receiver must get an event for each blob whose push
// was acknowledged, and those of a client in the order of its pushes.
func TestKilled(t *testing.T) {
	const clients = 4
	r, server := newReceiver(t)
	journal := filepath.Join(t.TempDir(), "journal")
	acknowledged := make([][]digest.Digest, clients)
	for round := range *kills + 1 {
		c := startChild(t, server.URL, journal)
		killed := round < *kills
		end := make(chan struct{})
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-end:
						return
					default:
					}
					d, status, err := pushBlob(c.url, fmt.Sprint("client-", i), fmt.Appendf(nil, "%d %d %d", round, i, n))
					switch {
					case err == nil && status == http.StatusCreated:
						acknowledged[i] = append(acknowledged[i], d)
					case killed:
						return
					default:
						t.Errorf("push: %d, %v", status, err)
						return
					}
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		r.down.Store(true)
		time.Sleep(50*time.Millisecond + rand.N(50*time.Millisecond))
		if killed {
			c.kill() // while the receiver is down or, every other time, after it has recovered
			if round%2 == 1 {
				r.down.Store(false)
			}
			wg.Wait()
			r.down.Store(false)
			continue
		}
		close(end)
		wg.Wait()
		r.down.Store(false)
		qt.Assert(t, qt.IsNil(c.stdin.Close())) // it drains the queue and ends
		qt.Assert(t, qt.IsNil(c.cmd.Wait()), qt.Commentf("%s", &c.log))
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	qt.Assert(t, qt.IsNil(r.err))
	position := make(map[digest.Digest]int)
	for i, d := range r.order {
		position[d] = i
	}
	total := 0
	for i, all := range acknowledged {
		last := -1
		for n, d := range all {
			at, ok := position[d]
			if !ok {
				t.Fatalf("client %d: the event of the acknowledged push %d of %d is lost", i, n, len(all))
			}
			if at < last {
				t.Fatalf("client %d: the event of push %d came before the one before it", i, n)
			}
			last = at
		}
		total += len(all)
	}
	names, err := filepath.Glob(filepath.Join(journal, "*.journal"))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(names, 0))
	qt.Check(t, qt.IsTrue(total > 0 && r.rejected > 0))
	t.Logf("%d pushes acknowledged, %d events received, %d of them again, %d requests rejected", total, len(r.byID), r.received-len(r.byID), r.rejected)
}

// TestDistributionTypes checks the fields that distribution's types have.
func TestDistributionTypes(t *testing.T) {
	r, server := newReceiver(t)
	c := startChild(t, server.URL, filepath.Join(t.TempDir(), "journal"))
	d, status, err := pushBlob(c.url, "team/app", []byte("hello"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(status, http.StatusCreated))
	get(t, c.url+"/v2/team/app/blobs/"+d.String())
	qt.Assert(t, qt.IsNil(c.stdin.Close()))
	qt.Assert(t, qt.IsNil(c.cmd.Wait()))
	qt.Assert(t, qt.IsNil(r.err))
	qt.Assert(t, qt.HasLen(r.byID, 2))
	for _, e := range r.byID {
		qt.Check(t, qt.IsTrue(e.Action == notifications.EventActionPush || e.Action == notifications.EventActionPull))
		qt.Check(t, qt.Equals(e.Target.Digest, d))
		qt.Check(t, qt.Equals(e.Target.Size, 5))
		qt.Check(t, qt.Equals(e.Target.Length, 5))
		qt.Check(t, qt.Equals(e.Target.MediaType, "application/octet-stream"))
		qt.Check(t, qt.Equals(e.Target.Repository, "team/app"))
		qt.Check(t, qt.Equals(e.Target.URL, c.url+"/v2/team/app/blobs/"+d.String()))
		qt.Check(t, qt.Equals("http://"+e.Request.Host, c.url))
		qt.Check(t, qt.Not(qt.Equals(e.Request.ID, "")))
		qt.Check(t, qt.Not(qt.Equals(e.Request.Addr, "")))
		qt.Check(t, qt.Equals(e.Request.UserAgent, "Go-http-client/1.1"))
		qt.Check(t, qt.Not(qt.Equals(e.Source.InstanceID, "")))
	}
}
