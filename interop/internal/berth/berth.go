// SPDX-License-Identifier: Apache-2.0

// Package berth runs the berth command for tests.
package berth

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Build builds the command, once per process, and returns its path. It is in Go's build
// cache, so that packages share it and nothing remains in the temporary folder: go run
// keeps what it links there, and runs it there from the second time on.
var Build = sync.OnceValues(func() (path string, err error) {
	for range 3 {
		out, err := exec.Command("go", "run", "-exec", "echo", "github.com/berth-oci/registry/cmd/berth").Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				err = fmt.Errorf("%w: %s", err, exit.Stderr)
			}
			return "", err
		}
		path = strings.TrimSpace(string(out))
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("go run has not kept %s", path)
})

// Server is a running berth serve.
type Server struct {
	Addr string // host:port
	Cmd  *exec.Cmd
	Log  *bytes.Buffer // must not be read before the process has exited
}

// Serve starts berth serve with the given flags, and kills it when the test
// ends. The test fails if the server has logged an error.
func Serve(t testing.TB, flags ...string) *Server {
	t.Helper()
	s := Start(t, append([]string{"--log-level=error"}, flags...)...)
	t.Cleanup(func() {
		s.Kill()
		if log := s.Log.String(); log != "" {
			t.Errorf("berth serve: %s", log)
		}
	})
	return s
}

// Start starts berth serve with the given flags, and kills it when the test
// ends.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	binary, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	addrFile := filepath.Join(t.TempDir(), "addr")
	s := &Server{
		Cmd: exec.Command(binary, append([]string{"serve", "--addr=127.0.0.1:0", "--addr-file=" + addrFile}, flags...)...),
		Log: new(bytes.Buffer),
	}
	s.Cmd.Stderr = s.Log
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	for range 1000 {
		if addr, err := os.ReadFile(addrFile); err == nil {
			s.Addr = strings.TrimSpace(string(addr))
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Kill()
	t.Fatalf("berth serve did not start: %s", s.Log)
	panic("unreachable")
}

// Kill kills the process with SIGKILL, and waits until it has exited.
func (s *Server) Kill() {
	s.Cmd.Process.Kill()
	s.Cmd.Wait()
}

// Memory returns the value of a line of /proc/<pid>/status in bytes: VmRSS, or
// VmHWM for its peak. It skips the test on systems other than Linux.
func (s *Server) Memory(t testing.TB, line string) int64 {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("reading a process's memory requires Linux")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(status), line+":")
	if !ok {
		t.Fatalf("no %s in %s", line, status)
	}
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
