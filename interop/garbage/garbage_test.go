// SPDX-License-Identifier: Apache-2.0

package garbage

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	figures    = flag.Bool("figures", false, "measure stores of 1,000,000 blobs in memory, and of 100,000 in a directory")
	roundsFlag = flag.Int("rounds", 3, "number of collections in memory with -figures")
	profiles   = flag.String("profiles", "", "write a profile of the processor time of each collection in memory to this directory")
)

// rate is the number of requests per second, and controlRate that of requests to
// another process, which shows the delays of the machine itself.
const rate, controlRate = 500, 100

// load sends requests at a fixed rate, whether or not earlier ones have got their
// response, until done is closed. It returns how long each took from the moment when it
// was due.
func load(t *testing.T, client *http.Client, url string, of size, rate int, note string, done <-chan struct{}) []time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	for i := 0; ; i++ {
		due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due))
		select {
		case <-done:
			wg.Wait()
			return took
		default:
		}
		wg.Go(func() {
			err := request(client, url, of, i, note)
			d := time.Since(due)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, d)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// request sends request i: a GET, a HEAD or a PUT.
func request(client *http.Client, url string, of size, i int, note string) error {
	image := i * 7919 % of.Images
	if isGarbage(image) {
		image--
	}
	base := url + "/v2/" + of.repo(image)
	method, path, status := "GET", fmt.Sprint("/manifests/image", image), 200
	var body []byte
	switch i % 3 {
	case 1:
		method, path = "HEAD", "/blobs/"+digest.FromString(layer(image, i%layersPerImage)).String()
	case 2:
		method, path, status = "PUT", fmt.Sprint("/manifests/", note, i), 201
		body = manifest(image, fmt.Sprint(note, i))
	}
	req, err := http.NewRequest(method, base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// quantiles describes durations.
func quantiles(took []time.Duration) string {
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(10 * time.Microsecond) }
	return fmt.Sprintf("%6d requests: p50 %v, p99 %v, p99.9 %v, max %v", len(took), at(0.5), at(0.99), at(0.999), at(1))
}

// TestMemory measures how requests wait while the garbage of a MemStore, a tenth, is
// collected, beside the same requests without a collection.
func TestMemory(t *testing.T) {
	images, rounds, quiet := 1000, 1, time.Second
	if *figures {
		images, rounds, quiet = 100_000, *roundsFlag, 10*time.Second
	}
	for _, repos := range []int{100, 1} {
		t.Run(fmt.Sprint(repos, " repositories"), func(t *testing.T) {
			of := size{repos, images}
			few := size{1, 1000}
			url, control := startServer(t, of), startServer(t, few)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			defer client.CloseIdleConnections()
			var without, cycle, with, controlWithout, controlCycle, controlWith []time.Duration
			warm := make(chan struct{})
			time.AfterFunc(time.Second, func() { close(warm) })
			load(t, client, url, of, rate, "warm", warm)
			load(t, client, control, few, controlRate, "warm", warm)
			for round := range rounds {
				if round > 0 {
					call(t, url+"/fill", nil)
				}
				run := func(note string, f func()) (took, controlTook []time.Duration) {
					done := make(chan struct{})
					go func() {
						defer close(done)
						f()
					}()
					note = fmt.Sprint(note, round, "-")
					var wg sync.WaitGroup
					wg.Go(func() { controlTook = load(t, client, control, few, controlRate, note, done) })
					took = load(t, client, url, of, rate, note, done)
					wg.Wait()
					return took, controlTook
				}
				took, controlTook := run("quiet", func() { time.Sleep(quiet) })
				without, controlWithout = append(without, took...), append(controlWithout, controlTook...)
				var c collected
				took, controlTook = run("busy", func() {
					if *profiles != "" {
						go profile(t, url, fmt.Sprintf("%s/garbage-%d-%d.pprof", *profiles, repos, round))
						time.Sleep(100 * time.Millisecond)
					}
					call(t, url+"/collect", &c)
				})
				with, controlWith = append(with, took...), append(controlWith, controlTook...)
				qt.Check(t, qt.Equals(c.Report.Repositories, repos))
				qt.Check(t, qt.Equals(c.Report.Manifests, images/10))
				qt.Check(t, qt.Equals(c.Report.Blobs, images/10*layersPerImage))
				t.Logf("collection in %v: %d MB allocated, heap %d MB before, at most %d MB, %d cycles of Go's collector, longest stop %v",
					c.Duration.Round(time.Millisecond), c.Allocated>>20, c.Before>>20, c.Peak>>20, c.Cycles, c.LongestStop)
				t.Logf("a timer of the server was late by at most %v", c.LongestDelay)
				// A cycle of Go's collector delays requests too. How much?
				took, controlTook = run("cycle", func() {
					call(t, url+"/cycle", nil)
					time.Sleep(c.Duration)
				})
				cycle, controlCycle = append(cycle, took...), append(controlCycle, controlTook...)
			}
			t.Logf("without a collection %s", quantiles(without))
			t.Logf("as long, with a cycle of Go's collector %s", quantiles(cycle))
			t.Logf("during a collection  %s", quantiles(with))
			t.Logf("meanwhile, to another process:")
			t.Logf("without a collection %s", quantiles(controlWithout))
			t.Logf("as long, with a cycle of Go's collector %s", quantiles(controlCycle))
			t.Logf("during a collection  %s", quantiles(controlWith))
		})
	}
}

func profile(t *testing.T, url, name string) {
	resp, err := http.Get(url + "/debug/profile?seconds=5")
	if !qt.Check(t, qt.IsNil(err)) {
		return
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(os.WriteFile(name, data, 0o666)))
}
