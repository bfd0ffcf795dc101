// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func skipOnWindows(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has neither systemd nor the modes of files")
	}
}

// TestListenUnix checks which files a unix socket replaces, and its mode.
func TestListenUnix(t *testing.T) {
	skipOnWindows(t)
	for _, test := range []struct {
		name    string
		prepare func(path string) (io.Closer, error)
		mode    socketMode
		want    fs.FileMode
		err     string
	}{
		{"new", nil, 0, 0o660, ""},
		{"mode", nil, 0o600, 0o600, ""},
		{"mode_beyond_the_umask", nil, 0o777, 0o777, ""},
		{"stale", func(path string) (io.Closer, error) {
			l, err := net.Listen("unix", path)
			if err != nil {
				return nil, err
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			return nil, l.Close()
		}, 0, 0o660, ""},
		{"in_use", func(path string) (io.Closer, error) { return net.Listen("unix", path) }, 0, 0, "another process listens on the socket"},
		{"file", func(path string) (io.Closer, error) { return os.Create(path) }, 0, 0, "the file exists and is not a socket"},
		{"link_to_a_file", func(path string) (io.Closer, error) { return nil, os.Symlink(path+".none", path) }, 0, 0, "the file exists and is not a socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if test.prepare != nil {
				closer, err := test.prepare(path)
				if err != nil {
					t.Fatal(err)
				}
				if closer != nil {
					defer closer.Close()
				}
			}
			all, err := listen([]string{unixPrefix + path}, test.mode)
			if test.err != "" {
				if want := "--addr=unix:" + path + ": " + test.err; err == nil || err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
				if _, err := os.Lstat(path); err != nil {
					t.Errorf("the file was removed: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != test.want {
				t.Errorf("mode %v, want %v: %v", info.Mode(), test.want, err)
			}
			closeListeners(all)
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket was not removed: %v", err)
			}
		})
	}
}

// TestListenErrors checks the messages for addresses, and that no listener stays open.
func TestListenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, test := range []struct {
		addrs []string
		mode  socketMode
		want  string
	}{
		{nil, 0, "--addr requires an address"},
		{[]string{""}, 0, `--addr requires HOST:PORT, such as :5000 for all addresses of this machine`},
		{[]string{"unix:"}, 0, "--addr=unix:: a unix socket requires a path: an abstract one has no permissions"},
		{[]string{"unix:@name"}, 0, "--addr=unix:@name: a unix socket requires a path: an abstract one has no permissions"},
		{[]string{"127.0.0.1:0"}, 0o600, "--socket-mode requires --addr=unix:PATH"},
		{[]string{"unix:" + path, "systemd:"}, 0, "--addr=systemd:: systemd has passed no such socket: this requires socket activation, see systemd.socket(5)"},
		{[]string{"unix:" + path, "127.0.0.1"}, 0, "listen tcp: address 127.0.0.1: missing port in address"},
	} {
		if all, err := listen(test.addrs, test.mode); err == nil || err.Error() != test.want || all != nil {
			t.Errorf("%v: %v, want %s", test.addrs, err, test.want)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: the socket was not removed: %v", test.addrs, err)
		}
	}
}

// TestReach checks which listeners need no users, and which need checks of the host.
func TestReach(t *testing.T) {
	loopback := addrListener{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	public := addrListener{addr: &net.TCPAddr{IP: net.IPv4zero}}
	unix := addrListener{addr: &net.UnixAddr{Name: "/s"}}
	for _, test := range []struct {
		name     string
		all      []net.Listener
		public   net.Addr
		loopback bool
	}{
		{"loopback", []net.Listener{loopback}, nil, true},
		{"public", []net.Listener{public}, public.addr, false},
		{"unix", []net.Listener{unix}, nil, false},
		{"unix_and_loopback", []net.Listener{unix, loopback}, nil, true},
		{"loopback_and_public", []net.Listener{loopback, public}, public.addr, false},
	} {
		if got := publicAddr(test.all); got != test.public {
			t.Errorf("%s: publicAddr is %v", test.name, got)
		}
		if got := onLoopback(test.all); got != test.loopback {
			t.Errorf("%s: onLoopback is %v", test.name, got)
		}
	}
}
