// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/inspect"
)

// reportsEnv names the folder of reports.
const reportsEnv = "REGISTRYTEST_REPORTS"

// Report returns middleware that records the requests of a test. If the test fails, it
// writes an HTML file, whose path it logs: open it in a browser to see the requests, the
// content of the store, and which faults were applied. It is the page of package inspect,
// and needs no server. It belongs around other middleware, so that it sees their responses:
//
//	server := registrytest.NewServer(t)
//	server.Use(faults.Handler)
//	server.Use(registrytest.Report(t, server.Store, faults))
//
// Files are written to the folder that the environment variable REGISTRYTEST_REPORTS names,
// or to the one for temporary files.
func Report(tb testing.TB, store registry.Store, faults ...*Faults) func(http.Handler) http.Handler {
	tb.Helper()
	i := inspect.New(store, inspect.Options{})
	tb.Cleanup(func() {
		defer i.Close()
		if !tb.Failed() {
			return
		}
		var applied []inspect.Fault
		for _, f := range faults {
			applied = append(applied, f.applied()...)
		}
		path, err := writeReport(i, tb.Name(), applied)
		if err != nil {
			tb.Logf("the report could not be written: %v", err)
			return
		}
		tb.Logf("report: %s", path)
	})
	return registry.Observe(i.Record)
}

// writeReport writes a report, and returns its path.
func writeReport(i *inspect.Inspector, name string, applied []inspect.Fault) (path string, err error) {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '-'
	}, name)
	f, err := os.CreateTemp(os.Getenv(reportsEnv), "report-"+safe[:min(len(safe), 100)]+"-*.html")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := i.WriteReport(ctx, f, name, applied...); err != nil {
		f.Close()
		return "", err
	}
	return f.Name(), f.Close()
}

// applied describes the rules.
func (f *Faults) applied() (all []inspect.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.rules {
		all = append(all, inspect.Fault{Rule: rule.describe(), Requests: f.fired[i]})
	}
	return all
}

// describe returns the conditions of a rule.
func (r Rule) describe() string {
	var parts []string
	add := func(format string, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	if r.Nth > 0 {
		parts = append(parts, fmt.Sprintf("number %d", r.Nth))
	}
	add("%s", string(r.Op))
	add("of %s", r.Repo)
	add("of %s", r.Reference)
	if r.Match != nil {
		parts = append(parts, "that match")
	}
	if r.PerPath {
		parts = append(parts, "for each path")
	}
	if len(parts) == 0 {
		return "all requests"
	}
	return strings.Join(parts, " ")
}
