// SPDX-License-Identifier: Apache-2.0

package bounds

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

var (
	full = flag.Bool("full", false, "run the floods in full")
	soak = flag.Duration("soak", 3*time.Second, "how long TestSoak runs")
)

// scale is a number of a flood, a fiftieth of it where there is no time.
func scale(n int) int {
	if *full {
		return n
	}
	return n / 50
}

// berth is a running berth serve.
type berth struct {
	addr string
	pid  int
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "berth")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/berth-oci/registry/cmd/berth")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

// serve starts berth serve with the given flags, until the test ends. Nothing
// may go wrong in it: what it logs at level error fails the test.
func serve(t *testing.T, flags ...string) berth {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	binary, err := build()
	qt.Assert(t, qt.IsNil(err))
	addrFile := filepath.Join(t.TempDir(), "addr")
	cmd := exec.Command(binary, append([]string{"serve", "--addr=127.0.0.1:0", "--addr-file=" + addrFile, "--log-level=error"}, flags...)...)
	var log bytes.Buffer
	cmd.Stderr = &log
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		qt.Check(t, qt.Equals(log.String(), ""))
	})
	for range 500 {
		if addr, err := os.ReadFile(addrFile); err == nil {
			return berth{strings.TrimSpace(string(addr)), cmd.Process.Pid}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("berth serve did not start: %s", log.String())
	panic("unreachable")
}

// memory returns a line of /proc/<pid>/status: VmRSS, or VmHWM, its peak.
func (b berth) memory(t *testing.T, line string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
	qt.Assert(t, qt.IsNil(err))
	_, rest, ok := strings.Cut(string(status), line+":")
	qt.Assert(t, qt.IsTrue(ok))
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	qt.Assert(t, qt.IsNil(err))
	return kib << 10
}

// client has its own connections, as many as are asked for.
func client(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// send sends a request, and returns the status and the header of the answer.
func (b berth) send(t *testing.T, c *http.Client, method, path, contentType string, body []byte) (int, http.Header) {
	req, err := http.NewRequest(method, "http://"+b.addr+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	if resp.StatusCode >= 500 {
		t.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if resp.StatusCode >= 400 && !bytes.HasPrefix(answer, []byte(`{"errors":[`)) {
		t.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	if resp.StatusCode == http.StatusRequestEntityTooLarge && !bytes.Contains(answer, []byte("limit")) {
		t.Errorf("%s %s does not say which limit: %s", method, path, answer)
	}
	return resp.StatusCode, resp.Header
}
