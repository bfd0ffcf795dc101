// SPDX-License-Identifier: Apache-2.0

// A TCP proxy between a replica and MinIO that injects faults.

package bucket_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// tcpFaults are the probabilities of the faults of a request to MinIO, in average
// weather.
var tcpFaults = []struct {
	class faultClass
	rate  float64
}{
	{faultLost, .004},     // the connection is cut before MinIO has the entire request
	{faultResponse, .008}, // MinIO handles the request, and the connection is cut
	{faultBody, .003},     // the connection is cut in the middle of the response
	{faultDelayed, .02},   // MinIO gets the request later, even if the replica has given up
	{faultSlow, .002},     // the same, after seconds
}

// tcpProxy forwards connections. It knows where requests begin because none is sent
// on a connection before the response to the previous one has come.
type tcpProxy struct {
	listener net.Listener
	to       string // the address of MinIO
	handlers sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	random   *rand.Rand
	strength float64 // of the faults; 0: none
	cut      time.Time
	hangs    bool // during a partition, requests don't fail at once
	conns    map[*tcpConn]bool
	counts   map[faultClass]int
	log      []logEntry
}

// tcpConn is a connection of a replica, and one to MinIO.
type tcpConn struct {
	client, server net.Conn
	busy           bool       // a request has begun, and its response has not; guarded by tcpProxy.mu
	fault          faultClass // of the current request, likewise
}

func newTCPProxy(t *testing.T, to string, random *rand.Rand) *tcpProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tcpProxy{listener: l, to: to, random: random, conns: make(map[*tcpConn]bool), counts: make(map[faultClass]int)}
	p.handlers.Add(1)
	go func() {
		defer p.handlers.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.handlers.Add(1)
			go p.forward(c)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for c := range p.conns {
			c.close()
		}
		p.mu.Unlock()
		p.handlers.Wait()
	})
	return p
}

func (c *tcpConn) close() {
	c.client.Close()
	c.server.Close()
}

// forward forwards the requests of a connection until one side closes it.
func (p *tcpProxy) forward(client net.Conn) {
	defer p.handlers.Done()
	server, err := net.Dial("tcp", p.to)
	if err != nil {
		client.Close()
		return
	}
	c := &tcpConn{client: client, server: server}
	p.mu.Lock()
	p.conns[c] = true
	p.mu.Unlock()
	p.handlers.Add(1)
	go p.forwardBack(c)
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			// A request that MinIO already has goes on without the replica. If
			// part of it is missing, MinIO waits for the rest, in vain.
			p.mu.Lock()
			defer p.mu.Unlock()
			if c.busy {
				server.SetReadDeadline(time.Now().Add(5 * time.Second))
			} else {
				server.Close()
			}
			return
		}
		if n, err = p.delay(c, n); n > 0 {
			server.Write(buf[:n])
		}
		if err != nil {
			c.close()
			return
		}
	}
}

// delay chooses the fault of a request if one begins, and delays it. It returns how
// many of n bytes are to be forwarded, and an error if the connection ends then.
func (p *tcpProxy) delay(c *tcpConn, n int) (int, error) {
	p.mu.Lock()
	if !c.busy {
		c.busy, c.fault = true, p.choose()
	}
	random := p.random.Uint64()
	r := rand.New(rand.NewPCG(random, 0))
	fault := c.fault
	if fault == faultLost || fault == faultDelayed || fault == faultSlow {
		c.fault = "" // once per request, which may have several pieces
	}
	cut, hangs := time.Until(p.cut), p.hangs
	p.mu.Unlock()

	if cut > 0 {
		if hangs {
			time.Sleep(cut)
		}
		if !hangs || r.IntN(2) == 0 {
			return 0, net.ErrClosed
		}
		return n, nil
	}
	switch fault {
	case faultLost:
		return []int{0, n / 2}[r.IntN(2)], net.ErrClosed
	case faultDelayed:
		time.Sleep(between(r, 10*time.Millisecond, 3*time.Second))
	case faultSlow:
		time.Sleep(between(r, 2*time.Second, 7*time.Second))
	}
	return n, nil
}

// choose returns the fault of the next request, "" for none.
func (p *tcpProxy) choose() faultClass {
	x := p.random.Float64()
	for _, f := range tcpFaults {
		if x < f.rate*p.strength {
			p.note(f.class, string(f.class))
			return f.class
		}
		x -= f.rate * p.strength
	}
	return ""
}

func (p *tcpProxy) note(class faultClass, text string) {
	p.counts[class]++
	p.log = append(p.log, logEntry{time.Now(), class, "", fmt.Sprintf("proxy %s: %s", p.listener.Addr(), text)})
}

// forwardBack forwards the responses of a connection.
func (p *tcpProxy) forwardBack(c *tcpConn) {
	defer p.handlers.Done()
	defer func() {
		c.close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.server.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		fault := c.fault
		if time.Now().Before(p.cut) {
			fault = faultResponse
		}
		if fault != faultResponse && fault != faultBody {
			c.busy = false
		}
		p.mu.Unlock()
		switch fault {
		case faultBody:
			c.client.Write(buf[:n/2])
			fallthrough
		case faultResponse:
			// The connection stays in use until MinIO has certainly finished.
			c.client.Close()
			c.server.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			for err == nil {
				_, err = c.server.Read(buf)
			}
			return
		}
		if _, err := c.client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// setFaults sets the strength of the weather.
func (p *tcpProxy) setFaults(strength float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.strength = strength
	if strength == 0 {
		p.cut = time.Time{}
	}
}

// partition cuts the replica off from MinIO.
func (p *tcpProxy) partition(d time.Duration, hangs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.hangs = time.Now().Add(d), hangs
	p.note(faultPartition, fmt.Sprintf("partition for %s, hangs: %v", d, hangs))
}

// wait waits until no request is on its way, and reports whether that happened soon.
func (p *tcpProxy) wait() bool {
	for range 300 {
		busy := false
		p.mu.Lock()
		for c := range p.conns {
			busy = busy || c.busy
		}
		p.mu.Unlock()
		if !busy {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// takeLog returns the faults since its last call.
func (p *tcpProxy) takeLog() []logEntry {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log = nil
	return log
}
