// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"flag"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

var cuts = flag.Int("cuts", 2, "the number of times that TestPowerLoss cuts the power")

// TestPowerLoss repeatedly cuts the power of a disk while clients push to a registry
// on it, and while the registry starts. The disk loses any of the writes since the
// last flush, or parts of them. The ext4 file system on it recovers from its own
// journal; then the directory must consist of complete OCI image layouts, which
// skopeo can read, and the next process must have everything that was acknowledged.
func TestPowerLoss(t *testing.T) {
	wantSkopeo(t)
	if !inNamespace(t, []string{"/dev/fuse", "/dev/loop-control"}, "mkfs.ext4", "mount") {
		return
	}
	m := newMachine(t)
	clients := newClients(t, 6)
	for _, c := range clients {
		c.cut, c.losesUploads = &m.off, true
	}
	layouts := 0
	for n := range *cuts {
		if rand.IntN(4) == 0 { // while the registry starts, or folds its first journals
			s, _ := launch(t, m.dir)
			time.Sleep(rand.N(40 * time.Millisecond))
			m.cutPower(s)
			m.restorePower()
		}
		layouts += checkIndexes(t, m.dir, clients)
		start := startFolding
		if n%2 == 1 {
			start = startServe
		}
		s := start(t, m.dir)
		verify(clients, s.Addr)
		if t.Failed() {
			t.Fatalf("after %d cuts", n)
		}
		work(clients, func() {
			time.Sleep(rand.N(400 * time.Millisecond))
			m.cutPower(s)
		})
		m.restorePower()
	}
	layouts += checkIndexes(t, m.dir, clients)
	s := startServe(t, m.dir)
	verify(clients, s.Addr)
	s.Kill()
	qt.Check(t, qt.Equals(s.Log.String(), ""))
	checkTags(t, m.dir, clients)
	if !t.Failed() {
		t.Logf("%d cuts; %d acknowledged requests, none lost; %d layouts read after the cuts; of %d unsynced writes, the disk lost %d at least in part", m.cuts, acknowledged(clients), layouts, m.pending, m.lost)
	}
}

// machine is a machine with a disk whose power can be cut.
type machine struct {
	t     *testing.T
	dir   string // on the disk
	off   atomic.Bool
	disks *disks
	disk  *disk
	name  string // of the disk's file
	after image  // of the disk, while the power is off

	cuts, pending, lost int // of all power losses
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), disks: mountDisks(t)}
	m.disk, m.name = m.disks.add(make(image, diskSize/pageSize))
	qt.Assert(t, qt.IsNil(run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-J", "size=4", m.name)))
	if err := m.mount(); err != nil {
		t.Skip(err)
	}
	return m
}

// cutPower cuts the power, which ends a registry.
func (m *machine) cutPower(s *berth.Server) {
	m.t.Helper()
	loss := m.disk.failPower(rand.IntN(50), func() { m.off.Store(true) }) // clients don't count later responses
	s.Kill()
	qt.Assert(m.t, qt.Equals(s.Log.String(), ""))
	m.after, m.cuts, m.pending, m.lost = loss.image, m.cuts+1, m.pending+loss.pending, m.lost+loss.lost
}

// restorePower mounts the disk again. No client may run meanwhile.
func (m *machine) restorePower() {
	m.t.Helper()
	qt.Assert(m.t, qt.IsNil(run("umount", m.dir))) // it changes only the old disk
	m.disks.remove(m.name)
	m.disk, m.name = m.disks.add(m.after)
	qt.Assert(m.t, qt.IsNil(m.mount()))
	m.off.Store(false)
}

// mount mounts the disk in ext4's default mode. In the mode data=writeback, ext4 may
// reuse the blocks of a deleted file before the deletion is on the disk.
func (m *machine) mount() error { return mount(m.t, "-o", "loop,data=ordered", m.name, m.dir) }
