// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/go-quicktest/qt"
)

// TestRepositories finds repositories, tags and manifests.
func TestRepositories(t *testing.T) {
	run(t, []journey{
		{
			name: "an empty registry says so",
			run: func(t *testing.T, v *visit) {
				v.open("repositories")
				v.see("Nothing has been pushed yet.")
				v.open("pictures")
				v.see("Nothing has been pushed yet.", "0 requests")
			},
		},
		{
			name: "more than 100 repositories are listed page by page, and found by a part of their names",
			run: func(t *testing.T, v *visit) {
				pushEmpty(t, v.Addr, 250, func(i int) string { return fmt.Sprintf("team%d/app%03d", i%2, i) }, "v1")
				v.open("repositories")
				v.until("document.querySelectorAll('.names a').length === 100")
				v.press("Show more")
				v.until("document.querySelectorAll('.names a').length === 200")
				v.press("Show more")
				v.until("document.querySelectorAll('.names a').length === 250")
				qt.Check(t, qt.Equals(eval[int](v.browser, "new Set([...document.querySelectorAll('.names a')].map(a => a.innerText)).size"), 250))
				v.gone("Show more")
				v.enter("input[type=search]", "APP24")
				v.until("document.querySelectorAll('.names a').length === 10")
				v.reload()
				v.until("document.querySelectorAll('.names a').length === 10")
				v.press("team0/app240")
				v.see("Tags", "v1", "1 manifest")
				v.back()
				v.until("document.querySelectorAll('.names a').length === 10")
				v.enter("input[type=search]", "nothing")
				v.see("No repository has a name with that.")
			},
		},
		{
			name: "10,000 repositories are no reason for a late first paint",
			run: func(t *testing.T, v *visit) {
				pushEmpty(t, v.Addr, 10_000, func(i int) string { return fmt.Sprintf("group%d/app%d", i%100, i) }, "v1")
				v.open("repositories")
				v.until("document.querySelectorAll('.names a').length === 100")
				t.Logf("the first contentful paint was after %.0f ms", v.firstPaint())
				v.enter("input[type=search]", "app9999")
				v.see("group99/app9999")
				v.until("document.querySelectorAll('.names a').length === 1")
			},
		},
		{
			name: "more than 50 tags are listed page by page, and found by a part of their names",
			run: func(t *testing.T, v *visit) {
				pushEmpty(t, v.Addr, 120, func(int) string { return "app" }, "1.%d")
				v.open("repository?repo=app")
				v.until("document.querySelectorAll('tbody tr').length === 50")
				v.press("Show more")
				v.until("document.querySelectorAll('tbody tr').length === 100")
				v.press("Show more")
				v.until("document.querySelectorAll('tbody tr').length === 120")
				v.enter("input[type=search]", "1.11")
				v.until("document.querySelectorAll('tbody tr').length === 11")
				v.press("1.119")
				v.see("app:1.119", "image index")
			},
		},
		{
			name: "manifests without a tag are found, with those that they refer to",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				push(t, v.Addr+"/team/app:latest", smallImage(t, 1)) // the previous image has no tag now
				v.open("repository?repo=team/app")
				v.see("v1", "latest", "linux/amd64, linux/arm64")
				v.press("Find manifests without a tag")
				// An SBOM and two signatures. The previous image belongs to the index.
				v.until("document.querySelectorAll('[aria-label=\"Manifests without a tag\"] tbody tr').length === 3")
				v.clickOn("document.querySelector('[aria-label=\"Manifests without a tag\"] td:nth-child(3) a')")
				v.see("Kind", "Refers to sha256:")
			},
		},
		{
			name: "a repository that does not exist is an error that can be read",
			run: func(t *testing.T, v *visit) {
				v.allow(failedWith + "404")
				v.allow(failedWith + "400")
				v.open("repository?repo=none")
				v.see("none")
				v.until("document.querySelector('.notice.bad, .empty')")
				v.open("manifest?repo=none&ref=v1")
				v.until("document.querySelector('.notice.bad')")
				v.open("manifest?repo=UPPER&ref=v1")
				v.until("document.querySelector('.notice.bad')")
			},
		},
		{
			name: "all of the content is reached with the keyboard alone",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				v.open("timeline")
				follow := func(text string) {
					t.Helper()
					for range 60 {
						v.do(chromedp.KeyEvent(kb.Tab))
						if eval[bool](v.browser, "(document.activeElement.innerText || '').trim() === "+quote(text)) {
							v.do(chromedp.KeyEvent(kb.Enter))
							return
						}
					}
					t.Fatalf("no key leads to %q", text)
				}
				follow("Content")
				v.until("document.querySelector('.names a')")
				follow("app")
				v.until("document.querySelector('td a')")
				follow("v1")
				v.see("Layers")
				follow(eval[string](v.browser, "document.querySelector('td a').innerText"))
				v.see("etc/file0")
				follow("etc/file0")
				v.seeIn("dialog", "x")
				v.do(chromedp.KeyEvent(kb.Escape))
				v.until("!document.querySelector('dialog').open && document.activeElement.innerText === 'etc/file0'")
			},
		},
	})
}

// pushEmpty pushes n indexes without manifests. In a tag, %d is their number.
func pushEmpty(t *testing.T, host string, n int, repo func(int) string, tag string) {
	t.Helper()
	var wait sync.WaitGroup
	next := make(chan int)
	for range 8 {
		wait.Go(func() {
			for i := range next {
				tag := tag
				if strings.Contains(tag, "%d") {
					tag = fmt.Sprintf(tag, i)
				}
				content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"number":"%d"}}`, i)
				req, err := http.NewRequest(http.MethodPut, "http://"+host+"/v2/"+repo(i)+"/manifests/"+tag, strings.NewReader(content))
				qt.Check(t, qt.IsNil(err))
				req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
				resp, err := http.DefaultClient.Do(req)
				if qt.Check(t, qt.IsNil(err)) {
					qt.Check(t, qt.Equals(resp.StatusCode, http.StatusCreated))
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
}
