// SPDX-License-Identifier: Apache-2.0

// The limit of connections.

package main

import (
	"net"
	"sync"
)

// limitedListener accepts at most as many connections at a time as slots holds. Its
// connections keep the methods of a [net.TCPConn], which net/http uses: ReadFrom
// sends files by sendfile, and CloseWrite lets the client read a response to a
// request that it is still sending.
type limitedListener struct {
	*net.TCPListener
	slots  chan struct{}
	closed chan struct{}
	close  func() error
}

func limitConnections(l *net.TCPListener, n int) *limitedListener {
	closed := make(chan struct{})
	return &limitedListener{l, make(chan struct{}, n), closed, sync.OnceValue(func() error {
		close(closed)
		return l.Close()
	})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.AcceptTCP()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{conn, sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitedListener) Close() error { return l.close() }

type limitedConn struct {
	*net.TCPConn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.TCPConn.Close()
}
