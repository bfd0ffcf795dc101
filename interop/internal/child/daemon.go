// SPDX-License-Identifier: Apache-2.0

package child

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// StartDaemon starts a daemon, which ends with the test, and waits until a command
// succeeds. The test is skipped if the daemon ends, since it can't run here.
func StartDaemon(t testing.TB, daemon *exec.Cmd, ready ...string) {
	t.Helper()
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); daemon.Wait() }()
	t.Cleanup(func() {
		daemon.Process.Signal(syscall.SIGTERM) // it stops its children
		<-ended
		if t.Failed() {
			t.Logf("%s", &log)
		}
	})
	for exec.Command(ready[0], ready[1:]...).Run() != nil {
		select {
		case <-ended:
			t.Skipf("%s can't run here: %s", daemon.Path, &log)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// SocketDir returns a temporary folder for a socket, whose path may not be long.
func SocketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
