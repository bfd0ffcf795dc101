// SPDX-License-Identifier: Apache-2.0

//go:build linux

package crash

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

var (
	reloads     = flag.Int("reloads", 10, "the number of reloads in TestReloads")
	reloadConns = flag.Int("reload-connections", 200, "the number of connections in TestReloads")
)

// TestReloads reloads the configuration while clients use their connections. None of
// them is closed, and no request fails.
func TestReloads(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users.yaml")
	write := func(n int) {
		t.Helper()
		config := fmt.Sprintf("user: ['alice:secret', 'user%d:secret']\nquotas: [{bytes: %d}]\n", n, 1<<30+n)
		qt.Assert(t, qt.IsNil(os.WriteFile(users+".new", []byte(config), 0o600)))
		qt.Assert(t, qt.IsNil(os.Rename(users+".new", users)))
	}
	write(0)
	s := berth.Start(t, "--config="+users, fmt.Sprintf("--connections=%d", *reloadConns+100), "--log-level=error")
	stop := make(chan struct{})
	var requests, failures atomic.Int64
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	for n := range *reloadConns {
		wg.Add(1)
		ready.Add(1)
		go func() {
			defer wg.Done()
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Errorf("connection %d: %v", n, err)
				ready.Done()
				return
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			for i := 0; ; i++ {
				// alice:secret
				fmt.Fprint(conn, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if i == 0 {
					ready.Done()
				}
				if err != nil || resp.StatusCode != http.StatusOK {
					failures.Add(1)
					t.Errorf("connection %d: %v %v", n, resp, err)
					return
				}
				resp.Body.Close()
				requests.Add(1)
				select {
				case <-stop:
					return
				case <-time.After(200 * time.Millisecond):
				}
			}
		}()
	}
	ready.Wait()
	status := func(n int) int {
		r, _ := http.NewRequest("GET", "http://"+s.Addr+"/v2/", nil)
		r.SetBasicAuth(fmt.Sprintf("user%d", n), "secret")
		resp, err := http.DefaultClient.Do(r)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		return resp.StatusCode
	}
	for n := 1; n <= *reloads && failures.Load() == 0; n++ {
		write(n)
		qt.Assert(t, qt.IsNil(s.Cmd.Process.Signal(syscall.SIGHUP)))
		for i := 0; status(n) != http.StatusOK; i++ {
			qt.Assert(t, qt.IsTrue(i < 1000))
			time.Sleep(10 * time.Millisecond)
		}
		qt.Assert(t, qt.Equals(status(n-1), http.StatusUnauthorized))
	}
	close(stop)
	wg.Wait()
	t.Logf("%d reloads, %d connections, %d requests, %d failures", *reloads, *reloadConns, requests.Load(), failures.Load())
}
