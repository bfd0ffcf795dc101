// SPDX-License-Identifier: Apache-2.0

//go:build linux

// How the cost of work grows with the content of a directory.

package compare

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	grow        = flag.Bool("growth", false, "measure the growth of directories in full")
	growthSizes = flag.String("growth-sizes", "100,1000,10000,30000", "with -growth, the numbers of manifests in a repository, separated by commas")
	growthOps   = flag.Int("growth-ops", 1000, "with -growth, the number of serial operations for each figure")
	growthTime  = flag.Duration("growth-time", 20*time.Second, "with -growth, the maximum time of the operations for one figure; a fill may take 30 times as long")
)

// growthKinds lists the servers, Berth first.
var growthKinds = []string{"berth", "olareg", "distribution"}

// growthPlan says how much to measure.
type growthPlan struct {
	sizes     []int // numbers of manifests in a repository
	cold      int   // the size for cold readers
	ops       int
	near      int           // how many operations count as being at a size
	limit     time.Duration // of the operations of one figure
	fillLimit time.Duration
	settle    time.Duration
	repos     int  // to start with
	whole     bool // measure all work on the other servers too
	runs      int  // of figures that are medians
}

func newGrowthPlan(t testing.TB) growthPlan {
	t.Helper()
	if !*grow {
		return growthPlan{sizes: []int{10}, cold: 10, ops: 3, near: 3, limit: time.Second, fillLimit: time.Minute, repos: 20, runs: 1}
	}
	p := growthPlan{ops: *growthOps, near: 200, limit: *growthTime, fillLimit: 30 * *growthTime, settle: 3 * time.Second, repos: 10_000, runs: 5, whole: true}
	for text := range strings.SplitSeq(*growthSizes, ",") {
		size, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		p.sizes = append(p.sizes, size)
		if size <= 10_000 {
			p.cold = size
		}
	}
	return p
}

// TestGrowth measures servers whose content is in a directory, with repositories
// of increasing sizes. Without -growth it only checks that this works.
func TestGrowth(t *testing.T) {
	p := newGrowthPlan(t)
	warnOfMemory(t)
	var disks []*disk
	for _, kind := range growthKinds {
		disks = append(disks, newDisk(t, kind))
	}
	var figures []figure
	add := func(f figure) {
		figures = append(figures, f)
		t.Log(strings.Join(f.row(), " | "))
	}
	for _, size := range p.sizes {
		for _, d := range disks {
			d.full = d.full || !d.fill(t, size, time.Now().Add(p.fillLimit))
		}
		for _, w := range growthWorks {
			for _, d := range disks {
				if p.whole || d.kind == "berth" || w.name == growthWorks[0].name {
					add(d.measure(t, p, w, size))
				}
			}
		}
		for _, d := range disks {
			d.check(t, size)
			if size == p.cold && (p.whole || d.kind == "berth") {
				d.coldReaders(t, p, size, add)
			}
		}
	}
	disks[0].restarted(t, p, add)
	add(manyRepositories(t, p))
	t.Log("\n" + growthSection(p, figures, len(growthColumns)))
	if *write != "" && *grow {
		if err := replaceSection(*write, growthSection(p, figures, len(growthColumns)-1)); err != nil {
			t.Fatal(err)
		}
	}
}

// warnOfMemory logs a warning if temporary directories are in memory.
func warnOfMemory(t testing.TB) {
	const tmpfs = 0x01021994
	var fs syscall.Statfs_t
	if err := syscall.Statfs(os.TempDir(), &fs); err == nil && fs.Type == tmpfs {
		t.Logf("%s is in memory, so no bytes are counted as written: set TMPDIR", os.TempDir())
	}
}

// measure runs serial operations of one kind of work on a server that has just
// started.
func (d *disk) measure(t testing.TB, p growthPlan, w growthWork, size int) figure {
	t.Helper()
	f := figure{work: w.name, size: size, kind: d.kind}
	if !w.supportedBy(d.kind) {
		f.note = "not supported"
		return f
	}
	if d.full {
		f.note = fmt.Sprintf("not filled in %v", p.fillLimit)
		return f
	}
	s, _ := d.start(t)
	c := s.connect(t)
	if _, err := c.want(200, "GET", "/v2/"+w.repo+"/tags/list?n=1", nil); err != nil {
		t.Fatal(err)
	}
	first, ops := d.measured[w.repo].numbers(p, w)
	for i := range warm {
		if err := w.op(c, size, first+i); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(p.settle)
	before := s.written(t)
	var times []time.Duration
	for begin := time.Now(); len(times) < ops && (len(times) < minOps || time.Since(begin) < p.limit); {
		start := time.Now()
		if err := w.op(c, size, first+warm+len(times)); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	f.during = s.written(t).minus(before)
	f.rss, f.peak = s.memory("VmRSS:"), s.memory("VmHWM:")
	c.Close()
	f.ended = s.stop(t).minus(before)
	d.measured[w.repo].add(w, warm+len(times))
	near := times[:min(p.near, len(times))]
	if w.deletes {
		near = times[max(0, len(times)-p.near):]
	}
	f.setTimes(near, times)
	f.counted = true
	return f
}

const (
	warm   = 3 // operations that are not measured
	minOps = 5 // operations that are measured, however long they take
)

// numbers returns the number of the first manifest for w, and the number of
// operations to measure.
func (n *counts) numbers(p growthPlan, w growthWork) (first, ops int) {
	switch {
	case w.deletes:
		return n.next - n.pushed, n.pushed - warm
	case w.reads > 0:
		return 0, min(p.ops, w.reads)
	}
	return n.next, p.ops
}

// add counts the operations that were done.
func (n *counts) add(w growthWork, ops int) {
	switch {
	case w.pushes:
		n.next, n.pushed = n.next+ops, ops
	case w.deletes:
		n.left, n.pushed = n.left+n.pushed-ops, 0
	}
}

// setTimes sets the quantiles of the operations near the size, and the maximum of
// all.
func (f *figure) setTimes(near, all []time.Duration) {
	near = slices.Sorted(slices.Values(near))
	f.ops = len(all)
	f.p50, f.p90, f.max = near[len(near)/2], near[len(near)*9/10], slices.Max(all)
}
