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

// Main runs a package's tests, and fails them if goroutines are left that
// they began:
//
//	func TestMain(m *testing.M) { leak.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if left := wait(5 * time.Second); left != "" {
			fmt.Fprintf(os.Stderr, "goroutines left by the tests:\n\n%s\n", left)
			code = 1
		}
	}
	os.Exit(code)
}

// wait returns the stacks of the goroutines that are still there after the
// given time: those that end do so at once, but not at the same instant.
func wait(most time.Duration) (left string) {
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(most); ; time.Sleep(10 * time.Millisecond) {
		if left = others(); left == "" || time.Now().After(deadline) {
			return left
		}
	}
}

// others returns the stacks of all goroutines but this one, the first, and
// those of the testing package and the runtime.
func others() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var all []string
	for i, stack := range strings.Split(string(stacks), "\n\n") {
		system := strings.HasPrefix(stack, "goroutine 1 ") || strings.Contains(stack, "os/signal.loop") || strings.Contains(stack, "created by testing.") || strings.Contains(stack, "created by runtime.")
		if i > 0 && !system {
			all = append(all, stack)
		}
	}
	return strings.Join(all, "\n\n")
}
