// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// views are all that the page shows, with an element that a complete view has. On some,
// something is clicked first.
var views = []struct{ name, hash, click, ready string }{
	{"timeline", "timeline", "", ".rows"},
	{"timeline-closed", "timeline", "#open-all + button", ".group:not(:has(.rows))"},
	{"timeline-nothing", "timeline?q=nothing", "", ".empty:not([hidden])"},
	{"findings", "timeline", "#lint", ".badge.warn"},
	{"request", "timeline?op=manifest-put", ".rows button", "dialog #curl"},
	{"error", "timeline?op=manifest-get&status=failed", ".rows button", "dialog .notice"},
	{"repositories", "repositories", "", ".names a"},
	{"repository", "repository?repo=team/app", "#untagged", "[aria-label='Manifests without a tag']"},
	{"index", "manifest?repo=team/app&ref=v1", "", "pre"},
	{"image", "manifest?repo=team/app&ref=latest", "details summary", "details[open] pre"},
	{"sparse", "manifest?repo=sparse&ref=v1", "", "pre"},
	{"delete", "manifest?repo=team/app&ref=v1", "#delete", "dialog #confirm"},
	{"layer", "manifest?repo=team/app&ref=latest", "tr:nth-child(4) td a", "[aria-label=Files]"},
	{"file", "manifest?repo=team/app&ref=latest", "tr:nth-child(3) td a; tr:nth-child(3) button", "dialog pre"},
	{"pictures", "pictures", "", "[aria-label='Shared blobs']"},
}

// TestLook opens each view in light and dark, wide and narrow. It keeps pictures of them, in
// the folder BERTH_SCREENSHOTS, checks that narrow screens need not be scrolled sideways, and
// has axe-core look for what people with disabilities could not use.
func TestLook(t *testing.T) {
	s := berth.Serve(t, "--allow-sparse")
	seed(t, s.Addr)
	manifest, err := appIndex(t).RawManifest()
	qt.Assert(t, qt.IsNil(err))
	send(t, http.MethodPut, "http://"+s.Addr+"/v2/sparse/manifests/v1", string(manifest))
	source, missing := axe()
	if missing != nil && os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
	for _, look := range []struct {
		name, scheme string
		width        int64
		background   string
	}{
		{"light", "light", 1280, "rgb(255, 255, 255)"},
		{"dark", "dark", 1280, "rgb(20, 23, 28)"},
		{"narrow", "light", 360, "rgb(255, 255, 255)"},
	} {
		t.Run(look.name, func(t *testing.T) {
			t.Parallel()
			v := &visit{browser: newBrowser(t), Server: s}
			v.do(
				emulation.SetDeviceMetricsOverride(look.width, 800, 1, look.width < 500),
				emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
					{Name: "prefers-color-scheme", Value: look.scheme},
					{Name: "prefers-reduced-motion", Value: "reduce"},
				}),
			)
			for _, view := range views {
				v.open(view.hash)
				for _, selector := range strings.Split(view.click, "; ") {
					if selector != "" {
						v.click(selector)
					}
				}
				v.until(fmt.Sprintf("document.querySelector(%s)", quote(view.ready)))
				v.until("[...document.querySelectorAll('.dim[role=status]')].length === 0")
				qt.Check(t, qt.Equals(eval[string](v.browser, "getComputedStyle(document.documentElement).backgroundColor"), look.background))
				for _, e := range []string{"document.scrollingElement", "document.querySelector('dialog')"} {
					width := eval[int64](v.browser, e+".scrollWidth")
					qt.Check(t, qt.IsTrue(width <= look.width), qt.Commentf("%s of %s has a width of %d", e, view.name, width))
				}
				v.shot(view.name + "-" + look.name)
				if missing == nil {
					v.checkAccess(source, view.name)
				}
			}
			v.visit("about:blank") // before the server ends
			if missing != nil {
				t.Skipf("nothing was found wrong, but axe-core, which npm fetches, is missing: %v", missing)
			}
		})
	}
}

// checkAccess has axe-core, whose source it gets, check the page, and fails for each finding.
func (v *visit) checkAccess(source, view string) {
	v.t.Helper()
	v.do(chromedp.Evaluate(source, nil))
	var findings []struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	result := eval[string](v.browser, `axe.run(document, { preload: false, resultTypes: ["violations"] }).then(r => JSON.stringify(r.violations))`)
	qt.Assert(v.t, qt.IsNil(json.Unmarshal([]byte(result), &findings)))
	for _, f := range findings {
		v.t.Errorf("%s: %s (%s, %s), for example %s\n%s", view, f.Help, f.ID, f.Impact, f.Nodes[0].HTML, f.Nodes[0].FailureSummary)
	}
}

// axe returns the script axe-core of Deque Systems, which npm fetches into a temporary folder.
func axe() (string, error) {
	dir, err := os.MkdirTemp("", "axe")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("npm", "pack", "--loglevel=error", "axe-core@4")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack: %w: %s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("npm pack: no package: %v", err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		return "", err
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			return "", err
		}
		if h.Name == "package/axe.min.js" {
			script, err := io.ReadAll(r)
			return string(script), err
		}
	}
}
