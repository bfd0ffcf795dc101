// SPDX-License-Identifier: Apache-2.0

// The sockets that the server listens on.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// Prefixes of addresses that are not those of TCP.
const (
	unixPrefix    = "unix:"
	systemdPrefix = "systemd:"
)

// defaultSocketMode lets the group of a socket connect to it.
const defaultSocketMode socketMode = 0o660

// socketMode is the mode of a unix socket, in octal. 0 is the default.
type socketMode fs.FileMode

func (m *socketMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return fmt.Errorf("%q is not an octal mode, such as 0660", text)
	}
	*m = socketMode(n)
	return nil
}

func (m socketMode) MarshalText() ([]byte, error) {
	if m == 0 {
		return nil, nil
	}
	return fmt.Appendf(nil, "%#o", uint32(m)), nil
}

// listen opens listeners for addrs: HOST:PORT, unix:PATH, or systemd: and
// systemd:NAME for the sockets, or those of one name, that systemd has passed to this
// process. Each is a [net.TCPListener] or a [net.UnixListener].
func listen(addrs []string, mode socketMode) (all []net.Listener, err error) {
	passed := activation.Files(true)
	defer func() {
		closeFiles(passed) // listeners have duplicates
		if err != nil {
			closeListeners(all)
			all = nil
		}
	}()
	unix := false
	for _, addr := range addrs {
		if addr == "" { // which net.Listen takes for a free port of all addresses
			return all, errors.New("--addr requires HOST:PORT, such as :5000 for all addresses of this machine")
		}
		var l net.Listener
		if name, ok := strings.CutPrefix(addr, systemdPrefix); ok {
			var more []net.Listener
			more, passed, err = takePassed(passed, name)
			all = append(all, more...)
			if err != nil {
				return all, fmt.Errorf("--addr=%s: %w", addr, err)
			}
			continue
		}
		if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
			unix = true
			if l, err = listenUnix(path, mode); err != nil {
				return all, fmt.Errorf("--addr=%s: %w", addr, err)
			}
		} else if l, err = net.Listen("tcp", addr); err != nil {
			return all, err
		}
		all = append(all, l)
	}
	switch {
	case len(all) == 0:
		return nil, errors.New("--addr requires an address")
	case mode != 0 && !unix:
		return all, errors.New("--socket-mode requires --addr=unix:PATH")
	case len(passed) > 0:
		return all, fmt.Errorf("no --addr=systemd: uses the socket %s that systemd has passed", passed[0].Name())
	}
	return all, nil
}

// takePassed returns listeners for the files with the given name, or for all if it is
// empty, and the other files.
func takePassed(passed []*os.File, name string) (all []net.Listener, rest []*os.File, err error) {
	for _, f := range passed {
		if name != "" && f.Name() != name || err != nil {
			rest = append(rest, f)
			continue
		}
		var l net.Listener
		if l, err = net.FileListener(f); err != nil {
			err = fmt.Errorf("the socket %s is not one of TCP or a unix socket for streams: %w", f.Name(), err)
		} else {
			all = append(all, l)
		}
		f.Close()
	}
	if err == nil && all == nil {
		err = errors.New("systemd has passed no such socket: this requires socket activation, see systemd.socket(5)")
	}
	return all, rest, err
}

// listenUnix listens on a unix socket, and replaces one that nobody listens on.
func listenUnix(path string, mode socketMode) (net.Listener, error) {
	if path == "" || path[0] == '@' {
		return nil, errors.New("a unix socket requires a path: an abstract one has no permissions")
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	if mode == 0 {
		mode = defaultSocketMode
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return restrict(c, mode) }}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, fs.FileMode(mode)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket that a process has left behind.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("the file exists and is not a socket")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return errors.New("another process listens on the socket")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("the socket may be in use: %w", err)
	}
	if again, err := os.Lstat(path); err != nil || !os.SameFile(info, again) {
		return errors.New("another process has replaced the socket")
	}
	return os.Remove(path)
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func closeListeners(all []net.Listener) {
	for _, l := range all {
		l.Close()
	}
}

// isUnix reports whether addr is that of a unix socket.
func isUnix(addr net.Addr) bool {
	_, ok := addr.(*net.UnixAddr)
	return ok
}

// publicAddr returns the first address that clients on other machines can reach, or nil.
func publicAddr(all []net.Listener) net.Addr {
	for _, l := range all {
		if addr := l.Addr(); !isUnix(addr) && !isLoopback(addr) {
			return addr
		}
	}
	return nil
}

// onLoopback reports whether web pages on this machine, but no other machines, can
// reach the listeners: browsers send no requests to unix sockets.
func onLoopback(all []net.Listener) bool {
	for _, l := range all {
		if isLoopback(l.Addr()) {
			return publicAddr(all) == nil
		}
	}
	return false
}

// urls returns the addresses of listeners: with a scheme, except those of unix sockets.
func urls(all []net.Listener, scheme string) []string {
	var list []string
	for _, l := range all {
		if addr := l.Addr(); isUnix(addr) {
			list = append(list, unixPrefix+addr.String())
		} else {
			list = append(list, scheme+addr.String())
		}
	}
	return list
}

// serveAll serves on all listeners, by TLS unless t is nil. The result has the first
// error of each.
func serveAll(ctx context.Context, server *http.Server, all []net.Listener, t *serverTLS) <-chan error {
	done := make(chan error, len(all))
	if t != nil {
		server.TLSConfig = t.config
		go t.start(ctx)
	}
	for _, l := range all {
		go func() {
			if t != nil {
				done <- server.ServeTLS(l, "", "")
			} else {
				done <- server.Serve(l)
			}
		}()
	}
	return done
}

// scheme returns the scheme of the server's URLs.
func scheme(t *serverTLS) string {
	if t != nil {
		return "https://"
	}
	return "http://"
}
