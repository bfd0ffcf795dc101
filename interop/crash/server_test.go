// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/ocidir"
)

// dirVariable is the environment variable that makes the test binary a registry
// with the directory of that name.
const dirVariable = "BERTH_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirVariable); dir != "" {
		fmt.Fprintln(os.Stderr, serve(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve serves a directory until standard input ends, and prints the address.
func serve(dir string) error {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1) // the test has ended
	}()
	store, err := ocidir.Open(dir, nil)
	if err != nil {
		return err
	}
	go foldForever(store)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return http.Serve(l, registry.New(registry.WithStore(store), registry.WithSlog(log)))
}

// foldForever folds the store's journals at random moments.
func foldForever(store *ocidir.Store) {
	for {
		time.Sleep(rand.N(50 * time.Millisecond))
		if err := store.Fold(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "fold:", err)
		}
	}
}

// startFolding starts a registry that folds its journals at random moments. It is
// killed when the test ends, if not before.
func startFolding(t *testing.T, dir string) *berth.Server {
	t.Helper()
	s, stdout := launch(t, dir)
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		s.Kill()
		t.Fatalf("the registry did not start: %v: %s", err, s.Log)
	}
	s.Addr = strings.TrimSpace(addr)
	return s
}

// launch starts a registry, as startFolding does, but does not wait until it serves.
func launch(t *testing.T, dir string) (*berth.Server, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	s := &berth.Server{Cmd: exec.Command(self), Log: new(bytes.Buffer)}
	s.Cmd.Env = append(os.Environ(), dirVariable+"="+dir)
	s.Cmd.Stderr = s.Log
	_, err = s.Cmd.StdinPipe()
	qt.Assert(t, qt.IsNil(err))
	stdout, err := s.Cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.Cmd.Start()))
	t.Cleanup(s.Kill)
	return s, stdout
}

// startServe starts berth serve.
func startServe(t *testing.T, dir string) *berth.Server {
	t.Helper()
	return berth.Start(t, "--store=dir:"+dir, "--log-level=error")
}
