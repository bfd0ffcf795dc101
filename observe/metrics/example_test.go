// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/metrics"
)

func Example() {
	store := new(registry.MemStore)
	m := metrics.New(metrics.Options{
		Storage: func(ctx context.Context) (metrics.Storage, error) { return metrics.Count(ctx, store) },
	})
	prom := prometheus.NewRegistry()
	prom.MustRegister(m)
	mux := http.NewServeMux()
	mux.Handle("/v2/", m.Handler(registry.New(registry.WithStore(store))))
	mux.Handle("/metrics", promhttp.HandlerFor(prom, promhttp.HandlerOpts{}))

	for _, path := range []string{"/v2/", "/v2/app/manifests/latest"} {
		mux.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "registry_http_requests_total") || strings.HasPrefix(line, "registry_storage_repositories") {
			fmt.Print(line)
		}
	}
	// Output:
	// registry_http_requests_total{code="200",handler="base",method="get",op="ping"} 1
	// registry_http_requests_total{code="404",handler="manifest",method="get",op="manifest-get"} 1
	// registry_storage_repositories 0
}
