// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/inspect"
	"github.com/berth-oci/registry/registrytest"
)

// TestReport opens a report, which needs no server, and follows its links.
func TestReport(t *testing.T) {
	t.Parallel()
	server := registrytest.NewServer(t)
	i := inspect.New(server.Store, inspect.Options{})
	defer i.Close()
	server.Use(i.Handler)
	seed(t, server.Host)
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(i.WriteReport(t.Context(), f, "TestReport", inspect.Fault{Rule: "blob-get", Requests: 3})))
	qt.Assert(t, qt.IsNil(f.Close()))
	server.Close()

	b := newBrowser(t)
	follow := func(link string) chromedp.Action { return chromedp.Click(link, chromedp.BySearch) }
	b.do(
		chromedp.Navigate("file://"+path),
		chromedp.WaitVisible(`//td/bdi[text()="blob-get"]`, chromedp.BySearch),
		chromedp.Click(`.rows button`, chromedp.ByQuery), chromedp.WaitVisible("#curl"), chromedp.Click("dialog .close", chromedp.ByQuery), chromedp.WaitNotVisible("#dialog", chromedp.ByQuery),
		follow(`//a[text()="Content"]`), follow(`//a[bdi="team/app"]`), follow(`//a[bdi="v1"]`), follow(`//a[bdi="linux/amd64"]`),
		chromedp.WaitVisible(`//h2[text()="Config"]`, chromedp.BySearch),
		chromedp.Click(`//table//a`, chromedp.BySearch), chromedp.WaitVisible(`//bdi[text()="etc/os-release"]`, chromedp.BySearch),
		follow(`//a[text()="Pictures"]`), chromedp.WaitVisible("svg.chart", chromedp.ByQuery),
	)
	t.Log(b.shot("report"))
}
