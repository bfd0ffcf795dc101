// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/metrics"
)

// TestPrometheus lets Prometheus scrape a registry whose store fails. An alert must
// fire.
func TestPrometheus(t *testing.T) {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no prometheus: apt-get install prometheus")
	}
	m := metrics.New(metrics.Options{Storage: func(context.Context) (metrics.Storage, error) {
		return metrics.Storage{Bytes: 1 << 40, Uploads: -1}, nil
	}})
	prom := prometheus.NewRegistry()
	prom.MustRegister(m)
	mux := http.NewServeMux()
	mux.Handle("/v2/", m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry.WriteError(w, r, registry.ErrUnavailable)
	})))
	mux.Handle("/metrics", promhttp.HandlerFor(prom, promhttp.HandlerOpts{ErrorHandling: promhttp.PanicOnError}))
	server := httptest.NewServer(mux)
	defer server.Close()

	dir := t.TempDir()
	write := func(name, text string) {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)))
	}
	write("prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 200ms, evaluation_interval: 200ms}
rule_files: [rules.yml]
scrape_configs:
  - job_name: registry
    static_configs: [{targets: [%q]}]
`, strings.TrimPrefix(server.URL, "http://")))
	write("rules.yml", `
groups:
  - name: registry
    rules:
      - alert: RegistryFails
        expr: sum(rate(registry_http_requests_total{code=~"5.."}[5s])) / sum(rate(registry_http_requests_total[5s])) > 0.05
`)
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a free port
	qt.Assert(t, qt.IsNil(err))
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	var log bytes.Buffer
	cmd.Stderr = &log
	qt.Assert(t, qt.IsNil(cmd.Start()))
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus: %s", &log)
		}
	}()

	query := func(path string, result any) bool {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			return false // it is starting
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(result) == nil
	}
	waitFor(t, "the alert", 60*time.Second, func() bool {
		resp, err := http.Get(server.URL + "/v2/app/manifests/latest")
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		var alerts struct {
			Data struct {
				Alerts []struct {
					State  string
					Labels map[string]string
				}
			}
		}
		return query("/api/v1/alerts", &alerts) && len(alerts.Data.Alerts) == 1 &&
			alerts.Data.Alerts[0].State == "firing" && alerts.Data.Alerts[0].Labels["alertname"] == "RegistryFails"
	})
	for expr, want := range map[string]string{
		`registry_storage_bytes`: "1099511627776",
		`count(registry_http_in_flight_requests{handler="manifest"})`:                                       "1",
		`count(registry_http_requests_total{handler="manifest",method="get",code="503",op="manifest-get"})`: "1",
		`count(registry_http_request_duration_seconds_bucket{le="+Inf",handler="manifest"})`:                "1",
		`count({__name__=~"registry_.*",repository!=""}) or vector(0)`:                                      "0",
		`registry_gc_runs_total`: "0",
	} {
		var result struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		qt.Assert(t, qt.IsTrue(query("/api/v1/query?query="+url.QueryEscape(expr), &result)))
		qt.Assert(t, qt.HasLen(result.Data.Result, 1), qt.Commentf("%s", expr))
		qt.Check(t, qt.Equals(result.Data.Result[0].Value[1], any(want)), qt.Commentf("%s", expr))
	}
}
