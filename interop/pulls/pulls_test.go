// SPDX-License-Identifier: Apache-2.0

//go:build linux

package pulls

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/interop/internal/child"
	"github.com/berth-oci/registry/ocidir"
)

var (
	cost   = flag.Bool("cost", false, "compare the processor time of pulls of 512 MiB")
	rounds = flag.Int("rounds", 9, "number of rounds of -cost")
)

const mib = 1 << 20

// filesVariable is the folder that the process serves instead of running tests.
const filesVariable = "BERTH_PULLS_FILES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(filesVariable); dir != "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(listener.Addr())
		log.Fatal(http.Serve(listener, http.FileServer(http.Dir(dir))))
	}
	os.Exit(m.Run())
}

// server serves one file, in a process of its own.
type server struct {
	url    string
	cmd    *exec.Cmd
	client *http.Client
}

// startFileServer starts an http.FileServer.
func startFileServer(t *testing.T, dir, name string) *server {
	t.Helper()
	cmd := child.Self(filesVariable + "=" + dir)
	return newServer(t, "http://"+child.Start(t, cmd)+name, cmd)
}

// startBerth starts berth serve with its defaults, the request log included.
func startBerth(t *testing.T, dir string, d digest.Digest, flags ...string) *server {
	t.Helper()
	s := berth.Start(t, append([]string{"--store=dir:" + dir}, flags...)...)
	return newServer(t, "http://"+s.Addr+"/v2/a/blobs/"+d.String(), s.Cmd)
}

func newServer(t *testing.T, url string, cmd *exec.Cmd) *server {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &server{url, cmd, &http.Client{Transport: transport}}
}

// newStore returns a directory with a blob of random bytes.
func newStore(t *testing.T, size int64) (dir string, d digest.Digest) {
	t.Helper()
	dir = t.TempDir()
	content := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), size) }
	d, err := digest.FromReader(content())
	qt.Assert(t, qt.IsNil(err))
	store, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), store, "a", d, content())))
	qt.Assert(t, qt.IsNil(store.Close()))
	return dir, d
}

// pull gets size bytes of the server's file: all of them, if byteRange is "".
func (s *server) pull(t *testing.T, size int64, byteRange string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url, nil)
	qt.Assert(t, qt.IsNil(err))
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	resp, err := s.client.Do(req)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	got, buf := int64(0), make([]byte, mib)
	for err == nil {
		var n int
		n, err = resp.Body.Read(buf)
		got += int64(n)
	}
	qt.Assert(t, qt.Equals(err, io.EOF))
	qt.Assert(t, qt.Equals(got, size), qt.Commentf("%s", resp.Status))
}

// cpu returns the processor time that the server has used, in seconds.
func (s *server) cpu(t *testing.T) float64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	qt.Assert(t, qt.IsNil(err))
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.ParseFloat(fields[11], 64)
	qt.Assert(t, qt.IsNil(err))
	system, err := strconv.ParseFloat(fields[12], 64)
	qt.Assert(t, qt.IsNil(err))
	return (user + system) / 100 // USER_HZ
}

// reads returns the number of system calls by which the server has read: read(2) and
// the like, and sendfile(2).
func (s *server) reads(t *testing.T) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	qt.Assert(t, qt.IsNil(err))
	_, rest, _ := strings.Cut(string(stat), "syscr:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	qt.Assert(t, qt.IsNil(err))
	return n
}

// TestReads counts the system calls by which berth serve reads a blob.
func TestReads(t *testing.T) {
	const size = 8 * mib
	dir, d := newStore(t, size)
	for _, c := range []struct {
		byteRange string
		want      int64
	}{
		{"", size},
		{"bytes=7-", size - 7},
		{"bytes=1048576-6291455", 5 * mib},
	} {
		s := startBerth(t, dir, d)
		s.pull(t, 1, "bytes=0-0") // opens the connection
		before := s.reads(t)
		s.pull(t, c.want, c.byteRange)
		if n := s.reads(t) - before; n > maxCalls {
			t.Errorf("%q: %d system calls to read %d bytes", c.byteRange, n, c.want)
		}
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// maxCalls allows for a socket that takes the blob in small parts. With a buffer of
// 32 KiB, a blob of 8 MiB takes 256 calls.
const maxCalls = 100

// TestSystemCalls counts the system calls of a pull with strace.
func TestSystemCalls(t *testing.T) {
	const size = 8 * mib
	dir, d := newStore(t, size)
	s := startBerth(t, dir, d)
	calls := s.trace(t, func() { s.pull(t, size, "") })
	t.Log(calls)
	qt.Check(t, qt.IsTrue(calls["sendfile"] > 0), qt.Commentf("%v", calls))
	all := 0
	for _, n := range calls {
		all += n
	}
	qt.Check(t, qt.IsTrue(all <= maxCalls), qt.Commentf("%v", calls))
}

// trace returns the number of system calls of the server, during f, that may move
// content.
func (s *server) trace(t *testing.T, f func()) map[string]int {
	t.Helper()
	name := filepath.Join(t.TempDir(), "calls")
	cmd := exec.Command("strace", "-f", "-c", "-U", "calls,name", "-o", name,
		"-e", "trace=read,pread64,readv,write,pwrite64,writev,sendto,sendmsg,sendfile,splice", "-p", strconv.Itoa(s.cmd.Process.Pid))
	stderr, err := cmd.StderrPipe()
	qt.Assert(t, qt.IsNil(err))
	if err := cmd.Start(); err != nil {
		skip(t, err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil || !strings.Contains(line, "attached") {
		cmd.Wait()
		skip(t, line, err)
	}
	go io.Copy(io.Discard, stderr)
	f()
	qt.Assert(t, qt.IsNil(cmd.Process.Signal(os.Interrupt)))
	cmd.Wait() // strace ends itself by the signal

	table, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	calls := make(map[string]int)
	for line := range strings.Lines(string(table)) {
		var n int
		var call string
		if _, err := fmt.Sscan(line, &n, &call); err == nil && call != "total" {
			calls[call] = n
		}
	}
	return calls
}

// skip skips a test that strace can't run for, except in CI.
func skip(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// TestCost compares the processor time of pulls from berth serve with that of
// http.FileServer. The servers take turns; both serve the same file.
func TestCost(t *testing.T) {
	size, pulls := int64(512*mib), 4
	if !*cost {
		size, pulls, *rounds = mib, 1, 1
	}
	dir, d := newStore(t, size)
	files := startFileServer(t, dir, "/a/blobs/sha256/"+d.Encoded())
	registry := startBerth(t, dir, d)
	servers := []*server{files, registry}
	var ratios []float64
	var total [2]float64
	for round := range *rounds + 1 { // the first one is a warm-up
		var used [2]float64
		var reads [2]int
		for i := range servers {
			i = (i + round) % 2
			s := servers[i]
			before, readsBefore := s.cpu(t), s.reads(t)
			for range pulls {
				s.pull(t, size, "")
			}
			used[i], reads[i] = s.cpu(t)-before, s.reads(t)-readsBefore
		}
		if round == 0 || !*cost {
			continue
		}
		t.Logf("round %d: %d pulls of 512 MiB: FileServer %.2f s, %d reads; berth %.2f s, %d reads; ratio %.2f",
			round, pulls, used[0], reads[0], used[1], reads[1], used[1]/used[0])
		ratios = append(ratios, used[1]/used[0])
		total[0], total[1] = total[0]+used[0], total[1]+used[1]
	}
	if *cost {
		slices.Sort(ratios)
		t.Logf("processor time of berth serve relative to http.FileServer: in all %.3f, median %.2f, from %.2f to %.2f (%d CPUs)",
			total[1]/total[0], ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1], runtime.NumCPU())
	}
}
