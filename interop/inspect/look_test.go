// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestScreenshots keeps pictures of each view, in light and dark, wide and narrow.
func TestScreenshots(t *testing.T) {
	s := berth.Serve(t)
	seed(t, s.Addr)
	b := newBrowser(t)
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{
		{"light", "light", 1280},
		{"dark", "dark", 1280},
		{"narrow", "light", 360},
	} {
		b.do(
			emulation.SetDeviceMetricsOverride(look.width, 800, 1, look.width < 500),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}),
		)
		for _, view := range []struct{ name, hash, ready string }{
			{"timeline", "timeline", ".group"},
			{"request", "timeline?open=1", "#curl"},
			{"repositories", "repositories", ".names a"},
			{"repository", "repository?repo=team/app", "td a"},
			{"index", "manifest?repo=team/app&ref=v1", "pre"},
			{"image", "manifest?repo=team/app&ref=latest", "pre"},
			{"pictures", "pictures", "svg"},
		} {
			b.do(chromedp.Navigate("about:blank"), chromedp.Navigate("http://"+s.Addr+"/inspect/#"+view.hash), chromedp.WaitVisible(view.ready), chromedp.Sleep(300*time.Millisecond))
			t.Log(b.shot(view.name + "-" + look.name))
		}
	}
}
