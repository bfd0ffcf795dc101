// SPDX-License-Identifier: Apache-2.0

// Many clients that pull a large image, which the mirror does not have, through berth
// serve, while the upstream is slow.

package mirrors

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/registrytest"
)

var full = flag.Bool("full", false, "run TestCold with 200 clients and 256 MiB, and TestColdKilled 10 times")

// size returns the sizes of TestCold.
func size() (clients, mib int) {
	if *full {
		return 200, 256
	}
	return 50, 16
}

// slowUpstream is a registry with one image, which sends so many bytes in a second, to all
// its clients together.
type slowUpstream struct {
	*httptest.Server
	layers []string // their content
	probe  string   // the path of a blob that is no layer
	paths  []string // of requests
	sent   atomic.Int64

	mu   sync.Mutex
	rate int
	next time.Time // when the next bytes may be sent
}

const chunk = 64 << 10

// newSlowUpstream returns an upstream with an image of some MiB in four layers, which takes
// eight seconds to send it, or two.
func newSlowUpstream(t *testing.T, mib int) *slowUpstream {
	t.Helper()
	s := new(registry.MemStore)
	u := &slowUpstream{rate: mib << 20 / 8}
	if !*full {
		u.rate = mib << 20 / 2
	}
	content := registrytest.Content{
		Blobs:     map[string]string{"config": "{}", "probe": registrytest.Random(9, mib<<20/4)},
		Manifests: map[string]registrytest.Manifest{"image": {Config: "config"}},
		Tags:      map[string]string{"1": "image"},
	}
	m := content.Manifests["image"]
	for i := range 4 {
		name := fmt.Sprint("layer", i)
		content.Blobs[name] = registrytest.Random(uint64(i+1), mib<<20/4)
		m.Layers = append(m.Layers, name)
		u.layers = append(u.layers, content.Blobs[name])
	}
	content.Manifests["image"] = m
	descriptors, err := registrytest.PushContent(t.Context(), s, "team/app", content)
	qt.Assert(t, qt.IsNil(err))
	u.probe = "blobs/" + string(digest.FromString(content.Blobs["probe"]))
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, "team/app", digest.FromString(content.Blobs["probe"]), strings.NewReader(content.Blobs["probe"]))))
	u.paths = []string{"manifests/1"}
	for i := range u.layers {
		u.paths = append(u.paths, "blobs/"+string(descriptors[fmt.Sprint("layer", i)].Digest))
	}
	h := registry.New(registry.WithStore(s))
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&meteredWriter{w, u}, r)
	}))
	t.Cleanup(u.Close)
	return u
}

// wait waits until n more bytes may be sent.
func (u *slowUpstream) wait(n int) {
	u.mu.Lock()
	now := time.Now()
	if u.next.Before(now) {
		u.next = now
	}
	u.next = u.next.Add(time.Second * time.Duration(n) / time.Duration(u.rate))
	next := u.next
	u.mu.Unlock()
	time.Sleep(time.Until(next))
}

type meteredWriter struct {
	http.ResponseWriter
	u *slowUpstream
}

func (w *meteredWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var k int
		next := p[:min(len(p), chunk)]
		w.u.wait(len(next))
		w.u.sent.Add(int64(len(next)))
		k, err = w.ResponseWriter.Write(next)
		n, p = n+k, p[k:]
	}
	return n, err
}

// first returns the times after which clients that ask for the probe at once have the first
// byte, in order.
func (u *slowUpstream) first(t *testing.T, clients int, base string) []time.Duration {
	t.Helper()
	times := make([]time.Duration, clients)
	var wg sync.WaitGroup
	for i := range times {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
			defer c.CloseIdleConnections()
			var err error
			if times[i], err = get(c, base+u.probe, "", 1); err != errLeft {
				t.Errorf("the probe: %v", err)
			}
		})
	}
	wg.Wait()
	slices.Sort(times)
	return times
}

// settle waits until the upstream sends nothing anymore.
func (u *slowUpstream) settle() {
	for before := int64(-1); before != u.sent.Load(); {
		before = u.sent.Load()
		time.Sleep(time.Second)
	}
}

// errLeft is that of a client that leaves.
var errLeft = errors.New("the client leaves")

// pull pulls the image from a registry, and returns the times to the first byte of each
// layer. If leaves is not 0, the client leaves after so many bytes of a layer.
func (u *slowUpstream) pull(base string, leaves int) (firsts []time.Duration, err error) {
	c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer c.CloseIdleConnections()
	for i, path := range u.paths {
		want := ""
		if i > 0 {
			want = u.layers[i-1]
		}
		first, err := get(c, base+path, want, leaves)
		if err != nil {
			return firsts, err
		}
		if i > 0 {
			firsts = append(firsts, first)
		}
	}
	return firsts, nil
}

// get gets content, compares it with want, unless that is empty, and returns the time to
// the first byte. If leaves is not 0, it leaves after so many bytes.
func get(c *http.Client, url, want string, leaves int) (first time.Duration, err error) {
	start := time.Now()
	resp, err := c.Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", url, resp.Status)
	}
	buf := make([]byte, 64<<10)
	for done := 0; ; {
		n, err := resp.Body.Read(buf)
		if first == 0 && n > 0 {
			first = time.Since(start)
		}
		if want != "" && (done+n > len(want) || want[done:done+n] != string(buf[:n])) {
			return first, fmt.Errorf("%s: other content after %d bytes", url, done)
		}
		done += n
		switch {
		case err == io.EOF && want != "" && done != len(want):
			return first, fmt.Errorf("%s: %d bytes of %d", url, done, len(want))
		case err == io.EOF:
			return first, nil
		case err != nil:
			return first, fmt.Errorf("%s: after %d bytes: %w", url, done, err)
		case leaves > 0 && done >= leaves:
			return first, errLeft
		}
	}
}

// stores are the stores of berth serve: their flags, and the number of MiB of memory that
// it may use beside the content in memory.
func stores(t *testing.T, mib int) map[string][]string {
	memory := fmt.Sprintf("--memory=%dMiB", mib+256)
	all := map[string][]string{
		"mem": {"--store=mem:", memory},
		"dir": {"--store=dir:" + filepath.Join(t.TempDir(), "content"), "--memory=256MiB"},
	}
	if _, err := exec.LookPath("minio"); err == nil || os.Getenv("CI") != "" {
		all["bucket"] = []string{"--store=" + miniotest.Start(t).URL(t), "--memory=256MiB"}
	}
	return all
}

// serve starts berth serve as a mirror of the upstream, and returns it with the URL of the
// image's repository. The files of fetches go into a folder of their own.
func (u *slowUpstream) serve(t *testing.T, flags []string) (*berth.Server, string) {
	t.Helper()
	b := berth.Start(t, append([]string{"--log-level=error", "--mirror=upstream.test=" + u.URL}, flags...)...)
	return b, "http://" + b.Addr + "/v2/upstream.test/team/app/"
}

// setTempDir gives the test, and berth serve, a folder of their own for temporary files.
func setTempDir(t *testing.T) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
}

// TestCold has many clients pull an image at once that the mirror does not have. The
// upstream sends it once; clients that leave harm none; and the memory stays in bounds.
func TestCold(t *testing.T) {
	n, mib := size()
	setTempDir(t)
	for name, flags := range stores(t, mib) {
		t.Run(name, func(t *testing.T) {
			u := newSlowUpstream(t, mib)
			b, base := u.serve(t, flags)
			direct := u.first(t, 1, u.URL+"/v2/team/app/")
			mirrored := u.first(t, 1, base)
			crowded := u.first(t, n, u.URL+"/v2/team/app/")
			t.Logf("the first byte of one client: directly after %v, by the mirror after %v", direct[0], mirrored[0])
			u.settle()
			u.sent.Store(0)
			var wg sync.WaitGroup
			var mu sync.Mutex
			var firsts []time.Duration
			left := 0
			start := time.Now()
			for i := range n {
				leaves := 0
				if i%10 == 3 {
					leaves = 1 << 20
				}
				wg.Go(func() {
					got, err := u.pull(base, leaves)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == errLeft:
						left++
					case err != nil:
						t.Errorf("client %d: %v", i, err)
					default:
						firsts = append(firsts, got[0])
					}
				})
			}
			wg.Wait()
			took, sent, peak := time.Since(start), u.sent.Load(), b.Memory(t, "VmHWM")
			slices.Sort(firsts)
			t.Logf("%d clients, of which %d left, %d MiB in %v; the upstream sent %.3f of it; the first byte of as many clients directly after %v (median), by the mirror after %v (median), %v (last); peak %d MiB",
				n, left, mib, took.Round(time.Millisecond), float64(sent)/float64(mib<<20), crowded[n/2].Round(time.Millisecond), firsts[len(firsts)/2].Round(time.Millisecond), firsts[len(firsts)-1].Round(time.Millisecond), peak>>20)
			if max := int64(mib<<20 + 10_000); sent > max {
				t.Errorf("the upstream sent %d bytes, want at most %d", sent, max)
			}
			limit := int64(256 << 20)
			if name == "mem" {
				limit += int64(mib << 20)
			}
			if peak > limit*3/2 {
				t.Errorf("the peak is %d MiB, of a limit of %d", peak>>20, limit>>20)
			}
			u.Close() // what comes now is stored
			_, err := u.pull(base, 0)
			qt.Check(t, qt.IsNil(err))
			b.Kill()
			qt.Check(t, qt.Equals(b.Log.String(), ""))
			u.checkTemporary(t)
		})
	}
}

// checkTemporary fails the test if files of fetches are left.
func (u *slowUpstream) checkTemporary(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "berth-mirror-*"))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(files, 0))
}

// TestColdKilled kills the mirror while clients pull. The next process has nothing wrong,
// and nothing is left of what was not finished.
func TestColdKilled(t *testing.T) {
	n, mib := size()
	n /= 10
	kills := 2
	if *full {
		kills = 10
	}
	setTempDir(t)
	for name, flags := range stores(t, mib) {
		t.Run(name, func(t *testing.T) {
			u := newSlowUpstream(t, mib)
			for i := range kills {
				b, base := u.serve(t, flags)
				var wg sync.WaitGroup
				for range n {
					wg.Go(func() {
						if _, err := u.pull(base, 0); err != nil && strings.Contains(err.Error(), "other content") {
							t.Errorf("before the kill: %v", err)
						}
					})
				}
				// Most moments are in the middle of a layer, some of its commit.
				before := u.sent.Load()
				for u.sent.Load()-before < int64(mib<<20)*int64(i+1)/int64(4*kills) && !t.Failed() {
					time.Sleep(time.Millisecond)
				}
				b.Kill()
				wg.Wait()
				qt.Check(t, qt.Equals(b.Log.String(), ""))
				u.checkTemporary(t)
			}
			b, base := u.serve(t, flags)
			_, err := u.pull(base, 0)
			qt.Check(t, qt.IsNil(err))
			b.Kill()
			if dir, ok := strings.CutPrefix(flags[0], "--store=dir:"); ok {
				u.checkFolder(t, dir, mib)
			}
		})
	}
}

// checkFolder fails the test if a folder has more than the image, after a collection.
func (u *slowUpstream) checkFolder(t *testing.T, dir string, mib int) {
	t.Helper()
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	out, err := exec.Command(binary, "gc", "--grace=0s", "--store=dir:"+dir).CombinedOutput()
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
	total := int64(0)
	seen := make(map[string]bool) // files have links in several folders
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || seen[e.Name()] {
			return err
		}
		seen[e.Name()] = true
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	qt.Check(t, qt.IsNil(err))
	t.Logf("%s; %d bytes in the folder", bytes.TrimSpace(out), total)
	if max := int64((mib + 2) << 20); total > max { // with the reserve for a full disk
		t.Errorf("the folder has %d bytes, want at most %d", total, max)
	}
}
