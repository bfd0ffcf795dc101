// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Servers that keep their content in a directory.

package compare

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/interop/internal/child"
)

// dirVariable is the environment variable with the directory of a server that keeps
// its content on disk.
const dirVariable = "BERTH_COMPARE_DIR"

// newDiskHandler returns the handler of a kind of server that keeps its content in
// dir. The process ends at SIGTERM, after the server has written everything.
func newDiskHandler(kind, dir string) http.Handler {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	stop := func() error { return nil }
	var h http.Handler
	switch kind {
	case "olareg":
		yes := true
		// Garbage collection is no part of the requests measured.
		s := olareg.New(config.Config{
			Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: dir, GC: config.ConfigGC{Frequency: -1}},
			API:     config.ConfigAPI{DeleteEnabled: &yes, Blob: config.ConfigAPIBlob{DeleteEnabled: &yes}},
		})
		h, stop = s, s.Close
	case "distribution":
		h = newDistribution(configuration.Storage{
			"filesystem":  configuration.Parameters{"rootdirectory": dir},
			"cache":       configuration.Parameters{"blobdescriptor": "inmemory"},
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		})
	default:
		panic("unknown server " + kind)
	}
	go func() {
		<-end
		if err := stop(); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}()
	return h
}

// disk is a server with its directory. At most one process serves it at a time.
type disk struct {
	kind   string
	dir    string
	filled int  // the manifests in each repository, besides those that measurements pushed
	full   bool // a fill took too long

	measured map[string]*counts // by repository
}

// counts counts the manifests that measurements have pushed to a repository.
type counts struct {
	next   int // the number of the next one
	pushed int // those that are to be deleted, which end before next
	left   int // others that have not been deleted
}

func newDisk(t testing.TB, kind string) *disk {
	t.Helper()
	return &disk{kind: kind, dir: t.TempDir(), measured: map[string]*counts{
		growing:  {next: firstPush},
		referred: {next: firstPush},
	}}
}

// start starts the server, and waits until it responds. It returns the time that
// this took.
func (d *disk) start(t testing.TB) (*server, time.Duration) {
	t.Helper()
	cmd := d.command(t)
	begin := time.Now()
	line := child.Start(t, cmd)
	_, addr, found := strings.Cut(line, "http://")
	if !found {
		addr = line
	}
	s := &server{d.kind, addr, cmd}
	c := s.connect(t)
	defer c.Close()
	if _, err := c.want(200, "GET", "/v2/", nil); err != nil {
		t.Fatal(err)
	}
	return s, time.Since(begin)
}

// command returns the command that serves d, and prints its address.
func (d *disk) command(t testing.TB) *exec.Cmd {
	t.Helper()
	if d.kind == "berth" {
		binary, err := berth.Build()
		if err != nil {
			t.Fatal(err)
		}
		return exec.Command(binary, "serve", "--addr=127.0.0.1:0", "--log-level=error", "--store=dir:"+d.dir)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), kindVariable+"="+d.kind, dirVariable+"="+d.dir)
	return cmd
}

// maxConn is the time after which a connection fails, since a server hangs.
const maxConn = 15 * time.Minute

// connect returns a connection to the server, which closes when the test ends.
func (s *server) connect(t testing.TB) *conn {
	t.Helper()
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(maxConn))
	return c
}

// written holds counters of /proc/<pid>/io.
type written struct {
	chars int64 // wchar: bytes passed to write, responses included
	disk  int64 // write_bytes: bytes that must reach the disk, in whole pages
}

func (w written) minus(v written) written { return written{w.chars - v.chars, w.disk - v.disk} }

// written returns the counters of the server, which may have exited but must not
// have been waited for.
func (s *server) written(t testing.TB) written {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var w written
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		switch name {
		case "wchar":
			w.chars = n
		case "write_bytes":
			w.disk = n
		}
	}
	return w
}

// maxStop is the maximum time that a server may take to exit after SIGTERM.
const maxStop = 2 * time.Minute

// stop ends the server with SIGTERM, and returns its final counters.
func (s *server) stop(t testing.TB) written {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The counters of a process that has exited can be read until it is waited for.
	for deadline := time.Now().Add(maxStop); !s.exited(t); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s still runs %v after SIGTERM", s.kind, maxStop)
		}
	}
	w := s.written(t)
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%s: %v", s.kind, err)
	}
	return w
}

// exited reports whether the process has exited. It need not have been waited for.
func (s *server) exited(t testing.TB) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')'):]), ") Z")
}
