// SPDX-License-Identifier: Apache-2.0

// A replica in a process of its own, and how tests start, kill and wait for it.

package bucket_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// replicaVariable makes the test binary serve the bucket with this URL.
const replicaVariable = "BERTH_TEST_REPLICA"

const (
	// realTimeout is the Timeout of the stores.
	realTimeout = 2 * time.Second

	// GC has work to do in a run of minutes. The difference allows for what the
	// stores' difference does: slow calls, and clocks that are read imprecisely.
	realTrustedFor = 5 * time.Second
	realGrace      = 25 * time.Second
)

// serveReplica serves a registry until its standard input ends. It prints its address.
func serveReplica(bucketURL string) error {
	store, err := bucket.Open(context.Background(), bucketURL, &bucket.Options{
		Timeout: realTimeout,
		OnError: func(err error) {
			fmt.Fprintln(os.Stderr, time.Now().Format("15:04:05.000"), err)
		},
	})
	if err != nil {
		return err
	}
	store.SetGrace(realTrustedFor, realGrace)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var running atomic.Int64
	handler := registry.New(registry.WithStore(store), registry.AllowSparse())
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		handler.ServeHTTP(w, r)
	})
	mux.HandleFunc("/gc", func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Add(-1)
		stats, err := store.GC(r.Context(), bucket.GCOptions{Grace: realGrace})
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprintf(w, "%+v %v", stats, err)
	})
	// Requests go on after their clients have gone: this waits for all of them.
	mux.HandleFunc("/quiet", func(w http.ResponseWriter, r *http.Request) {
		for running.Load() > 0 && r.Context().Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		store.Wait()
	})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(l.Addr())
	return http.Serve(l, mux)
}

// realProcess is a replica, one process after another.
type realProcess struct {
	t         *testing.T
	n         int
	bucketURL string
	proxy     *tcpProxy
	http      *http.Client

	cmd         *exec.Cmd
	stderr      *bytes.Buffer
	incarnation int

	mu     sync.Mutex // guards the fields below
	addr   string     // "" while it is down
	worlds []*world
}

// start starts a process.
func (p *realProcess) start() {
	self, err := os.Executable()
	if err != nil {
		p.t.Error(err)
		return
	}
	p.incarnation++
	p.stderr = new(bytes.Buffer)
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), replicaVariable+"="+p.bucketURL)
	p.cmd.Stderr = p.stderr
	_, err = p.cmd.StdinPipe() // so that it ends with this process
	stdout, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err, err2, p.cmd.Start()); err != nil {
		p.t.Error(err)
		return
	}
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		p.t.Errorf("replica %d did not start: %v", p.n, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = strings.TrimSpace(addr)
	for _, w := range p.worlds {
		p.show(w)
	}
}

// show lets the clients of a world use the process. p.mu is held.
func (p *realProcess) show(w *world) {
	r := w.replicas[p.n]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h = &handle{network: w.network, name: fmt.Sprintf("r%d.%d", p.n, p.incarnation), crashed: make(chan struct{})}
	r.serve = &forwarder{w, p.http, p.addr}
}

// kill kills the process, and looks for signs of bugs in what it has printed.
func (p *realProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr = ""
	for _, w := range p.worlds {
		w.note(faultCrash, "", "replica %d is killed", p.n)
		w.crash(w.replicas[p.n])
	}
	log := p.stderr.String()
	for _, sign := range []string{"panic", "DATA RACE", "fatal error"} {
		if i := strings.Index(log, sign); i >= 0 {
			p.t.Errorf("replica %d: %s", p.n, log[max(i-1000, 0):min(i+4000, len(log))])
		}
	}
}

// attach makes the process serve other worlds.
func (p *realProcess) attach(worlds []*world) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.worlds = worlds
	for _, w := range worlds {
		p.show(w)
	}
}

// post sends a request that is not one of a client.
func (p *realProcess) post(ctx context.Context, path string) (body string, status int, err error) {
	p.mu.Lock()
	addr := p.addr
	p.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return string(data), resp.StatusCode, err
}
