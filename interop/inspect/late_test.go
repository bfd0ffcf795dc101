// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/go-quicktest/qt"
)

// hold has requests of the page wait for release: those that a condition in JavaScript holds
// for, of the URL and the options of fetch.
func (v *visit) hold(condition string) {
	v.t.Helper()
	v.do(chromedp.Evaluate(`(() => {
		const real = window.realFetch || window.fetch;
		window.realFetch = real;
		window.held = [];
		window.fetch = (url, o) => (`+condition+`)
			? new Promise((ok, no) => held.push(Object.assign(() => real(url, o).then(ok, no), { url: String(url) })))
			: real(url, o);
	})()`, nil))
}

// unhold lets further requests through; those that wait keep waiting.
func (v *visit) unhold() {
	v.t.Helper()
	v.do(chromedp.Evaluate("window.fetch = window.realFetch", nil))
}

// release lets request i of those that wait go on, and gives the page time to do the wrong
// thing.
func (v *visit) release(i int) {
	v.t.Helper()
	v.do(chromedp.Evaluate(fmt.Sprintf("window.held[%d]()", i), nil))
	time.Sleep(wrong)
}

const wrong = 300 * time.Millisecond

const isOpenJS = "document.querySelector('dialog').open"

// TestLateResponses has the user go on before responses have come: the page shows what the
// URL says, whatever comes later.
func TestLateResponses(t *testing.T) {
	list := func(t *testing.T, v *visit, n string) {
		send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list?n="+n, "")
	}
	run(t, []journey{
		{
			name: "back while the request is fetched",
			run: func(t *testing.T, v *visit) {
				list(t, v, "1")
				v.open("timeline")
				v.hold(`String(url).includes("api/requests")`)
				v.click(".rows button")
				v.until("window.held.length === 1")
				v.back()
				v.until("location.hash === '#timeline'")
				v.release(0)
				qt.Check(t, qt.IsFalse(eval[bool](v.browser, isOpenJS)), qt.Commentf("URL %s, but a dialog", v.hash()))
			},
		},
		{
			name: "another view while the request is fetched",
			run: func(t *testing.T, v *visit) {
				list(t, v, "1")
				v.open("timeline")
				v.hold(`String(url).includes("api/requests")`)
				v.click(".rows button")
				v.until("window.held.length === 1")
				v.press("Content")
				v.see("Nothing has been pushed yet.")
				v.release(0)
				qt.Check(t, qt.IsFalse(eval[bool](v.browser, isOpenJS)), qt.Commentf("URL %s, but a dialog", v.hash()))
			},
		},
		{
			name: "two requests, the first comes last",
			run: func(t *testing.T, v *visit) {
				list(t, v, "1")
				list(t, v, "2")
				v.open("timeline")
				v.until("document.querySelectorAll('.rows button').length === 2")
				v.hold(`String(url).includes("api/requests")`)
				v.clickOn("document.querySelectorAll('.rows button')[0]")
				v.clickOn("document.querySelectorAll('.rows button')[1]")
				v.until("window.held.length === 2")
				v.unhold()
				v.release(1)
				v.seeIn("dialog", "tags/list?n=2")
				v.release(0)
				qt.Check(t, qt.StringContains(eval[string](v.browser, "document.querySelector('dialog').innerText"), "n=2"), qt.Commentf("URL %s", v.hash()))
				v.press("Close")
				time.Sleep(wrong)
				qt.Check(t, qt.IsFalse(eval[bool](v.browser, isOpenJS)), qt.Commentf("closed, but another dialog opens: URL %s", v.hash()))
			},
		},
		{
			name: "a slow manifest, another, and back",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				push(t, v.Addr+"/app:v2", smallImage(t, 2))
				v.open("repositories")
				v.hold(`String(url).includes("ref=v1")`)
				v.do(chromedp.Evaluate("location.hash = '#manifest?repo=app&ref=v1'", nil))
				v.until("window.held.length === 1")
				v.do(chromedp.Evaluate("location.hash = '#manifest?repo=app&ref=v2'", nil))
				v.see("app:v2")
				v.unhold()
				v.release(0)
				v.back()
				v.until("location.hash.includes('v1')")
				v.until("document.querySelector('main h1')?.innerText === 'app:v1'")
			},
		},
		{
			name: "another view while findings are fetched",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodPut, "http://"+v.Addr+"/v2/app/manifests/v1", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
				v.open("timeline")
				v.hold(`String(url).includes("api/findings")`)
				v.press("Check against the spec")
				v.until("window.held.length === 1")
				v.press("Content")
				v.see("app")
				v.release(0)
				qt.Check(t, qt.Equals(v.hash(), "repositories"))
			},
		},
		{
			name: "a request while findings are fetched",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodPut, "http://"+v.Addr+"/v2/app/manifests/v1", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
				v.open("timeline")
				v.hold(`String(url).includes("api/findings")`)
				v.press("Check against the spec")
				v.until("window.held.length === 1")
				v.click(".rows button")
				v.seeIn("dialog", "PUT /v2/app/manifests/v1")
				v.release(0)
				v.press("Close")
				time.Sleep(wrong)
				qt.Check(t, qt.IsFalse(eval[bool](v.browser, isOpenJS)))
				qt.Check(t, qt.Equals(v.hash(), "timeline"), qt.Commentf("closed, but the URL says open"))
				v.click(".rows button")
				v.until(isOpenJS)
			},
		},
		{
			name: "the timeline right after a search for repositories",
			run: func(t *testing.T, v *visit) {
				list(t, v, "1")
				v.open("repositories")
				v.click("input[type=search]")
				v.do(chromedp.KeyEvent("zzz"), chromedp.Evaluate("document.querySelector('header nav a').click()", nil))
				v.until("location.hash.startsWith('#timeline')")
				time.Sleep(wrong)
				list(t, v, "2")
				v.until("document.querySelectorAll('.rows button').length === 2")
				qt.Check(t, qt.Equals(v.hash(), "timeline"))
				qt.Check(t, qt.Equals(eval[string](v.browser, "document.querySelector('#filter-q').value"), ""))
			},
		},
		{
			name: "a search in a layer before its files have come",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("manifest?repo=team/app&ref=latest")
				v.see("Made by")
				v.hold(`String(url).includes("api/layer")`)
				v.click("tr:nth-child(3) td a")
				v.until("window.held.length === 1")
				v.enter("input[type=search]", "conf")
				v.until("window.held.length === 2")
				v.do(chromedp.KeyEvent("ig")) // as on a busy machine: keys come so late that the page searches for the first ones
				v.until(`window.held.at(-1).url.includes("q=config")`)
				for i := range eval[int](v.browser, "window.held.length") {
					v.release(i)
				}
				v.see("app/config.yaml")
			},
		},
		{
			name: "elsewhere while a deletion goes on",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				v.open("manifest?repo=app&ref=v1")
				v.click("#untag")
				v.hold(`o && o.method === "DELETE"`)
				v.click("#confirm")
				v.until("window.held.length === 1")
				v.do(chromedp.KeyEvent(kb.Escape))
				v.until("!" + isOpenJS)
				v.press("Timeline")
				v.click(".rows button")
				v.seeIn("dialog", "/v2/")
				was := v.hash()
				v.release(0)
				qt.Check(t, qt.Equals(v.hash(), was))
				qt.Check(t, qt.IsTrue(eval[bool](v.browser, isOpenJS)))
			},
		},
		{
			name: "show more after an error",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				v.do(chromedp.Evaluate(`window.calls = 0; window.fetch = async (url) => {
					if (++calls === 2) throw new TypeError("Failed to fetch");
					return new Response(JSON.stringify({ items: ["r" + calls], next: "r" + calls }));
				}`, nil))
				v.press("Content")
				v.press("Show more")
				v.see("Failed to fetch")
				v.until("document.querySelector('button.more')?.disabled === false")
			},
		},
	})
}
