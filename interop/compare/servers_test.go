// SPDX-License-Identifier: Apache-2.0

//go:build linux

// The servers under measurement.

package compare

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/sirupsen/logrus"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/interop/internal/child"
)

// kinds lists the servers, raw first. "berth" is the library, "berth serve" the
// command, which also writes a log.
var kinds = []string{"raw", "berth", "berth serve", "ggcr", "cuelabs", "distribution"}

// newHandler returns the handler of a kind of server.
func newHandler(kind string) http.Handler {
	switch kind {
	case "raw":
		return &raw{responses: make(map[string]fixed)}
	case "berth":
		return registry.New()
	case "ggcr":
		return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	case "cuelabs":
		return ociserver.New(ocimem.New(), nil)
	case "distribution":
		return newDistribution(configuration.Storage{"inmemory": configuration.Parameters{}})
	}
	panic("unknown server " + kind)
}

// newDistribution returns distribution's registry with the given storage.
func newDistribution(storage configuration.Storage) http.Handler {
	logrus.SetOutput(io.Discard)
	storage["delete"] = configuration.Parameters{"enabled": true}
	config := &configuration.Configuration{Storage: storage}
	config.Catalog.MaxEntries = 1000
	config.HTTP.RelativeURLs = true
	config.Log.AccessLog.Disabled = true
	config.Log.Level = "panic"
	return handlers.NewApp(context.Background(), config)
}

// raw serves fixed responses, and hashes the bodies of pushes.
type raw struct {
	mu        sync.RWMutex
	responses map[string]fixed // by target
}

// fixed is a fixed response.
type fixed struct {
	mediaType string
	data      []byte
}

func (h *raw) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Query().Has("raw"): // sets the response to this path
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		h.responses[r.RequestURI[:len(r.RequestURI)-len("?raw=1")]] = fixed{r.Header.Get("Content-Type"), data}
		h.mu.Unlock()
	case r.Method == "GET" || r.Method == "HEAD":
		h.mu.RLock()
		a, ok := h.responses[r.RequestURI]
		h.mu.RUnlock()
		if !ok {
			w.WriteHeader(404)
			return
		}
		status := 200
		var first, last int
		if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n == 2 {
			a.data, status = a.data[first:last+1], 206
		}
		w.Header().Set("Content-Type", a.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(a.data)))
		w.WriteHeader(status)
		if r.Method == "GET" {
			w.Write(a.data)
		}
	default:
		hash := sha256.New()
		io.CopyBuffer(hash, r.Body, make([]byte, 32<<10))
		hash.Sum(nil)
		switch {
		case r.Method == "PUT" || r.URL.RawQuery != "":
			w.WriteHeader(201)
		default: // POST, PATCH, DELETE
			w.Header().Set("Location", strings.TrimSuffix(r.URL.Path, "/")+"/x"[:2*b2i(r.Method == "POST")])
			w.WriteHeader(202)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

const (
	kindVariable    = "BERTH_COMPARE_SERVER"   // the kind of server to run instead of tests
	profileVariable = "BERTH_COMPARE_PROFILES" // the folder for CPU profiles of the servers
)

// profile writes a CPU profile to a file, from SIGUSR1 until SIGTERM.
func profile(name string) {
	begin, end := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-begin
		file, err := os.Create(name)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			log.Fatal(err)
		}
		<-end
		pprof.StopCPUProfile()
		file.Close()
		os.Exit(0)
	}()
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(kindVariable); kind != "" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		if dir := os.Getenv(profileVariable); dir != "" {
			profile(filepath.Join(dir, kind+".pprof"))
		}
		fmt.Println(listener.Addr())
		if dir := os.Getenv(dirVariable); dir != "" {
			log.Fatal(http.Serve(listener, newDiskHandler(kind, dir)))
		}
		log.Fatal(http.Serve(listener, newHandler(kind)))
	}
	largeData = randomData(1, large)
	os.Exit(m.Run())
}

// server is a server in a process of its own.
type server struct {
	kind string
	addr string
	cmd  *exec.Cmd
}

// startServer starts a server, which stops when the test ends.
func startServer(t testing.TB, kind string) *server {
	t.Helper()
	if kind == "berth serve" {
		return startCommand(t)
	}
	cmd := child.Self(kindVariable + "=" + kind)
	return &server{kind, child.Start(t, cmd), cmd}
}

// startCommand starts berth serve, with its log in a file.
func startCommand(t testing.TB) *server {
	t.Helper()
	binary, err := berth.Build()
	if err != nil {
		t.Fatal(err)
	}
	logFile, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	// Connections wait for the turns of other servers.
	cmd := exec.Command(binary, "serve", "--addr=127.0.0.1:0", "--header-timeout=10m", "--idle-timeout=10m")
	cmd.Stderr = logFile
	line := child.Start(t, cmd)
	return &server{"berth serve", strings.TrimPrefix(line, "berth: serving on http://"), cmd}
}

// cpu returns the CPU time that the server has used, in seconds.
func (s *server) cpu() float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ
}

// rss returns the resident memory of the server, in bytes.
func (s *server) rss() int64 { return s.memory("VmRSS:") }

// memory returns the value of a line of /proc/<pid>/status, in bytes: VmRSS:, or
// VmHWM: for its peak.
func (s *server) memory(line string) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	fields := strings.Fields(string(status))
	i := slices.Index(fields, line)
	if i < 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[i+1], 10, 64)
	return kib << 10
}
