// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// journey is something that a person does with the page.
type journey struct {
	name  string
	flags []string // of berth serve
	run   func(*testing.T, *visit)
}

// visit is a browser, and the server whose page it opens.
type visit struct {
	*browser
	*berth.Server
	opened int
}

// run runs journeys, each with a server and a window of its own.
func run(t *testing.T, journeys []journey) {
	for _, j := range journeys {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			s := berth.Serve(t, j.flags...) // until the window is closed
			j.run(t, &visit{browser: newBrowser(t), Server: s})
		})
	}
}

// open loads the page, and opens a view, of which a heading is the first thing to see.
func (v *visit) open(view string) {
	v.t.Helper()
	v.opened++ // for the same URL, the browser would not load the page
	v.do(chromedp.Navigate(fmt.Sprintf("http://%s/inspect/?%d#%s", v.Addr, v.opened, view)))
	v.until("document.querySelector('main h1')")
}

// visit opens a URL.
func (b *browser) visit(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

// eval returns the value of an expression.
func eval[T any](b *browser, expression string) (value T) {
	b.t.Helper()
	b.do(chromedp.Evaluate(expression, &value, func(p *runtime.EvaluateParams) *runtime.EvaluateParams {
		return p.WithAwaitPromise(true)
	}))
	return value
}

// until waits until an expression is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	for range 400 {
		if eval[bool](b, "(async () => !!await ("+expression+"))()") {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	b.t.Fatalf("never true: %s\nThe page:\n%s", expression, eval[string](b, "document.body.innerText"))
}

// text is a function that returns the text of an element, but for lists of options. Each space
// is a single one. An element that cannot be seen, such as a closed dialog, has an innerText.
const text = `(e => {
	if (!e?.checkVisibility()) return "";
	const plain = (e) => (e.innerText || "").replace(/\s+/g, " ");
	return [...e.querySelectorAll("select")].reduce((t, s) => t.replace(plain(s), ""), plain(e));
})`

// see waits until a person can see texts on the page.
func (b *browser) see(texts ...string) {
	b.t.Helper()
	b.seeIn("body", texts...)
}

// seeIn waits until a person can see texts in an element.
func (b *browser) seeIn(selector string, texts ...string) {
	b.t.Helper()
	for _, want := range texts {
		b.until(fmt.Sprintf("%s(document.querySelector(%s)).includes(%s)", text, quote(selector), quote(want)))
	}
}

// gone waits until a text is not on the page.
func (b *browser) gone(texts ...string) {
	b.t.Helper()
	for _, unwanted := range texts {
		b.until(fmt.Sprintf("!%s(document.body).includes(%s)", text, quote(unwanted)))
	}
}

// count returns the number of elements that can be seen.
func (b *browser) count(selector string) int {
	b.t.Helper()
	return eval[int](b, fmt.Sprintf("[...document.querySelectorAll(%s)].filter(e => e.checkVisibility()).length", quote(selector)))
}

// quote returns a string of JavaScript.
func quote(s string) string {
	data, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// click clicks with the mouse on an element that can be seen, and that nothing covers.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.clickOn(fmt.Sprintf("document.querySelector(%s)", quote(selector)))
}

// press clicks on the button, link or heading with a text.
func (b *browser) press(label string) {
	b.t.Helper()
	b.clickOn(fmt.Sprintf(`[...document.querySelectorAll("dialog[open] button, dialog[open] a, dialog[open] summary, :not(dialog) button, a, summary")].find(e => e.checkVisibility() && %s(e).trim() === %s)`, text, quote(label)))
}

func (b *browser) clickOn(element string) {
	b.t.Helper()
	at := `(() => {
		const e = ` + element + `;
		if (!e || e.disabled) return null;
		e.scrollIntoView({ block: "center", behavior: "instant" });
		const r = e.getClientRects()[0];
		if (!r) return null;
		const x = r.x + Math.min(r.width / 2, 60), y = r.y + r.height / 2, top = document.elementFromPoint(x, y);
		return top && (e.contains(top) || top.contains(e) && e.tagName === "OPTION") ? [x, y] : null;
	})()`
	var last []float64
	for range 400 {
		p := eval[[]float64](b, at)
		if len(p) == 2 && slices.Equal(p, last) { // it does not move
			b.do(chromedp.MouseClickXY(p[0], p[1]))
			return
		}
		last = p
		time.Sleep(25 * time.Millisecond)
	}
	b.t.Fatalf("nothing to click on: %s\nThe page:\n%s", element, eval[string](b, "document.body.innerText"))
}

// enter enters a text in a field, after what it contains.
func (b *browser) enter(selector, keys string) {
	b.t.Helper()
	b.click(selector)
	b.do(chromedp.KeyEvent(keys))
}

// choose chooses an option of a list by its text.
func (b *browser) choose(selector, option string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(() => {
		const s = document.querySelector(%s), o = s && [...s.options].find(o => o.text === %s);
		if (!o) return false;
		s.focus();
		s.value = o.value;
		s.dispatchEvent(new Event("change", { bubbles: true }));
		return true;
	})()`, quote(selector), quote(option)))
}

// back goes back in the browser's history.
func (b *browser) back() {
	b.t.Helper()
	b.do(chromedp.Evaluate("history.back()", nil))
}

// reload loads the page again.
func (b *browser) reload() {
	b.t.Helper()
	b.do(chromedp.Reload())
	b.until("document.querySelector('main h1')")
}

// copied returns the content of the clipboard after the page has said that it copied.
func (b *browser) copied() string {
	b.t.Helper()
	b.seeIn("#said", "Copied")
	return eval[string](b, "navigator.clipboard.readText()")
}

// allowClipboard lets the test read the clipboard.
func (v *visit) allowClipboard() {
	v.t.Helper()
	v.doInBrowser(cdpbrowser.GrantPermissions([]cdpbrowser.PermissionType{
		cdpbrowser.PermissionTypeClipboardReadWrite, cdpbrowser.PermissionTypeClipboardSanitizedWrite,
	}).WithOrigin("http://" + v.Addr).WithBrowserContextID(v.window))
}

// mark marks the page, and returns a function that fails if it has been loaded again.
func (b *browser) mark() func() {
	b.t.Helper()
	b.do(chromedp.Evaluate("window.marked = true", nil))
	return func() {
		b.t.Helper()
		qt.Assert(b.t, qt.IsTrue(eval[bool](b, "window.marked === true")), qt.Commentf("the page has been loaded again"))
	}
}

// groups returns the titles of the groups of requests, the newest first.
func (b *browser) groups() []string {
	b.t.Helper()
	return eval[[]string](b, `[...document.querySelectorAll(".group")].filter(e => e.checkVisibility()).map(e => e.querySelector(".what").innerText)`)
}

// rows returns the number of requests that can be seen, in all groups.
func (b *browser) rows() int {
	b.t.Helper()
	return b.count(".rows li")
}

// hash returns the fragment of the URL.
func (b *browser) hash() string {
	b.t.Helper()
	return strings.TrimPrefix(eval[string](b, "location.hash"), "#")
}
