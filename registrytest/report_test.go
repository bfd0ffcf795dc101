// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// ended is a test that has ended.
type ended struct {
	testing.TB
	failed   bool
	cleanups []func()
	log      string
}

func (e *ended) Failed() bool                    { return e.failed }
func (e *ended) Cleanup(f func())                { e.cleanups = append(e.cleanups, f) }
func (e *ended) Logf(format string, args ...any) { e.log += fmt.Sprintf(format, args...) }

// TestReport reads the report of a test that has failed, whose registry has hostile content.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("REGISTRYTEST_REPORTS", dir)
	for _, failed := range []bool{false, true} {
		test := &ended{TB: t, failed: failed}
		server := registrytest.NewServer(t)
		faults := registrytest.NewFaults(
			registrytest.Rule{Op: registry.OpTags, Fault: registrytest.RetryAfter(time.Second)},
			registrytest.Rule{Op: registry.OpCatalog, Fault: registrytest.Corrupt()},
		)
		server.Use(faults.Handler)
		server.Use(registrytest.Report(test, server.Store, faults))
		_, err := registrytest.PushContent(t.Context(), server.Store, "app", registrytest.Content{
			Blobs: map[string]string{"layer": "</script><script>alert(1)</script>"},
		})
		qt.Assert(t, qt.IsNil(err))
		for _, path := range []string{"/v2/app/tags/list", "/v2/app/manifests/none?x=%3C/script%3E"} {
			req, err := http.NewRequest("GET", server.URL+path, nil)
			qt.Assert(t, qt.IsNil(err))
			req.Header.Set("Authorization", "Bearer planted-secret")
			req.Header.Set("User-Agent", "</script><script>alert(2)</script>")
			resp, err := http.DefaultClient.Do(req)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
		}
		for _, cleanup := range test.cleanups {
			cleanup()
		}
		files, err := os.ReadDir(dir)
		qt.Assert(t, qt.IsNil(err))
		if !failed {
			qt.Check(t, qt.HasLen(files, 0))
			continue
		}
		qt.Assert(t, qt.HasLen(files, 1))
		qt.Check(t, qt.StringContains(test.log, files[0].Name()))
		data, err := os.ReadFile(dir + "/" + files[0].Name())
		qt.Assert(t, qt.IsNil(err))
		checkReport(t, string(data))
	}
}

func checkReport(t *testing.T, html string) {
	for _, hostile := range []string{"alert(", "planted-secret"} {
		qt.Check(t, qt.IsFalse(strings.Contains(html, "<script>"+hostile) || hostile == "planted-secret" && strings.Contains(html, hostile)))
	}
	// The policy allows its script and its style, and no others.
	for kind, tag := range map[string]string{"script-src": "script", "style-src": "style"} {
		_, rest, ok := strings.Cut(html, "<"+tag+">")
		qt.Assert(t, qt.IsTrue(ok))
		text, after, _ := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(text))
		qt.Check(t, qt.StringContains(html, kind+" 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'"))
		qt.Check(t, qt.IsFalse(strings.Contains(after, "<"+tag+">")))
	}
	_, rest, _ := strings.Cut(html, `<script type="application/json" id="report">`)
	text, _, _ := strings.Cut(rest, "</script>")
	var report struct {
		Title   string
		Records []struct {
			Status int
			Agent  string
		}
		Faults []struct {
			Rule     string
			Requests int
		}
		API map[string]json.RawMessage
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(text), &report)))
	qt.Check(t, qt.Equals(report.Title, t.Name()))
	qt.Assert(t, qt.HasLen(report.Records, 2))
	qt.Check(t, qt.Equals(report.Records[0].Status, 429))
	qt.Check(t, qt.Equals(report.Records[1].Agent, "</script><script>alert(2)</script>"))
	qt.Assert(t, qt.HasLen(report.Faults, 2))
	qt.Check(t, qt.Equals(fmt.Sprint(report.Faults), "[{tags 1} {catalog 0}]"))
	for _, key := range []string{"requests", "findings", "stats", "shared", "repositories", "repository?repo=app", "usage?repo=app", "untagged?repo=app"} {
		qt.Check(t, qt.IsTrue(len(report.API[key]) > 0), qt.Commentf("%s", key))
	}
}
