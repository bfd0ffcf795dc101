// SPDX-License-Identifier: Apache-2.0

// Package metrics has a registry's metrics for Prometheus. Those of requests have the
// names, labels and buckets of distribution's, so that its dashboards and alerts work:
//
//	m := metrics.New(metrics.Options{})
//	prometheus.MustRegister(m)
//	http.Handle("/v2/", m.Handler(registry.New()))
//	http.Handle("/metrics", promhttp.Handler())
//
// The metrics of requests, by handler (as in distribution: base, manifest, blob,
// tags, blob_upload, blob_upload_chunk, catalog; and referrers, other), method (in
// lower case, unknown if it is not one of HTTP's), status code (0 if the connection
// was aborted without a response) and op, the [registry.Op], or other:
//
//	registry_http_requests_total{handler,method,code,op}
//	registry_http_request_duration_seconds{handler,method,op}   histogram
//	registry_http_request_size_bytes{handler,op}                histogram
//	registry_http_response_size_bytes{handler,op}               histogram
//	registry_http_in_flight_requests{handler}
//
// The sizes are those of bodies as they were transferred. In distribution they include
// an estimate of the headers, and there is no label op. The other metrics are
// described at [Options].Storage and [Metrics.AddGC].
package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-oci/registry"
)

// Options are the options of [New].
type Options struct {
	// Repositories adds the label repository to registry_http_requests_total. It is
	// empty unless the request has read or changed content of the repository, so
	// that clients can't invent values; but each repository that is used makes
	// further series, which Prometheus keeps in memory. Without it, no metric names
	// a repository.
	Repositories bool

	// Storage, unless nil, returns how much the store holds: see [Count]. It is
	// called during a scrape, at most once at a time, with a context that ends after
	// 8 seconds. Metrics:
	//
	//	registry_storage_bytes
	//	registry_storage_blobs
	//	registry_storage_manifests
	//	registry_storage_tags
	//	registry_storage_uploads
	//	registry_storage_repositories
	//	registry_storage_errors_total
	//
	// If it fails, the last counter is incremented, and the gauges keep their values.
	Storage StorageFunc

	// StorageAge is how long a result of Storage, or its failure, is used for
	// further scrapes: a minute by default.
	StorageAge time.Duration
}

// Metrics are the metrics of one registry. They are a [prometheus.Collector], and safe
// for concurrent use.
type Metrics struct {
	requests      *prometheus.CounterVec
	duration      *prometheus.HistogramVec
	requestSizes  *prometheus.HistogramVec
	responseSizes *prometheus.HistogramVec
	inFlight      *prometheus.GaugeVec
	repositories  bool

	inFlightOf [len(handlers)]prometheus.Gauge
	series     [len(ops)][len(methods)]atomic.Pointer[series]

	gc      gcMetrics
	storage *storage // nil without Options.Storage
}

var _ prometheus.Collector = (*Metrics)(nil)

// series are the series of an operation and a method, which are looked up once.
type series struct {
	duration, requestSize, responseSize prometheus.Observer

	// codes are the counters of the status codes that a registry sends: those from
	// 100 to 599 whose last two digits are less than 32, and 0.
	codes [6][32]atomic.Pointer[prometheus.Counter]
}

// New returns the metrics of a registry. They must be registered at one
// [prometheus.Registerer].
func New(o Options) *Metrics {
	counterLabels := []string{"handler", "method", "code", "op"}
	if o.Repositories {
		counterLabels = append(counterLabels, "repository")
	}
	sizes := prometheus.ExponentialBuckets(1024, 2, 22) // 1 KiB to 2 GiB
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "registry_http_requests_total",
			Help: "Total number of HTTP requests made.",
		}, counterLabels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "registry_http_request_duration_seconds",
			Help:    "The HTTP request latencies in seconds.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 60},
		}, []string{"handler", "method", "op"}),
		requestSizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "registry_http_request_size_bytes",
			Help:    "The sizes of the bodies of HTTP requests in bytes.",
			Buckets: sizes,
		}, []string{"handler", "op"}),
		responseSizes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "registry_http_response_size_bytes",
			Help:    "The sizes of the bodies of HTTP responses in bytes.",
			Buckets: sizes,
		}, []string{"handler", "op"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "registry_http_in_flight_requests",
			Help: "The HTTP requests in progress.",
		}, []string{"handler"}),
		repositories: o.Repositories,
		gc:           newGCMetrics(),
	}
	for i, handler := range handlers {
		m.inFlightOf[i] = m.inFlight.WithLabelValues(handler)
	}
	if o.Storage != nil {
		m.storage = newStorage(o.Storage, o.StorageAge)
	}
	return m
}

// collectors returns the parts of m.
func (m *Metrics) collectors() []prometheus.Collector {
	all := []prometheus.Collector{m.requests, m.duration, m.requestSizes, m.responseSizes, m.inFlight}
	all = append(all, m.gc.collectors()...)
	if m.storage != nil {
		all = append(all, m.storage)
	}
	return all
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
}

// Handler returns a handler that counts the requests to h. It calls each of hooks
// after a request, too: one [registry.Observe] for all costs less than one for each.
//
// It panics if a hook is nil.
func (m *Metrics) Handler(h http.Handler, hooks ...func(registry.Event)) http.Handler {
	for _, hook := range hooks {
		if hook == nil {
			panic("metrics: a hook of Handler is nil")
		}
	}
	observed := registry.Observe(func(e registry.Event) {
		m.observe(&e)
		for _, hook := range hooks {
			hook(e)
		}
	})(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gauge := m.inFlightOf[handlerOf(r.URL.Path)]
		gauge.Inc()
		defer gauge.Dec()
		observed.ServeHTTP(w, r)
	})
}

// Observe counts a request. It is a hook for [registry.Observe], for those who do not
// use Handler; it counts everything except the requests in progress.
func (m *Metrics) Observe(e registry.Event) { m.observe(&e) }

// observe is Observe without another copy of the event, which is large.
func (m *Metrics) observe(e *registry.Event) {
	op, method := opIndex(e.Request.Op), methodIndex(e.HTTP.Method)
	s := m.series[op][method].Load()
	if s == nil {
		s = m.addSeries(op, method)
	}
	s.duration.Observe(e.Duration.Seconds())
	s.requestSize.Observe(float64(e.BytesIn))
	s.responseSize.Observe(float64(e.BytesOut))
	if class, rest := e.Status/100, e.Status%100; !m.repositories && class >= 0 && class < len(s.codes) && rest < len(s.codes[0]) {
		counter := &s.codes[class][rest]
		if counter.Load() == nil {
			c := m.counter(op, method, e)
			counter.Store(&c)
		}
		(*counter.Load()).Inc()
		return
	}
	m.counter(op, method, e).Inc()
}

// addSeries looks up the series of an operation and a method.
func (m *Metrics) addSeries(op, method int) *series {
	handler, name := handlers[ops[op].handler], ops[op].name
	m.series[op][method].CompareAndSwap(nil, &series{
		duration:     m.duration.WithLabelValues(handler, methods[method], name),
		requestSize:  m.requestSizes.WithLabelValues(handler, name),
		responseSize: m.responseSizes.WithLabelValues(handler, name),
	})
	return m.series[op][method].Load()
}

// counter returns the counter of a request.
func (m *Metrics) counter(op, method int, e *registry.Event) prometheus.Counter {
	values := []string{handlers[ops[op].handler], methods[method], strconv.Itoa(e.Status), ops[op].name}
	if m.repositories {
		repo := ""
		if usesContent(e) {
			repo = e.Request.Repo
		}
		values = append(values, repo)
	}
	return m.requests.WithLabelValues(values...)
}

// usesContent reports whether a request has read or changed content, which only a
// repository that exists has.
func usesContent(e *registry.Event) bool {
	switch e.Request.Op {
	case registry.OpBlobGet, registry.OpBlobHead, registry.OpManifestGet, registry.OpManifestHead:
		return e.Status >= 200 && e.Status < 400
	}
	return e.Changed
}

// Indexes of handlers.
const (
	base = iota
	manifest
	blob
	tags
	blobUpload
	blobUploadChunk
	catalog
	referrers
	other
)

// handlers are the values of the label handler: the names of distribution's routes,
// and two more.
var handlers = [...]string{"base", "manifest", "blob", "tags", "blob_upload", "blob_upload_chunk", "catalog", "referrers", "other"}

// ops are the values of the label op, with their handlers. The last is for requests
// that are none of them.
var ops = [...]struct {
	name    string
	handler int
}{
	{string(registry.OpPing), base},
	{string(registry.OpBlobGet), blob},
	{string(registry.OpBlobHead), blob},
	{string(registry.OpBlobDelete), blob},
	{string(registry.OpBlobPush), blobUpload},
	{string(registry.OpBlobMount), blobUpload},
	{string(registry.OpUploadStart), blobUpload},
	{string(registry.OpUploadPatch), blobUploadChunk},
	{string(registry.OpUploadPut), blobUploadChunk},
	{string(registry.OpUploadStatus), blobUploadChunk},
	{string(registry.OpUploadCancel), blobUploadChunk},
	{string(registry.OpManifestGet), manifest},
	{string(registry.OpManifestHead), manifest},
	{string(registry.OpManifestPut), manifest},
	{string(registry.OpManifestDelete), manifest},
	{string(registry.OpTags), tags},
	{string(registry.OpReferrers), referrers},
	{string(registry.OpCatalog), catalog},
	{"other", other},
}

func opIndex(op registry.Op) int {
	for i := range len(ops) - 1 {
		if ops[i].name == string(op) {
			return i
		}
	}
	return len(ops) - 1
}

// methods are the values of the label method. The last is for methods that are none
// of them: a client can invent any number.
var methods = [...]string{"get", "head", "put", "post", "patch", "delete", "options", "connect", "trace", "unknown"}

func methodIndex(method string) int {
	switch method {
	case http.MethodGet:
		return 0
	case http.MethodHead:
		return 1
	}
	for i := range len(methods) - 1 {
		if strings.EqualFold(methods[i], method) {
			return i
		}
	}
	return len(methods) - 1
}

// handlerOf returns the index of the handler of a path. It need not reject paths that
// are malformed, as registry.ParseRequest does.
func handlerOf(path string) int {
	dir, last := cutLast(path)
	dir, kind := cutLast(dir)
	_, above := cutLast(dir)
	switch {
	case kind == "manifests":
		return manifest
	case kind == "blobs" && last == "uploads", kind == "uploads" && above == "blobs" && last == "":
		return blobUpload
	case kind == "blobs":
		return blob
	case kind == "uploads" && above == "blobs":
		return blobUploadChunk
	case kind == "tags" && last == "list":
		return tags
	case kind == "referrers":
		return referrers
	case last == "_catalog":
		return catalog
	case last == "v2", kind == "v2" && last == "":
		return base
	}
	return other
}

// cutLast cuts path around its last slash. Without one, last is the path.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
