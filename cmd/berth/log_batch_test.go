// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes records each call of Write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(p))
	return len(p), nil
}

// TestBatches checks when the lines of a log are written, and that they are written
// together.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(writes)
		log := (&serveCmd{LogFormat: "text"}).openLog(out)
		check := func(when string, want ...int) { // lines in each write
			t.Helper()
			synctest.Wait()
			out.mu.Lock()
			defer out.mu.Unlock()
			var got []int
			for _, text := range out.all {
				got = append(got, strings.Count(text, "\n"))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: writes of %d lines, want %d", when, got, want)
			}
			out.all = nil
		}
		log.Info("one")
		log.Warn("two")
		check("at once")
		time.Sleep(batchTime)
		check("after the time of a batch", 2)
		log.Info("three")
		log.With("a", 1).WithGroup("g").Error("four")
		check("after an error", 2)
		log.Info("five")
		log.flush()
		check("at the end", 1)
		time.Sleep(time.Hour)
		check("later")
		log.Info(strings.Repeat("x", batchSize))
		check("a line as large as a batch", 1)
	})
}

// TestBatchesKeepLines checks that lines are complete and in order, with many
// goroutines.
func TestBatchesKeepLines(t *testing.T) {
	out := new(writes)
	log := (&serveCmd{LogFormat: "text"}).openLog(out)
	const goroutines, lines = 8, 2000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for n := range lines {
				log.Info("line", "goroutine", g, "n", n)
			}
		})
	}
	wg.Wait()
	log.flush()
	next := make([]int, goroutines)
	for line := range strings.Lines(strings.Join(out.all, "")) {
		_, rest, _ := strings.Cut(line, "goroutine=")
		var g, n int
		if _, err := fmt.Sscanf(rest, "%d n=%d\n", &g, &n); err != nil || n != next[g] {
			t.Fatalf("line %q: %v, want n=%d", line, err, next[g])
		}
		next[g]++
	}
	for g, n := range next {
		if n != lines {
			t.Errorf("goroutine %d: %d lines", g, n)
		}
	}
}
