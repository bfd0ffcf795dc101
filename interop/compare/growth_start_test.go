// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Measurements of servers that have just started on a full directory.

package compare

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// check fails unless Berth lists each manifest in the repositories.
func (d *disk) check(t testing.TB, size int) {
	t.Helper()
	if d.full || d.kind != "berth" {
		return
	}
	s, _ := d.start(t)
	defer s.stop(t)
	c := s.connect(t)
	tags := c.countAll(t, "/v2/"+growing+"/tags/list", "tags")
	referrers := c.countAll(t, "/v2/"+referred+"/referrers/"+growthSubject().Digest.String(), "manifests")
	if want := size + d.measured[growing].left + len([]string{"latest"}); tags != want {
		t.Errorf("%s has %d tags, want %d", d.kind, tags, want)
	}
	if want := size + d.measured[referred].left; referrers != want {
		t.Errorf("%s has %d referrers, want %d", d.kind, referrers, want)
	}
}

// countAll returns the number of elements in all pages of a list.
func (c *conn) countAll(t testing.TB, target, member string) (n int) {
	t.Helper()
	for target != "" {
		a, err := c.want(200, "GET", target, nil)
		var page map[string]json.RawMessage
		var elements []json.RawMessage
		if err == nil {
			err = json.Unmarshal(a.body, &page)
		}
		if err == nil {
			err = json.Unmarshal(page[member], &elements)
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(elements)
		target = a.next
	}
	return n
}

// coldReaders measures one and 64 concurrent first readers of a repository.
func (d *disk) coldReaders(t testing.TB, p growthPlan, size int, add func(figure)) {
	t.Helper()
	if d.full {
		return
	}
	one := d.readCold(t, p, size, 1)
	add(one)
	all := d.readCold(t, p, size, 64)
	if d.kind == "berth" {
		all.targets = []target{
			{"× one reader's time", all.p50.Seconds() / one.p50.Seconds(), 2},
			{"× one reader's peak", float64(all.peak) / float64(one.peak), 2},
		}
	}
	add(all)
}

// readCold measures the time until each of n concurrent readers has pulled a
// manifest of its own from a server that has just started.
func (d *disk) readCold(t testing.TB, p growthPlan, size, n int) figure {
	t.Helper()
	var times []time.Duration
	var rss, peaks []int64
	for range p.runs {
		s, _ := d.start(t)
		conns := make([]*conn, n)
		for i := range conns {
			conns[i] = s.connect(t)
		}
		errs := make([]error, n)
		var wg sync.WaitGroup
		begin := time.Now()
		for i, c := range conns {
			wg.Go(func() { errs[i] = getTagged(c, i*size/n) })
		}
		wg.Wait()
		times = append(times, time.Since(begin))
		rss, peaks = append(rss, s.memory("VmRSS:")), append(peaks, s.memory("VmHWM:"))
		for i, c := range conns {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			c.Close()
		}
		s.stop(t)
	}
	f := figure{work: fmt.Sprintf("first readers of a repository: %d", n), size: size, kind: d.kind, rss: middle(rss), peak: middle(peaks)}
	f.setTimes(times, times)
	return f
}

// getTagged pulls the i-th manifest of the repository growing.
func getTagged(c *conn, i int) error {
	a, err := c.want(200, "GET", "/v2/"+growing+"/manifests/"+growthTag(i), nil, "Accept: "+imageType)
	if err == nil && digest.FromBytes(a.body) != digest.FromBytes(growthImage(i, nil)) {
		err = fmt.Errorf("%s: %s is another manifest", c.s.kind, growthTag(i))
	}
	return err
}

func middle(list []int64) int64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// restarted measures the memory of a server after a restart and some reads.
func (d *disk) restarted(t testing.TB, p growthPlan, add func(figure)) {
	t.Helper()
	size := d.filled
	for _, work := range []struct {
		name string
		read func(c *conn) error
	}{
		{"memory after a list of tags, one of referrers, 100 pulls", func(c *conn) error {
			for _, target := range []string{"tags/list", "referrers/" + digest.FromBytes(growthImage(0, nil)).String()} {
				if _, err := c.want(200, "GET", "/v2/"+growing+"/"+target, nil); err != nil {
					return err
				}
			}
			for i := range 100 {
				if err := getTagged(c, i*size/100); err != nil {
					return err
				}
			}
			return nil
		}},
		{"memory after a list of all referrers", func(c *conn) error {
			_, err := c.want(200, "GET", "/v2/"+referred+"/referrers/"+growthSubject().Digest.String(), nil)
			return err
		}},
	} {
		s, _ := d.start(t)
		c := s.connect(t)
		begin := time.Now()
		if err := work.read(c); err != nil {
			t.Fatal(err)
		}
		times := []time.Duration{time.Since(begin)}
		time.Sleep(p.settle)
		f := figure{work: work.name, size: size, kind: d.kind, rss: s.memory("VmRSS:"), peak: s.memory("VmHWM:")}
		f.setTimes(times, times)
		f.targets = []target{{"MiB of RSS", float64(f.rss) / mib, 80}}
		c.Close()
		s.stop(t)
		add(f)
	}
}

// manyRepositories measures the start of Berth with many repositories, from the
// start of the process until it responds.
func manyRepositories(t testing.TB, p growthPlan) figure {
	t.Helper()
	d := newDisk(t, "berth")
	s, _ := d.start(t)
	s.concurrently(t, 32, 0, p.repos, time.Now().Add(time.Hour), func(c *conn, i int) error {
		_, err := c.want(201, "PUT", fmt.Sprintf("/v2/team%02d/r%05d/manifests/tag", i%100, i), []byte("m"), "Content-Type: text/plain")
		return err
	})
	s.stop(t)
	var times []time.Duration
	var rss, peaks []int64
	for range p.runs {
		s, elapsed := d.start(t)
		times = append(times, elapsed)
		rss, peaks = append(rss, s.memory("VmRSS:")), append(peaks, s.memory("VmHWM:"))
		s.stop(t)
	}
	f := figure{work: "start with this number of repositories", size: p.repos, kind: d.kind, rss: middle(rss), peak: middle(peaks)}
	f.setTimes(times, times)
	f.targets = []target{{"ms", f.p50.Seconds() * 1e3, 100}}
	return f
}
