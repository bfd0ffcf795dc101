// SPDX-License-Identifier: Apache-2.0

// The progress of a copy: a bar on a terminal, or else a line now and then.

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/cwriter"
	"github.com/vbauerster/mpb/v8/decor"
)

// screen is standard error. If that is a terminal, a bar stays below the lines
// that are written.
type screen struct {
	mu   sync.Mutex // guards the fields below
	w    io.Writer
	bars *mpb.Progress // nil unless a bar is shown
}

func newScreen(w io.Writer) *screen { return &screen{w: w} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		return s.bars.Write(p)
	}
	return s.w.Write(p)
}

// job is work whose progress is shown.
type job interface {
	String() string             // what was done so far
	progress() (done, of int64) // parts of the work
}

// show shows the progress of c until the caller calls end.
func (s *screen) show(c job) (end func()) {
	if f, ok := s.w.(*os.File); ok && cwriter.IsTerminal(int(f.Fd())) {
		return s.showBar(f, c)
	}
	return s.showLines(c, progressInterval)
}

func (s *screen) showBar(f *os.File, c job) (end func()) {
	bars := mpb.New(mpb.WithOutput(f), mpb.WithWidth(30))
	_, of := c.progress()
	bar := bars.New(of, mpb.BarStyle(), mpb.AppendDecorators(
		decor.Elapsed(decor.ET_STYLE_GO),
		decor.Any(func(decor.Statistics) string { return " " + c.String() }),
	))
	s.set(bars)
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every(200*time.Millisecond, stopped, func() {
			done, _ := c.progress()
			bar.SetCurrent(done)
		})
	}()
	return func() {
		close(stopped)
		<-ended
		bar.Abort(true)
		bars.Wait()
		s.set(nil)
	}
}

func (s *screen) set(bars *mpb.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bars = bars
}

func (s *screen) showLines(c job, interval time.Duration) (end func()) {
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every(interval, stopped, func() { fmt.Fprintf(s, "berth: %v\n", c) })
	}()
	return func() { close(stopped); <-ended }
}

// every calls f at an interval until stopped is closed.
func every(interval time.Duration, stopped <-chan struct{}, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f()
		case <-stopped:
			return
		}
	}
}
