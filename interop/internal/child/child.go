// SPDX-License-Identifier: Apache-2.0

// Package child runs servers in processes of their own for tests.
package child

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Self returns a command that runs the test's binary again, with further environment
// variables such as "NAME=value", by which its TestMain learns what to do.
func Self(env ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// Start starts a command, and kills it when the test ends. It returns the first line
// that the command prints, which tells its address.
func Start(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	if cmd.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%s did not print a line: %v", cmd, err)
	}
	return strings.TrimSpace(line)
}
