// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// namespaceVariable is set in a process with its own mount namespace.
const namespaceVariable = "BERTH_CRASH_NAMESPACE"

// inNamespace reports whether the test runs in a process with its own mount
// namespace, so that no mount outlives it. If not, inNamespace runs it in one. It
// skips the test if it may not mount, or if a file or a program is missing.
func inNamespace(t *testing.T, files []string, programs ...string) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) != "" {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount file systems")
	}
	for _, name := range files {
		if _, err := os.Stat(name); err != nil {
			t.Skip(err)
		}
	}
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the process is killed when this thread ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self, append(os.Args[1:], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.testlogfile=")...)
	cmd.Env = append(os.Environ(), namespaceVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		t.Skipf("cannot create a mount namespace: %v", err)
	case err != nil:
		t.Fatalf("%v:\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("\n%s", out)
	}
	t.Logf("\n%s", out)
	return false
}

// mount mounts a file system, and unmounts it when the test ends, if not before.
func mount(t *testing.T, args ...string) error {
	t.Helper()
	if err := run("mount", args...); err != nil {
		return err
	}
	dir := args[len(args)-1]
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return nil
}

// run runs a program.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
