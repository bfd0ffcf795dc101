// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/go-quicktest/qt"
)

// TestRequest opens requests of the list.
func TestRequest(t *testing.T) {
	run(t, []journey{
		{
			name: "an opened request shows its headers, but no password",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/", "", "Authorization", "Basic YWxpY2U6c2VjcmV0", "X-Api-Key", "secret", "User-Agent", "curl/8.0")
				v.see("curl check the API")
				v.click(".rows button")
				v.seeIn("dialog", "GET /v2/", "200", "Headers of the request", "Authorization Basic (hidden)", "X-Api-Key (hidden)", "User-Agent curl/8.0", "Headers of the response", "Content-Type application/json")
				qt.Check(t, qt.IsFalse(strings.Contains(eval[string](v.browser, "document.documentElement.outerHTML"), "YWxpY2U6c2VjcmV0")))
				v.press("Close")
				v.gone("Headers of the request")
				v.until("location.hash === '#timeline'")
			},
		},
		{
			name: "the back button closes a request, and the URL opens it again",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list?n=5", "")
				v.open("timeline")
				v.click(".rows button")
				v.seeIn("dialog", "GET /v2/app/tags/list?n=5", "section “Listing Tags” of the distribution-spec")
				v.back()
				v.until("!document.querySelector('dialog').open")
				v.do(chromedp.Evaluate("history.forward()", nil))
				v.seeIn("dialog", "GET /v2/app/tags/list?n=5")
				v.reload()
				v.seeIn("dialog", "GET /v2/app/tags/list?n=5")
			},
		},
		{
			name: "a request that is opened again at once stays open, however late the event of its closing comes",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				v.open("timeline")
				v.click(".rows button")
				v.seeIn("dialog", "GET /v2/app/tags/list")
				v.do(chromedp.Evaluate(`
					const dialog = document.querySelector("dialog");
					dialog.addEventListener("close", (e) => {
						if (e.isTrusted) e.stopImmediatePropagation(), dialog.dataset.held = "true";
					}, true);
					addEventListener("popstate", () => {
						if (dialog.dataset.held) dialog.dispatchEvent(new Event("close"));
					});
				`, nil))
				v.back()
				v.until("document.querySelector('dialog').dataset.held")
				v.do(chromedp.Evaluate("history.forward()", nil))
				v.seeIn("dialog", "GET /v2/app/tags/list")
				v.do(chromedp.Evaluate(`document.querySelector("dialog").dispatchEvent(new Event("close"))`, nil))
				v.seeIn("dialog", "GET /v2/app/tags/list")
				qt.Check(t, qt.StringContains(v.hash(), "open="))
			},
		},
		{
			name: "a closed request is not in the way of the back button",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				v.open("repositories")
				v.press("Timeline")
				for range 2 {
					v.click(".rows button")
					v.seeIn("dialog", "GET /v2/app/tags/list")
					v.press("Close")
					v.until("location.hash === '#timeline' && !document.querySelector('dialog').open")
				}
				v.back()
				v.see("Repositories", "Nothing has been pushed yet.")
			},
		},
		{
			name: "an error is explained, with the section of the spec",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/manifests/v1", "", "Accept", "application/vnd.oci.image.manifest.v1+json")
				v.see("1 failed")
				v.click(".rows button")
				v.seeIn("dialog", "404 pull a manifest, section “Pulling manifests” of the distribution-spec", "NAME_UNKNOWN", "There is no such repository", "section “Error Codes”")
			},
		},
		{
			name: "a request that violates the spec has a finding",
			run: func(t *testing.T, v *visit) {
				manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
				send(t, http.MethodPut, "http://"+v.Addr+"/v2/app/manifests/v1", manifest)
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				v.open("timeline")
				v.press("Check against the spec")
				v.see("1 finding")
				v.until("document.querySelectorAll('.rows li').length === 1")
				qt.Check(t, qt.Equals(v.hash(), "timeline?findings=1"))
				v.click(".rows button")
				v.seeIn("dialog", "SHOULD: no Content-Type (section \"Pushing Manifests\")")
			},
		},
		{
			name: "a request is copied as a curl command, which gets the same response",
			run: func(t *testing.T, v *visit) {
				program(t, "curl")
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				const accept = "application/vnd.oci.image.manifest.v1+json"
				want := send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/manifests/v1", "", "Accept", accept)
				v.allowClipboard()
				v.open("timeline?op=manifest-get")
				v.click(".rows button")
				v.click("#curl")
				command := v.copied()
				qt.Check(t, qt.Equals(command, "curl -i -H 'Accept: "+accept+"' 'http://"+v.Addr+"/v2/app/manifests/v1'"))
				got := program(t, "sh")("-c", command)
				head, content, _ := strings.Cut(got, "\r\n\r\n")
				qt.Check(t, qt.Equals(content, body(t, want)))
				qt.Check(t, qt.StringContains(head, "HTTP/1.1 200 OK"))
				qt.Check(t, qt.StringContains(head, "Docker-Content-Digest: "+want.Header.Get("Docker-Content-Digest")))
			},
		},
		{
			name: "the requests that the filters leave are exported as a HAR file",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 2))
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list?n=5&last=a", "")
				v.open("timeline?q=app")
				v.see("list tags", "push app:v1")
				shown := v.rows()
				dir := t.TempDir()
				v.doInBrowser(cdpbrowser.SetDownloadBehavior(cdpbrowser.SetDownloadBehaviorBehaviorAllow).WithDownloadPath(dir).WithBrowserContextID(v.window))
				v.click("#har")
				v.see("requests exported")
				var har archive
				for range 400 {
					data, err := os.ReadFile(filepath.Join(dir, "berth.har"))
					if err == nil && json.Unmarshal(data, &har) == nil {
						break
					}
					time.Sleep(25 * time.Millisecond)
				}
				checkArchive(t, har)
				qt.Check(t, qt.HasLen(har.Log.Entries, shown))
				last := har.Log.Entries[len(har.Log.Entries)-1]
				qt.Check(t, qt.Equals(*last.Request.URL, "http://"+v.Addr+"/v2/app/tags/list?n=5&last=a"))
				qt.Check(t, qt.DeepEquals(*last.Request.QueryString, []pair{{"n", "5"}, {"last", "a"}}))
			},
		},
		{
			name: "a request is opened and closed with the keyboard alone",
			run: func(t *testing.T, v *visit) {
				send(t, http.MethodGet, "http://"+v.Addr+"/v2/app/tags/list", "")
				v.open("timeline")
				v.see("list tags")
				focused := func() string {
					return eval[string](v.browser, `(() => { const e = document.activeElement; return e.dataset.id ? "row" : e.id || e.innerText || e.tagName; })()`)
				}
				v.do(chromedp.KeyEvent(kb.Tab))
				qt.Assert(t, qt.Equals(focused(), "skip")) // the first is the link to the content
				v.do(chromedp.KeyEvent(kb.Enter))
				qt.Assert(t, qt.Equals(focused(), "main"))
				for range 30 {
					if v.do(chromedp.KeyEvent(kb.Tab)); focused() == "row" {
						break
					}
				}
				qt.Assert(t, qt.Equals(focused(), "row"))
				v.do(chromedp.KeyEvent(kb.Enter))
				v.seeIn("dialog", "GET /v2/app/tags/list")
				qt.Assert(t, qt.Equals(focused(), "dialog-title"))
				for range 20 { // the focus stays in the dialog, or goes to the browser itself
					v.do(chromedp.KeyEvent(kb.Tab))
					qt.Assert(t, qt.IsTrue(eval[bool](v.browser, `document.querySelector("dialog").contains(document.activeElement) || document.activeElement === document.body`)))
				}
				v.do(chromedp.KeyEvent(kb.Escape))
				v.until("!document.querySelector('dialog').open")
				qt.Assert(t, qt.Equals(focused(), "row"))
				v.until("location.hash === '#timeline'")
			},
		},
	})
}

// archive is what HAR 1.2 requires. A member that is missing is nil.
type archive struct {
	Log struct {
		Version *string                          `json:"version"`
		Creator *struct{ Name, Version *string } `json:"creator"`
		Entries []struct {
			StartedDateTime *time.Time `json:"startedDateTime"`
			Time            *float64   `json:"time"`
			Request         struct {
				Method      *string `json:"method"`
				URL         *string `json:"url"`
				HTTPVersion *string `json:"httpVersion"`
				Cookies     *[]pair `json:"cookies"`
				Headers     *[]pair `json:"headers"`
				QueryString *[]pair `json:"queryString"`
				HeadersSize *int64  `json:"headersSize"`
				BodySize    *int64  `json:"bodySize"`
			} `json:"request"`
			Response struct {
				Status      *int    `json:"status"`
				StatusText  *string `json:"statusText"`
				HTTPVersion *string `json:"httpVersion"`
				Cookies     *[]pair `json:"cookies"`
				Headers     *[]pair `json:"headers"`
				Content     struct {
					Size     *int64  `json:"size"`
					MimeType *string `json:"mimeType"`
				} `json:"content"`
				RedirectURL *string `json:"redirectURL"`
				HeadersSize *int64  `json:"headersSize"`
				BodySize    *int64  `json:"bodySize"`
			} `json:"response"`
			Cache   *struct{} `json:"cache"`
			Timings struct {
				Send, Wait, Receive *float64
			} `json:"timings"`
			ServerIPAddress *string `json:"serverIPAddress"`
		} `json:"entries"`
	} `json:"log"`
}

type pair struct{ Name, Value string }

// checkArchive checks that no required member is missing, and the form of others.
func checkArchive(t *testing.T, har archive) {
	t.Helper()
	qt.Assert(t, qt.IsNotNil(har.Log.Creator))
	qt.Check(t, qt.Equals(*har.Log.Version, "1.2"))
	qt.Check(t, qt.IsNotNil(har.Log.Creator.Name))
	qt.Check(t, qt.IsNotNil(har.Log.Creator.Version))
	for _, e := range har.Log.Entries {
		for _, missing := range []bool{
			e.StartedDateTime == nil, e.Time == nil, e.Cache == nil,
			e.Request.Method == nil, e.Request.URL == nil, e.Request.HTTPVersion == nil, e.Request.Cookies == nil,
			e.Request.Headers == nil, e.Request.QueryString == nil, e.Request.HeadersSize == nil, e.Request.BodySize == nil,
			e.Response.Status == nil, e.Response.StatusText == nil, e.Response.HTTPVersion == nil, e.Response.Cookies == nil,
			e.Response.Headers == nil, e.Response.Content.Size == nil, e.Response.Content.MimeType == nil,
			e.Response.RedirectURL == nil, e.Response.HeadersSize == nil, e.Response.BodySize == nil,
			e.Timings.Send == nil, e.Timings.Wait == nil, e.Timings.Receive == nil,
		} {
			qt.Check(t, qt.IsFalse(missing))
		}
		// Optional, but the address of the server if it is there.
		qt.Check(t, qt.IsTrue(e.ServerIPAddress == nil || *e.ServerIPAddress != ""))
	}
}
