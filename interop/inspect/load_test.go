// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// Bounds of a server with an open page, and of the page, whatever the number of requests.
const (
	loadRequests = 50_000
	loadClients  = 8
	maxPeak      = 128 << 20 // bytes of the server that are resident at most
	maxHeap      = 32 << 20  // bytes of the page's JavaScript after GC
	maxRowsShown = 1500
	maxNodes     = 40_000
)

// load is the result of loadRequests requests.
type load struct {
	rate float64       // requests a second
	cpu  time.Duration // of the server, for each request
	peak int64         // VmHWM of the server in bytes
}

// TestLoad sends requests to servers without the page, with a page that nobody has opened,
// and with one that is open in Chromium, in turns. It prints the rates and the processor time
// of the servers in relation to those of the first server, and checks bounds of memory.
func TestLoad(t *testing.T) {
	rounds := loadRounds()
	if rounds == 0 {
		t.Skip("set BERTH_LOAD_ROUNDS to send many requests")
	}
	modes := []string{"off", "closed", "open"}
	results := make(map[string][]load)
	for round := range rounds {
		t.Run(strconv.Itoa(round), func(t *testing.T) {
			for _, mode := range modes {
				l := measure(t, mode)
				results[mode] = append(results[mode], l)
				t.Logf("%-6s %6.0f requests/s, %v of the server each, at most %d MiB", mode, l.rate, l.cpu, l.peak>>20)
				if l.peak > maxPeak {
					t.Errorf("%s: the server needed %d bytes, more than %d", mode, l.peak, maxPeak)
				}
			}
		})
	}
	for _, mode := range modes[1:] {
		if t.Failed() {
			return
		}
		var rates, cpus, peaks []float64
		for i, l := range results[mode] {
			off := results["off"][i]
			rates = append(rates, l.rate/off.rate)
			cpus = append(cpus, float64(l.cpu)/float64(off.cpu))
			peaks = append(peaks, float64(l.peak)/float64(off.peak))
		}
		t.Logf("%s, in relation to no page: rate %.3f (%.2f), processor time %.3f (%.2f), peak of memory %.2f",
			mode, median(rates), rates, median(cpus), cpus, median(peaks))
	}
}

// TestFirstPaint opens the page of 10,000 repositories, in turns with a page that has nothing
// but a word, and logs when Chromium has first painted them.
func TestFirstPaint(t *testing.T) {
	if loadRounds() == 0 {
		t.Skip("set BERTH_LOAD_ROUNDS to open many pages")
	}
	word := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `<!doctype html><html lang=en><title>A word</title><link rel=icon href="data:,"><p>Word`)
	}))
	defer word.Close()
	s := berth.Serve(t, "--ui=on")
	pushEmpty(t, s.Addr, 10_000, func(i int) string { return fmt.Sprintf("group%d/app%d", i%100, i) }, "v1")
	for _, window := range []string{"new", "same"} {
		var b *browser
		paints := make(map[string][]float64)
		for range 4 * loadRounds() {
			for name, url := range map[string]string{"the page": "http://" + s.Addr + "/inspect/#repositories", "a word": word.URL} {
				if b == nil || window == "new" {
					b = newBrowser(t)
				}
				b.do(chromedp.Navigate("about:blank"), chromedp.Navigate(url))
				paints[name] = append(paints[name], b.firstPaint())
			}
		}
		for name, all := range paints {
			t.Logf("%s in %s window: median %.0f ms of %.0f", name, window, median(all), all)
		}
	}
}

// firstPaint returns the ms from the start of the navigation to the first contentful paint.
func (b *browser) firstPaint() float64 {
	return eval[float64](b, `new Promise(found => new PerformanceObserver((list, o) => {
		for (const e of list.getEntries()) if (e.name === "first-contentful-paint") { o.disconnect(); found(e.startTime); }
	}).observe({ type: "paint", buffered: true }))`)
}

// loadRounds returns the number of turns of TestLoad.
func loadRounds() int {
	rounds, _ := strconv.Atoi(os.Getenv("BERTH_LOAD_ROUNDS"))
	return rounds
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// measure sends the requests to a new server.
func measure(t *testing.T, mode string) load {
	flag := "--ui=on"
	if mode == "off" {
		flag = "--ui=off"
	}
	s := berth.Serve(t, flag)
	defer s.Kill()
	qt.Assert(t, qt.IsNil(crane.Push(appImage(t, "amd64"), s.Addr+"/team/app:v1")))
	var b *browser
	if mode == "open" {
		b = newBrowser(t)
		b.do(chromedp.Navigate("http://"+s.Addr+"/inspect/#timeline"), chromedp.WaitVisible("#state.live"), chromedp.WaitVisible(".group"))
		t.Logf("the page's heap: %.0f bytes before", b.heap())
	}
	sendRequests(t, s.Addr, loadRequests/25) // until all has been allocated
	if b != nil {
		b.do(chromedp.Sleep(3 * time.Second)) // until the page has been drawn
	}
	before, start := processorTime(t, s), time.Now()
	sendRequests(t, s.Addr, loadRequests)
	elapsed := time.Since(start)
	l := load{rate: loadRequests / elapsed.Seconds(), cpu: (processorTime(t, s) - before) / loadRequests}
	if mode == "open" {
		b.checkSize()
		b.do(chromedp.Navigate("about:blank")) // which would tell that the server is gone
	}
	l.peak = s.Memory(t, "VmHWM")
	return l
}

// sendRequests sends n requests, as clients that pull do.
func sendRequests(t *testing.T, addr string, n int64) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: loadClients}}
	defer client.CloseIdleConnections()
	var sent atomic.Int64
	var wait sync.WaitGroup
	for range loadClients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for k := sent.Add(1); k <= n; k = sent.Add(1) {
				path, status := "/v2/team/app/manifests/v1", 200
				switch k % 10 {
				case 0:
					path, status = "/v2/team/app/manifests/none", 404
				case 1, 2:
					path = "/v2/team/app/tags/list"
				}
				resp, err := client.Get("http://" + addr + path)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != status {
					t.Errorf("GET %s: %s, %v", path, resp.Status, err)
					return
				}
			}
		}()
	}
	wait.Wait()
}

// processorTime returns the time that a server has run on processors.
func processorTime(t *testing.T, s *berth.Server) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Cmd.Process.Pid))
	if err != nil {
		t.Skip("reading a process's time requires Linux")
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	var ticks int64
	for _, field := range fields[12:14] { // utime and stime, in 1/100 s
		n, err := strconv.ParseInt(field, 10, 64)
		qt.Assert(t, qt.IsNil(err))
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// heap returns the bytes of the page's JavaScript objects that are in use.
func (b *browser) heap() (used float64) {
	b.do(heapprofiler.CollectGarbage(), chromedp.ActionFunc(func(ctx context.Context) (err error) {
		used, _, _, _, err = runtime.GetHeapUsage().Do(ctx)
		return err
	}))
	return used
}

// checkSize checks that the page has shown requests, but keeps few of them.
func (b *browser) checkSize() {
	var rows, nodes int
	b.do(
		chromedp.Poll(`document.querySelectorAll(".rows li").length > 20`, nil),
		chromedp.Evaluate(`document.querySelectorAll(".rows li").length`, &rows),
		chromedp.Evaluate(`document.querySelectorAll("*").length`, &nodes),
	)
	used := b.heap()
	b.t.Logf("the page's heap: %.0f bytes after; %d rows, %d elements", used, rows, nodes)
	if used > maxHeap || rows > maxRowsShown || nodes > maxNodes {
		b.t.Errorf("the page has %.0f bytes (at most %d), %d rows (%d) and %d elements (%d)", used, maxHeap, rows, maxRowsShown, nodes, maxNodes)
	}
}
