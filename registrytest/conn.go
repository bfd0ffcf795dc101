// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// conn is one end of a connection in memory that behaves like a TCP connection: it
// buffers what is sent, has deadlines, and can be reset. A goroutine blocked on it
// is durably blocked, as [testing/synctest] calls it.
type conn struct {
	in, out       *stream
	local, remote net.Addr
	closed        func() // called by Close; may be nil

	// linger is set by CloseWrite. The peer's writes then block, as when the
	// receiver of a TCP connection has no room.
	linger   bool
	hijacked bool // the server has handed the connection to its handler
}

// newConn returns the two ends of a connection.
func newConn(clientAddr, serverAddr net.Addr) (client, server *conn) {
	up, down := newStream(), newStream()
	client = &conn{in: down, out: up, local: clientAddr, remote: serverAddr}
	server = &conn{in: up, out: down, local: serverAddr, remote: clientAddr}
	return client, server
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.wrap("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.wrap("write", err)
}

// ReadFrom is how net/http writes bodies of a known length. Its errors are those of
// net.TCPConn.ReadFrom.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(struct{ io.Writer }{c}, r)
	return n, c.wrap("readfrom", err)
}

// wrap returns err as package net returns it.
func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Close closes the connection. As with TCP, the peer can still read what was sent,
// and then gets io.EOF, or ECONNRESET if bytes that it has sent were not read.
func (c *conn) Close() error {
	if c.closed != nil {
		c.closed()
	}
	end := error(io.EOF)
	if unread := c.in.closeRead(c.linger); unread && !c.linger {
		end = syscall.ECONNRESET
	}
	c.out.closeWrite(end)
	return nil
}

// CloseWrite is how net/http's server begins to close a connection whose client is
// still sending. The server then sleeps, so that the client can read the response
// before a reset could discard it. Since nothing is discarded here, CloseWrite ends
// the server's goroutine instead. In synctest's fake time, which stands still when
// a test has returned, the sleep would never end.
func (c *conn) CloseWrite() error {
	c.out.closeWrite(io.EOF)
	if !c.hijacked {
		c.linger = true
		runtime.Goexit() // deferred calls close the connection
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readDeadline, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

// maxBuffered is the number of bytes that a stream buffers before writes block.
const maxBuffered = 256 << 10

// stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex
	changed *sync.Cond // any of the fields below

	buf  []byte // what was written; guarded by mu, like all that follow
	off  int    // buf[off:] has not been read
	end  error  // unless nil, what read returns after buf: the writer has closed
	gone bool   // the reader has closed
	full bool   // the reader has closed, and writes block
	told bool   // the reader has closed, and writes fail

	readDeadline, writeDeadline deadline
}

// deadline is a point in time after which calls fail.
type deadline struct {
	time  time.Time
	timer *time.Timer // wakes the blocked calls
}

func (d *deadline) passed() bool { return !d.time.IsZero() && !time.Now().Before(d.time) }

func newStream() *stream {
	s := new(stream)
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.gone:
			return 0, net.ErrClosed
		case s.readDeadline.passed():
			return 0, os.ErrDeadlineExceeded
		case s.off < len(s.buf) || len(p) == 0:
			n := copy(p, s.buf[s.off:])
			if s.off += n; s.off == len(s.buf) {
				s.buf, s.off = s.buf[:0], 0
			}
			s.changed.Broadcast()
			return n, nil
		case s.end != nil:
			return 0, s.end
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		room := maxBuffered - (len(s.buf) - s.off)
		switch {
		case s.end != nil:
			return n, net.ErrClosed
		case s.writeDeadline.passed():
			return n, os.ErrDeadlineExceeded
		case s.told:
			return n, syscall.EPIPE
		case s.gone && !s.full:
			// TCP sends these bytes, and is then told by a reset.
			s.told = true
			return n + len(p), nil
		case len(p) == 0:
			return n, nil
		case room > 0 && !s.gone:
			if s.off > 0 && len(s.buf)+len(p) > cap(s.buf) {
				s.buf = s.buf[:copy(s.buf, s.buf[s.off:])]
				s.off = 0
			}
			m := min(room, len(p))
			s.buf = append(s.buf, p[:m]...)
			n, p = n+m, p[m:]
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

// closeRead closes the reader's end, and reports whether bytes were not read. If
// block is set, the writer's calls then block instead of failing.
func (s *stream) closeRead(block bool) (unread bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unread = s.off < len(s.buf)
	if !s.gone {
		s.gone, s.full, s.told = true, block, unread && !block
		s.buf, s.off = nil, 0
	}
	s.readDeadline.stop()
	s.changed.Broadcast()
	return unread
}

// closeWrite closes the writer's end. The reader gets end after what was written.
func (s *stream) closeWrite(end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil {
		s.end = end
	}
	s.writeDeadline.stop()
	s.changed.Broadcast()
}

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.stop()
	d.time = t
	switch wait := time.Until(t); {
	case t.IsZero():
	case wait > 0:
		d.timer = time.AfterFunc(wait, s.wake)
	default:
		// As a timer that has ended already. In a bubble of testing/synctest, with the
		// race detector, two of these at once crash Go 1.26.
		go s.wake()
	}
	s.changed.Broadcast()
}

// wake makes blocked calls look at their deadlines.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
