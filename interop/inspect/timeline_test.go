// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestTimeline filters, stops and clears the list of requests.
func TestTimeline(t *testing.T) {
	run(t, []journey{
		{
			name: "a text finds requests, and is kept when the page is loaded again",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/team/app:v1", smallImage(t, 1))
				push(t, v.Addr+"/team/worker:v1", smallImage(t, 2))
				v.open("timeline")
				v.see("push team/app:v1", "push team/worker:v1")
				v.enter("#filter-q", "WORKER")
				v.gone("push team/app:v1")
				v.see("push team/worker:v1")
				qt.Check(t, qt.Equals(v.hash(), "timeline?q=WORKER"))
				v.reload()
				v.see("push team/worker:v1")
				qt.Check(t, qt.DeepEquals(v.groups(), []string{"go-containerregistry push team/worker:v1"}))
				qt.Check(t, qt.Equals(eval[string](v.browser, "document.querySelector('#filter-q').value"), "WORKER"))
				v.enter("#filter-q", "x")
				v.see("No request matches the filters")
			},
		},
		{
			name: "filters by operation and status apply to requests that come later, and the back button returns to them",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				v.open("timeline")
				v.choose("#filter-op", "push a manifest")
				v.until("document.querySelectorAll('.rows li').length === 1")
				push(t, v.Addr+"/other:v1", smallImage(t, 1))
				v.see("push other:v1")
				qt.Check(t, qt.Equals(v.rows(), 2))
				v.choose("#filter-op", "check a manifest")
				v.choose("#filter-status", "4xx")
				v.until("[...document.querySelectorAll('.rows .status')].every(e => e.innerText === '404')")
				qt.Check(t, qt.Equals(v.rows(), 2))
				qt.Check(t, qt.Equals(v.hash(), "timeline?op=manifest-head&status=4xx"))
				v.press("Content")
				v.see("Repositories", "other")
				v.back()
				v.seeIn(".groups", "check a manifest")
				qt.Check(t, qt.Equals(v.hash(), "timeline?op=manifest-head&status=4xx"))
				qt.Check(t, qt.Equals(v.rows(), 2))
				v.choose("#filter-status", "succeeded")
				v.see("No request matches the filters")
			},
		},
		{
			name: "only changes are shown",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 2))
				v.open("timeline")
				v.see("push app:v1")
				v.click("#filter-changes")
				// Three blobs and a manifest.
				v.until("document.querySelectorAll('.rows li').length === 4")
				v.until("![...document.querySelectorAll('.op')].some(e => e.innerText === 'check a blob')")
				v.reload()
				v.until("document.querySelectorAll('.rows li').length === 4")
				v.click("#filter-changes")
				v.seeIn(".groups", "check a blob", "start an upload")
				qt.Check(t, qt.Equals(v.hash(), "timeline"))
			},
		},
		{
			name: "a request is opened by a click during which others arrive",
			run: func(t *testing.T, v *visit) {
				list := func() { send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "") }
				list()
				v.open("timeline?op=tags")
				v.until("document.querySelectorAll('.rows li').length === 1")
				at := eval[[]float64](v.browser, "(r => [r.x + 50, r.y + 10])(document.querySelector('.rows button').getBoundingClientRect())")
				v.do(input.DispatchMouseEvent(input.MousePressed, at[0], at[1]).WithButton(input.Left).WithClickCount(1))
				list()
				v.until("document.querySelectorAll('.rows li').length === 2")
				v.do(input.DispatchMouseEvent(input.MouseReleased, at[0], at[1]).WithButton(input.Left).WithClickCount(1))
				v.seeIn("dialog", "GET /v2/app/tags/list")
			},
		},
		{
			name: "while the list is paused, requests wait until it continues",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				v.see("live")
				v.click("#pause")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/other/tags/list", "")
				v.see("paused: 2 are waiting", "Continue")
				qt.Check(t, qt.Equals(v.rows(), 0))
				v.click("#pause")
				v.see("app", "other", "list tags", "2 requests")
				v.gone("paused")
				qt.Check(t, qt.Equals(v.rows(), 2))
			},
		},
		{
			name: "a cleared list shows only what comes later",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				v.open("timeline")
				v.see("push app:v1")
				v.click("#clear")
				v.see("No requests yet")
				qt.Check(t, qt.Equals(v.rows(), 0))
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				v.see("list tags app")
				qt.Check(t, qt.Equals(v.rows(), 1))
			},
		},
		{
			name: "groups are opened and closed, one and all",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				push(t, v.Addr+"/other:v1", smallImage(t, 1))
				v.open("timeline")
				v.see("push app:v1", "push other:v1")
				v.press("Close all")
				v.until("document.querySelectorAll('.rows li').length === 0")
				v.clickOn("[...document.querySelectorAll('.group > button')].find(e => e.innerText.includes('push app:v1'))")
				v.until("document.querySelectorAll('.rows').length === 1")
				v.see("push a manifest")
				v.press("Open all")
				v.until("document.querySelectorAll('.rows').length === document.querySelectorAll('.group').length")
			},
		},
		{
			name: "after a restart of the server, the page connects again, and shows the new requests only",
			run: func(t *testing.T, v *visit) {
				v.allow(notConnected)
				v.allow(endedByServer)
				push(t, v.Addr+"/app:before", smallImage(t, 1))
				v.open("timeline")
				v.see("push app:before", "live")
				stays := v.mark()
				v.Kill()
				v.see("not connected")
				berth.Serve(t, "--addr="+v.Addr)
				push(t, v.Addr+"/app:after", smallImage(t, 1))
				v.see("live", "push app:after")
				v.gone("push app:before")
				push(t, v.Addr+"/app:later", smallImage(t, 2))
				v.see("push app:later")
				// The rows open the requests of the new server.
				v.clickOn("[...document.querySelectorAll('.rows button')].find(e => e.innerText.includes('app:after') && e.innerText.includes('push a manifest'))")
				v.seeIn("dialog", "PUT /v2/app/manifests/after")
				stays()
			},
		},
		{
			name: "after a break of the connection, the list goes on without gaps or repetitions",
			run: func(t *testing.T, v *visit) {
				v.allow(notConnected)
				v.allow(endedByServer)
				line := newLine(t, v.Addr)
				v.visit("http://" + line.addr + "/inspect/")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/before/tags/list", "")
				v.see("list tags before")
				line.cut()
				v.see("not connected")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/meanwhile/tags/list", "")
				line.connect()
				v.see("live", "list tags meanwhile", "list tags before")
				qt.Check(t, qt.Equals(v.rows(), 2))
			},
		},
		{
			name: "of many requests at once, the page says how many it has left out",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				v.see("live")
				for i := range 1200 {
					body(t, send(t, http.MethodGet, fmt.Sprintf("http://%s/v2/app%d/tags/list", v.Addr, i%9), ""))
				}
				v.until(`["#total", ".notice"].map(s => parseInt((document.querySelector(s) || {}).innerText?.replace(",", "")) || 0).reduce((a, b) => a + b) === 1200`)
				push(t, v.Addr+"/app:last", smallImage(t, 1))
				v.see("push app:last")
			},
		},
	})
}

// TestNoPage asks a server without the page for it.
func TestNoPage(t *testing.T) {
	run(t, []journey{
		{
			name:  "with --ui=off there is no page, and no redirect to it",
			flags: []string{"--ui=off"},
			run: func(t *testing.T, v *visit) {
				client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
				for _, path := range []string{"/inspect/", "/inspect/script.js", "/inspect/api/repositories", "/"} {
					req, err := http.NewRequest(http.MethodGet, "http://"+v.Addr+path, nil)
					qt.Assert(t, qt.IsNil(err))
					req.Header.Set("Accept", "text/html")
					resp, err := client.Do(req)
					qt.Assert(t, qt.IsNil(err))
					resp.Body.Close()
					qt.Check(t, qt.Equals(resp.StatusCode, http.StatusNotFound), qt.Commentf("%s", path))
				}
				_, err := crane.Catalog(v.Addr)
				qt.Check(t, qt.IsNil(err))
			},
		},
		{
			name: "a browser that opens the address of the registry gets to the page",
			run: func(t *testing.T, v *visit) {
				v.visit("http://" + v.Addr)
				v.see("Timeline", "No requests yet")
				qt.Check(t, qt.Equals(eval[string](v.browser, "location.href"), "http://"+v.Addr+"/inspect/"))
				resp := send(t, http.MethodGet, "http://"+v.Addr+"/", "")
				qt.Check(t, qt.Equals(resp.StatusCode, http.StatusNotFound)) // no browser
			},
		},
	})
}

// line is a connection to a server that can be cut.
type line struct {
	t        *testing.T
	addr, to string
	listener net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

func newLine(t *testing.T, to string) *line {
	l := &line{t: t, addr: "127.0.0.1:0", to: to}
	l.connect()
	t.Cleanup(l.cut)
	return l
}

// connect listens at the same address as before.
func (l *line) connect() {
	l.t.Helper()
	listener, err := net.Listen("tcp", l.addr)
	qt.Assert(l.t, qt.IsNil(err))
	l.listener, l.addr = listener, listener.Addr().String()
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", l.to)
			if err != nil {
				from.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, from, to)
			l.mu.Unlock()
			go io.Copy(from, to)
			go io.Copy(to, from)
		}
	}()
}

// cut ends all connections, and allows no others.
func (l *line) cut() {
	l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
}
