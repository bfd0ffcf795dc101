// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Bounds of the command, as go build makes it. A dependency that exceeds them is not
// worth its price to those who use the command in tests. If something calls
// reflect.Value.MethodByName, the linker keeps all methods, and the command grows by 10 MB:
// go build -o /dev/null -ldflags=-dumpdep . 2>&1 | grep ReflectMethod
const (
	maxBinary   = 35_000_000 // bytes
	maxResident = 18 << 10   // KiB, of berth serve at rest
)

// TestSize builds the command, and measures it: its size, and what berth serve needs at
// rest. It prints how long the command takes to listen.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the command")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "berth")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxBinary {
		t.Errorf("the command has %d bytes, more than %d: see go version -m and go tool nm -size -sort size", info.Size(), maxBinary)
	}
	const runs = 5
	resident, start := 0, time.Hour
	for range runs {
		r, s := measure(t, program)
		resident, start = max(resident, r), min(start, s)
	}
	if resident > maxResident {
		t.Errorf("berth serve needs %d KiB at rest, more than %d: see GODEBUG=inittrace=1", resident, maxResident)
	}
	t.Logf("%d bytes, %d KiB at rest, listens after %v at best", info.Size(), resident, start.Round(time.Millisecond/10))
}

// measure runs berth serve, and returns how many KiB are resident at rest, and how long
// it takes to listen.
func measure(t *testing.T, program string) (resident int, start time.Duration) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // an unused port
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(program, "serve", "--addr="+addr, "--log-level=error")
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			start = time.Since(begin)
			conn.Close()
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("berth serve does not listen")
		}
		time.Sleep(100 * time.Microsecond)
	}
	time.Sleep(500 * time.Millisecond) // until what the start needed is idle
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		if value, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			if _, err := fmt.Sscanf(value, "%d kB", &resident); err != nil {
				t.Fatal(err)
			}
			return resident, start
		}
	}
	t.Fatal("this system does not tell what is resident")
	return 0, 0
}
