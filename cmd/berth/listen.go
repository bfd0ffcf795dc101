// SPDX-License-Identifier: Apache-2.0

// The limit of connections.

package main

import (
	"net"
	"sync"
)

// limitedListener accepts connections as long as slots, which listeners may share, has
// room. Its connections keep the methods of a [net.TCPConn], which net/http uses:
// ReadFrom sends files by sendfile, and CloseWrite lets the client read a response to a
// request that it is still sending. A [net.UnixConn] has only CloseWrite.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  func() error
}

// limitConnections returns listeners that serve at most n connections at a time, all
// together. Each must be a [net.TCPListener] or a [net.UnixListener].
func limitConnections(all []net.Listener, n int) []net.Listener {
	slots := make(chan struct{}, n)
	var limited []net.Listener
	for _, l := range all {
		closed := make(chan struct{})
		limited = append(limited, &limitedListener{l, slots, closed, sync.OnceValue(func() error {
			close(closed)
			return l.Close()
		})})
	}
	return limited
}

// Accept accepts a connection before there is room for it: a listener that waits for
// clients takes no room from the others.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		conn.Close()
		return nil, net.ErrClosed
	}
	release := sync.OnceFunc(func() { <-l.slots })
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &limitedTCPConn{tcp, release}, nil
	}
	return &limitedUnixConn{conn.(*net.UnixConn), release}, nil
}

func (l *limitedListener) Close() error { return l.close() }

type limitedTCPConn struct {
	*net.TCPConn
	release func()
}

func (c *limitedTCPConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}

type limitedUnixConn struct {
	*net.UnixConn
	release func()
}

func (c *limitedUnixConn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}
