// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"
)

// browser is a tab of Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // errors and warnings of the console, and violations of the policy
}

// chromium starts Chromium once for all tests of a process.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	stop = cancel
	return ctx, chromedp.Run(ctx)
})

var stop = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	stop()
	os.Exit(code)
}

// newBrowser opens a tab. At the end of the test it must have had no problem.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	parent, err := chromium()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := chromedp.NewContext(parent)
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	b := &browser{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.problems = append(b.problems, "exception: "+e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			b.problems = append(b.problems, fmt.Sprintf("console: %s %s", e.Type, e.Args[0].Value))
		case *log.EventEntryAdded:
			b.problems = append(b.problems, fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
		case *page.EventJavascriptDialogOpening:
			b.problems = append(b.problems, "dialog: "+e.Message)
		}
	})
	t.Cleanup(func() {
		cancelTime()
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, problem := range b.problems {
			t.Error(problem)
		}
	})
	b.do(emulation.SetDeviceMetricsOverride(1280, 900, 1, false))
	return b
}

// do runs actions.
func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		shot := b.shot("failed-" + strings.ReplaceAll(b.t.Name(), "/", "-"))
		b.t.Fatalf("%v; see %s", err, shot)
	}
}

// shot keeps a picture of the page, and returns its path.
func (b *browser) shot(name string) string {
	dir := os.Getenv("BERTH_SCREENSHOTS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "berth-screenshots")
	}
	var data []byte
	if err := chromedp.Run(b.ctx, chromedp.FullScreenshot(&data, 100)); err != nil {
		return err.Error()
	}
	qt.Assert(b.t, qt.IsNil(os.MkdirAll(dir, 0o755)))
	path := filepath.Join(dir, name+".png")
	qt.Assert(b.t, qt.IsNil(os.WriteFile(path, data, 0o644)))
	return path
}
