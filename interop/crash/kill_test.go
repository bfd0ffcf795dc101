// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

var kills = flag.Int("kills", 3, "the number of times that TestKill kills each registry")

// TestKill repeatedly kills (SIGKILL) a registry with a directory while clients
// push and delete. At each kill the directory must consist of complete OCI image
// layouts, which skopeo can read, and the next process must have everything that
// was acknowledged.
func TestKill(t *testing.T) {
	wantSkopeo(t)
	t.Run("serve", func(t *testing.T) { testKill(t, startServe, killOrInterrupt) })
	t.Run("fold", func(t *testing.T) { testKill(t, startFolding, (*berth.Server).Kill) })
}

func testKill(t *testing.T, start func(*testing.T, string) *berth.Server, kill func(*berth.Server)) {
	dir := t.TempDir()
	clients := newClients(t, 6)
	layouts := 0
	for n := range *kills {
		killAtStart(t, dir)
		s := start(t, dir)
		verify(clients, s.Addr)
		if t.Failed() {
			t.Fatalf("after %d kills", n)
		}
		work(clients, func() {
			time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
			kill(s)
		})
		qt.Assert(t, qt.Equals(s.Log.String(), ""))
		layouts += checkIndexes(t, dir, clients)
	}
	s := startServe(t, dir)
	verify(clients, s.Addr)
	s.Kill()
	qt.Check(t, qt.Equals(s.Log.String(), ""))
	checkTags(t, dir, clients)
	files := checkFiles(t, dir)
	if !t.Failed() {
		t.Logf("%d kills; %d acknowledged requests, none lost; %d layouts read at the kills; %d intact files at the end", *kills, acknowledged(clients), layouts, files)
	}
}

// killOrInterrupt kills a registry, sometimes while it handles a SIGTERM.
func killOrInterrupt(s *berth.Server) {
	if rand.IntN(4) == 0 {
		s.Cmd.Process.Signal(syscall.SIGTERM)
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	s.Kill()
}

// killAtStart kills a registry that is just starting, or folds its first journals.
func killAtStart(t *testing.T, dir string) {
	s, _ := launch(t, dir)
	time.Sleep(rand.N(40 * time.Millisecond))
	s.Kill()
	qt.Assert(t, qt.Equals(s.Log.String(), ""))
}

// acknowledged returns the number of acknowledged requests of clients.
func acknowledged(clients []*client) (n int) {
	for _, c := range clients {
		n += c.acknowledged
	}
	return n
}
