// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	diskSize   = 192 << 20
	sectorSize = 512 // the bytes that a disk writes as a whole
	pageSize   = 4096
)

// image is the content of a disk. Its pages are never changed, so that copies of
// an image share them; nil is a page of zeros.
type image []*[pageSize]byte

func (m image) read(p []byte, off int64) {
	for n := 0; n < len(p); {
		i, from := (off+int64(n))/pageSize, (off+int64(n))%pageSize
		rest := p[n:min(len(p), n+int(pageSize-from))]
		if m[i] == nil {
			clear(rest)
		} else {
			copy(rest, m[i][from:])
		}
		n += len(rest)
	}
}

func (m image) write(p []byte, off int64) {
	for len(p) > 0 {
		i, from := off/pageSize, off%pageSize
		page := new([pageSize]byte)
		if m[i] != nil {
			*page = *m[i]
		}
		n := copy(page[from:], p)
		m[i] = page
		p, off = p[n:], off+int64(n)
	}
}

// disk is a disk with a volatile cache, as a file of a FUSE file system: a write is
// on the disk for certain only after an fsync that began after it.
type disk struct {
	fusefs.Inode

	syncing sync.Mutex // held by an fsync

	mu      sync.Mutex // guards the fields below
	current image      // with all writes, as reads see it
	durable image
	pending []diskWrite // since durable, in their order
	fail    func()      // called at the power loss, with mu held; nil if none is due
	writes  int         // until then
}

type diskWrite struct {
	off  int64
	data []byte
}

var (
	_ fusefs.NodeGetattrer = (*disk)(nil)
	_ fusefs.NodeSetattrer = (*disk)(nil)
	_ fusefs.NodeOpener    = (*disk)(nil)
	_ fusefs.NodeReader    = (*disk)(nil)
	_ fusefs.NodeWriter    = (*disk)(nil)
	_ fusefs.NodeFsyncer   = (*disk)(nil)
	_ fusefs.NodeAllocater = (*disk)(nil)
)

func newDisk(m image) *disk { return &disk{current: slices.Clone(m), durable: slices.Clone(m)} }

func (d *disk) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks = 0o600, diskSize, diskSize/512
	return 0
}

func (d *disk) Setattr(ctx context.Context, f fusefs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return d.Getattr(ctx, f, out)
}

func (d *disk) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (d *disk) Read(_ context.Context, _ fusefs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p = p[:max(0, min(int64(len(p)), diskSize-off))]
	d.current.read(p, off)
	return fuse.ReadResultData(p), 0
}

func (d *disk) Write(_ context.Context, _ fusefs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(p)) > diskSize {
		return 0, syscall.ENOSPC
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current.write(p, off)
	d.pending = append(d.pending, diskWrite{off, slices.Clone(p)})
	if d.writes--; d.fail != nil && d.writes < 0 {
		d.fail()
		d.fail = nil
	}
	return uint32(len(p)), 0
}

// Fsync takes some time, so that power can fail during it. It does not cover
// writes that arrive meanwhile.
func (d *disk) Fsync(context.Context, fusefs.FileHandle, uint32) syscall.Errno {
	d.syncing.Lock()
	defer d.syncing.Unlock()
	d.mu.Lock()
	n := len(d.pending)
	d.mu.Unlock()
	time.Sleep(rand.N(time.Millisecond))
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.pending[:n] {
		d.durable.write(w.data, w.off)
	}
	d.pending = d.pending[n:]
	return 0
}

// Allocate rejects the discarding of blocks.
func (d *disk) Allocate(context.Context, fusefs.FileHandle, uint64, uint64, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// failPower fails the power after some more writes, or after 100 ms if there are
// fewer. At that moment it calls off, and then decides what the disk retains.
func (d *disk) failPower(writes int, off func()) powerLoss {
	losses := make(chan powerLoss, 1)
	d.mu.Lock()
	d.writes = writes
	d.fail = func() {
		off()
		losses <- d.lose()
	}
	d.mu.Unlock()
	select {
	case loss := <-losses:
		return loss
	case <-time.After(100 * time.Millisecond):
	}
	d.mu.Lock()
	if d.fail != nil {
		d.fail()
		d.fail = nil
	}
	d.mu.Unlock()
	return <-losses
}

// powerLoss describes a disk after a power loss.
type powerLoss struct {
	image         image
	pending, lost int // writes that were not synced, and those that the image lacks at least in part
}

// lose returns an image that the disk may have if its power fails now: the durable
// one with any of the pending writes, or some sectors of them. It must be called
// with mu held.
func (d *disk) lose() powerLoss {
	loss := powerLoss{image: slices.Clone(d.durable), pending: len(d.pending)}
	kept := []float64{0, 0.1, 0.5, 0.9, 1}[rand.IntN(5)]
	for _, w := range d.pending {
		whole := true
		for torn := rand.IntN(3) == 0; len(w.data) > 0; {
			n := len(w.data)
			if torn {
				n = min(n, sectorSize)
			}
			if rand.Float64() < kept {
				loss.image.write(w.data[:n], w.off)
			} else {
				whole = false
			}
			w = diskWrite{w.off + int64(n), w.data[n:]}
		}
		if !whole {
			loss.lost++
		}
	}
	return loss
}

// disks are the disks of a test, each a file in a folder.
type disks struct {
	dir    string
	root   *fusefs.Inode
	number int
}

// mountDisks mounts the folder of disks, which is empty at first.
func mountDisks(t *testing.T) *disks {
	t.Helper()
	d := &disks{dir: t.TempDir(), root: new(fusefs.Inode)}
	server, err := fusefs.Mount(d.dir, d.root, &fusefs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, MaxWrite: 1 << 20}})
	if err != nil {
		t.Skipf("cannot mount a FUSE file system: %v", err)
	}
	t.Cleanup(func() { server.Unmount() })
	return d
}

// add adds a disk, and returns the name of its file.
func (d *disks) add(m image) (*disk, string) {
	d.number++
	name := strconv.Itoa(d.number)
	disk := newDisk(m)
	d.root.AddChild(name, d.root.NewPersistentInode(context.Background(), disk, fusefs.StableAttr{Mode: fuse.S_IFREG}), true)
	return disk, filepath.Join(d.dir, name)
}

// remove removes a disk.
func (d *disks) remove(name string) { d.root.RmChild(filepath.Base(name)) }
