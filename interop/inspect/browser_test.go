// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"fmt"
	stdlog "log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"
)

// browser is a window of Chromium, with cookies, passwords and a clipboard of its own.
type browser struct {
	t      *testing.T
	ctx    context.Context
	window cdp.BrowserContextID

	mu       sync.Mutex
	problems []string // errors and warnings of the console, and violations of the policy
	allowed  []string // the beginnings of those that the test expects
	logins   []string // the names and passwords that are entered when the browser asks
	asked    int      // how often it has asked
}

// chromium starts Chromium once for all tests of a process.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path, err := exec.LookPath("chromium")
	for _, name := range []string{"chromium-browser", "google-chrome"} {
		if err != nil {
			path, err = exec.LookPath(name)
		}
	}
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	if loadRounds() > 0 {
		// The figures of TestLoad are the server's. The browser, which users have on another
		// machine or processor, gets what is left of these.
		options = append(options, chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"nice", "-n", "19"}, cmd.Args...)
			cmd.Path = "/usr/bin/nice"
		}))
	}
	ctx, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx, chromedp.WithErrorf(func(format string, args ...any) {
		// Chromium has events that this release of chromedp does not know.
		if !strings.HasPrefix(format, "unhandled node event") {
			stdlog.Printf(format, args...)
		}
	}))
	stop = cancel
	return ctx, chromedp.Run(ctx)
})

var stop = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	stop()
	os.Exit(code)
}

// newBrowser opens a window. At the end of the test it must have had no problem.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	parent, err := chromium()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	b := &browser{t: t}
	inBrowser := cdp.WithExecutor(parent, chromedp.FromContext(parent).Browser)
	b.window, err = target.CreateBrowserContext().Do(inBrowser)
	qt.Assert(t, qt.IsNil(err))
	id, err := target.CreateTarget("about:blank").WithBrowserContextID(b.window).WithNewWindow(true).Do(inBrowser)
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithTargetID(id))
	ctx, cancelTime := context.WithTimeout(ctx, 2*time.Minute)
	b.ctx = ctx
	chromedp.ListenTarget(ctx, b.receive)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("see " + b.shot("failed-"+strings.ReplaceAll(t.Name(), "/", "-")))
		}
		cancelTime()
		cancel()
		qt.Check(t, qt.IsNil(target.DisposeBrowserContext(b.window).Do(inBrowser)))
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, problem := range b.problems {
			t.Error(problem)
		}
	})
	b.do(
		emulation.SetDeviceMetricsOverride(1280, 900, 1, false),
		// The windows of other tests don't take the focus.
		emulation.SetFocusEmulationEnabled(true),
	)
	return b
}

// receive notes the problems of a page, and enters passwords.
func (b *browser) receive(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.problem("exception: " + e.ExceptionDetails.Error())
	case *runtime.EventConsoleAPICalled:
		var args []string
		for _, arg := range e.Args {
			args = append(args, string(arg.Value))
		}
		b.problem(fmt.Sprintf("console: %s %s", e.Type, strings.Join(args, " ")))
	case *log.EventEntryAdded:
		b.problem(fmt.Sprintf("%s: %s %s", e.Entry.Source, e.Entry.Text, e.Entry.URL))
	case *page.EventJavascriptDialogOpening:
		b.problem("dialog: " + e.Message)
	case *fetch.EventRequestPaused:
		go chromedp.Run(b.ctx, fetch.ContinueRequest(e.RequestID))
	case *fetch.EventAuthRequired:
		go chromedp.Run(b.ctx, fetch.ContinueWithAuth(e.RequestID, b.login()))
	}
}

func (b *browser) problem(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, beginning := range b.allowed {
		if strings.HasPrefix(text, beginning) {
			return
		}
	}
	b.problems = append(b.problems, text)
}

// allow has the test pass although the browser logs errors that begin with a text.
func (b *browser) allow(beginning string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = append(b.allowed, beginning)
}

// Chromium logs these errors of requests, even if a page handles them.
const (
	failedWith    = "network: Failed to load resource: the server responded with a status of "
	notConnected  = "network: Failed to load resource: net::ERR_CONNECTION_REFUSED"
	endedByServer = "network: Failed to load resource: net::ERR_INCOMPLETE_CHUNKED_ENCODING"
)

// logIn has the browser enter names and passwords, one after the other, each time that it
// asks for one. Then it cancels.
func (b *browser) logIn(users ...string) {
	b.mu.Lock()
	b.logins = users
	b.mu.Unlock()
	b.do(fetch.Enable().WithHandleAuthRequests(true))
}

// timesAsked returns how often the browser has asked for a name and a password.
func (b *browser) timesAsked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

func (b *browser) login() *fetch.AuthChallengeResponse {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if len(b.logins) == 0 {
		return &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseCancelAuth}
	}
	name, password, _ := strings.Cut(b.logins[0], ":")
	b.logins = b.logins[1:]
	return &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: name, Password: password}
}

// do runs actions.
func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// doInBrowser runs an action that concerns the window, rather than the page.
func (b *browser) doInBrowser(action chromedp.Action) {
	b.t.Helper()
	b.do(chromedp.ActionFunc(func(ctx context.Context) error {
		return action.Do(cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser))
	}))
}

// shot keeps a picture of the page, and returns its path.
func (b *browser) shot(name string) string {
	dir := os.Getenv("BERTH_SCREENSHOTS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "berth-screenshots")
	}
	var data []byte
	var dialog bool
	capture := func(ctx context.Context) error {
		if dialog { // it is only over what is in the window
			return chromedp.CaptureScreenshot(&data).Do(ctx)
		}
		if err := chromedp.Evaluate("scrollTo(0, 0)", nil).Do(ctx); err != nil {
			return err
		}
		return chromedp.FullScreenshot(&data, 100).Do(ctx)
	}
	if err := chromedp.Run(b.ctx, chromedp.Evaluate("!!document.querySelector('dialog[open]')", &dialog), chromedp.ActionFunc(capture)); err != nil {
		return err.Error()
	}
	qt.Assert(b.t, qt.IsNil(os.MkdirAll(dir, 0o755)))
	path := filepath.Join(dir, name+".png")
	qt.Assert(b.t, qt.IsNil(os.WriteFile(path, data, 0o644)))
	return path
}
