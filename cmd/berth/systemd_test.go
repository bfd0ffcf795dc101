// SPDX-License-Identifier: Apache-2.0

// Socket activation and notifications.

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child is a berth serve that was started by startServe.
type child struct {
	*exec.Cmd
	addrs  []string
	exited chan struct{}
	err    error // once it has exited
	stderr syncBuffer
}

// startServe starts a command, which must run berth serve with --addr-file=addrFile, and
// waits until it serves.
func startServe(t *testing.T, cmd *exec.Cmd, addrFile string) *child {
	t.Helper()
	c := &child{Cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = &c.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-c.exited
		if t.Failed() {
			t.Logf("the log of %v: %s", cmd.Args, &c.stderr)
		}
	})
	addr, err := waitForFile(addrFile)
	if err != nil {
		t.Fatal(err)
	}
	c.addrs = strings.Split(addr, "\n")
	return c
}

// logged waits until the log contains a text.
func (c *child) logged(t *testing.T, text string) {
	t.Helper()
	for range 500 {
		if strings.Contains(c.stderr.String(), text) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the log has no %s", text)
}

// stop sends SIGTERM and waits for the end.
func (c *child) stop(t *testing.T) {
	t.Helper()
	c.Process.Signal(syscall.SIGTERM)
	if <-c.exited; c.err != nil {
		t.Error(c.err)
	}
}

// getVia sends a request to a host at an address of berth serve.
func getVia(addr, host string) (status int, err error) {
	network, name := "tcp", addr
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		network, name = "unix", path
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, name)
	}}
	resp, err := (&http.Client{Transport: transport}).Get("http://" + host + "/v2/")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return resp.StatusCode, nil
}

// activate returns a command that runs berth serve with the given listeners as systemd
// does: a shell knows its process ID, which exec keeps.
func activate(t *testing.T, names string, sockets []net.Listener, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec berth serve "$@"`, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	for _, l := range sockets {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return cmd
}

// TestSocketActivation passes sockets to berth serve, and checks that it serves them, that
// their connections queue while it restarts, and that it does not remove them.
func TestSocketActivation(t *testing.T) {
	skipOnWindows(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	sockets := []net.Listener{tcp, unix}
	wantTCP, wantUnix := tcp.Addr().String(), unixPrefix+path
	for _, test := range []struct {
		name  string
		args  []string
		addrs []string // nil if it fails
		err   string
	}{
		{"all", []string{"--addr=systemd:"}, []string{wantTCP, wantUnix}, ""},
		{"by_name", []string{"--addr=systemd:local", "--addr=systemd:web"}, []string{wantUnix, wantTCP}, ""},
		{"unused", []string{"--addr=systemd:local"}, nil, "no --addr=systemd: uses the socket web that systemd has passed"},
		{"no_flag", nil, nil, "no --addr=systemd: uses the socket web that systemd has passed"},
		{"no_such_name", []string{"--addr=systemd:other"}, nil, "--addr=systemd:other: systemd has passed no such socket"},
		{"twice", []string{"--addr=systemd:", "--addr=systemd:web"}, nil, "--addr=systemd:web: systemd has passed no such socket"},
		{"mode", []string{"--addr=systemd:", "--socket-mode=600"}, nil, "--socket-mode requires --addr=unix:PATH"},
	} {
		t.Run(test.name, func(t *testing.T) {
			addrFile := filepath.Join(t.TempDir(), "addr")
			cmd := activate(t, "web:local", sockets, append(test.args, "--addr-file="+addrFile)...)
			if test.addrs == nil {
				if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), test.err) {
					t.Errorf("%v: %s, want %q", err, out, test.err)
				}
				return
			}
			c := startServe(t, cmd, addrFile)
			if got := strings.Join(c.addrs, " "); got != strings.Join(test.addrs, " ") {
				t.Errorf("serves %s, want %s", got, test.addrs)
			}
			for _, addr := range c.addrs {
				if status, err := getVia(addr, "localhost"); status != 200 {
					t.Errorf("%s: %d %v", addr, status, err)
				}
			}
			// A page on this machine can't reach a unix socket, so any host is fine there.
			if status, err := getVia(wantTCP, "registry.example"); status != 421 {
				t.Errorf("TCP: %d %v", status, err)
			}
			if status, err := getVia(wantUnix, "registry.example"); status != 200 {
				t.Errorf("unix: %d %v", status, err)
			}
			c.stop(t)
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the socket of systemd was removed: %v", err)
			}
		})
	}
}

// TestSystemdSocketActivate uses systemd's own program, which starts berth serve when the
// first client connects.
func TestSystemdSocketActivate(t *testing.T) {
	program, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("no systemd-socket-activate")
	}
	path := filepath.Join(t.TempDir(), "s")
	berth, err := exec.LookPath("berth")
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd := exec.Command(program, "--listen="+path, "--fdname=registry", "--setenv=PATH", berth, "serve", "--addr=systemd:registry")
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM) // it is berth serve now
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%v\n%s", err, &stderr)
		}
	}()
	for range 500 {
		if status, err := getVia(unixPrefix+path, "localhost"); status == 200 {
			return
		} else if err == nil {
			t.Fatal(status)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("it does not serve")
}

// TestNotify checks the messages that systemd gets.
func TestNotify(t *testing.T) {
	skipOnWindows(t)
	socket := filepath.Join(t.TempDir(), "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1000)
	receive := func() string {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}

	addrFile := filepath.Join(t.TempDir(), "addr")
	cmd := exec.Command("berth", "serve", "--addr=127.0.0.1:0", "--addr-file="+addrFile)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=50000")
	c := startServe(t, cmd, addrFile)
	// The order of READY=1 and the first WATCHDOG=1 does not matter to systemd.
	count := map[string]int{}
	for count["READY=1"] < 1 || count["WATCHDOG=1"] < 3 {
		count[receive()]++
	}
	c.Process.Signal(syscall.SIGHUP)
	for count["READY=1"] < 2 {
		message, monotonic, _ := strings.Cut(receive(), "\n")
		if count[message]++; message == "RELOADING=1" && !strings.HasPrefix(monotonic, "MONOTONIC_USEC=") {
			t.Errorf("RELOADING=1 with %q", monotonic)
		}
	}
	c.Process.Signal(syscall.SIGTERM)
	for count["STOPPING=1"] < 1 {
		count[receive()]++
	}
	if <-c.exited; c.err != nil {
		t.Error(c.err)
	}
	if len(count) != 4 || count["READY=1"] != 2 || count["RELOADING=1"] != 1 {
		t.Error(count)
	}
}
