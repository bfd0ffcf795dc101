// SPDX-License-Identifier: Apache-2.0

// Package leak finds goroutines that a package's tests leave behind.
package leak

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Main runs a package's tests, and fails if goroutines that they started are still
// running afterwards:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if stacks := wait(5 * time.Second); stacks != "" {
			fmt.Fprintf(os.Stderr, "goroutines left behind by the tests:\n\n%s\n", stacks)
			code = 1
		}
	}
	os.Exit(code)
}

// wait waits until no other goroutines are running, and returns the stacks of those
// that are still running after the timeout. A goroutine may need a moment to end
// after the test that started it.
func wait(timeout time.Duration) string {
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		if stacks := otherStacks(); stacks == "" || time.Now().After(deadline) {
			return stacks
		}
	}
}

// otherStacks returns the stacks of all goroutines except the calling one, the main
// one, and those of the testing package and the runtime.
func otherStacks() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var stacks []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		system := strings.HasPrefix(stack, "goroutine 1 ") ||
			strings.Contains(stack, "os/signal.loop") ||
			strings.Contains(stack, "created by testing.") ||
			strings.Contains(stack, "created by runtime.")
		if i > 0 && !system { // the first stack is the caller's
			stacks = append(stacks, stack)
		}
	}
	return strings.Join(stacks, "\n\n")
}
