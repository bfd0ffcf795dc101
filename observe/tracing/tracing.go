// SPDX-License-Identifier: Apache-2.0

// Package tracing makes OpenTelemetry spans of a registry's requests and of the calls
// of its store:
//
//	options := tracing.Options{} // the global provider and propagator
//	store := tracing.Store(store, options)
//	handler := tracing.Handler(registry.New(registry.WithStore(store)), options)
//
// A program that sets no propagator, with [otel.SetTextMapPropagator] or in Options,
// continues no traces of its clients.
//
// # Requests to a bucket
//
// The calls of a store pass the context with their span on, so that spans of HTTP
// clients become their children. For package bucket on S3, put the transport of
// go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp into the client that is
// given to bucket.NewS3, which uses it as it is:
//
//	client := s3.NewFromConfig(config, func(o *s3.Options) {
//		transport := http.DefaultTransport.(*http.Transport).Clone()
//		transport.MaxIdleConnsPerHost = 256
//		o.HTTPClient = &http.Client{Transport: otelhttp.NewTransport(transport)}
//	})
//	store := bucket.NewS3(client, "name", nil)
//
// bucket.Open makes its own client, which has no spans.
package tracing

import (
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/berth-oci/registry/internal/recorder"
	"github.com/berth-oci/registry/internal/redact"
)

// Options are the options of [Handler] and [Store].
type Options struct {
	// TracerProvider makes the spans; by default the global one of package otel.
	TracerProvider trace.TracerProvider

	// Propagator reads the parent of a span from the headers of a request, such as
	// [propagation.TraceContext]; by default the global one of package otel. Clients
	// can choose the IDs of traces, and ask for them to be sampled: for a registry on
	// the Internet, [propagation.NewCompositeTextMapPropagator] without arguments
	// ignores what they say.
	Propagator propagation.TextMapPropagator
}

func (o Options) tracer() trace.Tracer {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	return o.TracerProvider.Tracer("github.com/berth-oci/registry/observe/tracing", trace.WithSchemaURL(semconv.SchemaURL))
}

// Handler returns a handler that makes a server span of each request to h, by
// OpenTelemetry's semantic conventions for HTTP. It should be outside of all other
// middleware, such as registry.Observe.
//
// The span's name is the method and the route, such as "GET
// /v2/{name}/blobs/{digest}", or the method alone for a path that is none of the
// spec's. The attributes: http.request.method, http.request.method_original for an unusual
// one, http.route, http.response.status_code, url.scheme, url.path, url.query without values
// that may be secrets, server.address, server.port, client.address, user_agent.original,
// network.protocol.version. For a 5xx the span's status is Error
// and error.type the code; for a response that was aborted, error.type is "aborted".
// A 4xx is no error of a server. The client's address is that of the connection.
//
// A sampler sees the kind and the name, which is the method and the route. The conventions
// recommend that it also sees the attributes but for the status and the version, which would
// double the cost of a request that is not sampled.
func Handler(h http.Handler, o Options) http.Handler {
	tracer := o.tracer()
	if o.Propagator == nil {
		o.Propagator = otel.GetTextMapPropagator()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := o.Propagator.Extract(r.Context(), carrier{propagation.HeaderCarrier(r.Header)})
		e := endpointOf(r)
		ctx, span := tracer.Start(ctx, e.name, asServer...)
		r = r.WithContext(ctx)
		if !span.IsRecording() {
			defer span.End()
			h.ServeHTTP(w, r)
			return
		}
		span.SetAttributes(e.attributes...)
		span.SetAttributes(describe(r)...)
		recorded := &recorder.Recorder{ResponseWriter: w}
		returned := false
		defer func() {
			end(span, recorded.Status, returned)
		}()
		h.ServeHTTP(recorded, r)
		returned = true
	})
}

// carrier is a HeaderCarrier that knows the canonical form of the most frequent names: to
// find it is most of what a request without them costs.
type carrier struct{ propagation.HeaderCarrier }

func (c carrier) Get(key string) string {
	switch key {
	case "traceparent":
		key = "Traceparent"
	case "tracestate":
		key = "Tracestate"
	default:
		return c.HeaderCarrier.Get(key)
	}
	if values := c.HeaderCarrier[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// end ends the span of a request. Unless its handler has returned, it has panicked.
func end(span trace.Span, status int, returned bool) {
	defer span.End()
	if status == 0 && returned { // net/http sends it for a handler that writes nothing
		status = http.StatusOK
	}
	if status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	}
	switch {
	case !returned:
		span.SetAttributes(semconv.ErrorTypeKey.String("aborted"))
		span.SetStatus(codes.Error, "the response was aborted")
	case status >= 500:
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)))
		span.SetStatus(codes.Error, "")
	}
}

// describe returns the attributes that are known before the response, but for those of
// the endpoint.
func describe(r *http.Request) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 0, 9)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	attributes = append(attributes, semconv.URLScheme(scheme), semconv.URLPath(clip(r.URL.Path)))
	if r.URL.RawQuery != "" {
		attributes = append(attributes, semconv.URLQuery(clip(redact.Query(clip(r.URL.RawQuery)))))
	}
	if host, port := splitHost(r.Host); host != "" {
		attributes = append(attributes, semconv.ServerAddress(clip(host)))
		if port > 0 {
			attributes = append(attributes, semconv.ServerPort(port))
		}
	}
	attributes = append(attributes, semconv.NetworkProtocolVersion(protocol(r)))
	if client, _ := splitHost(r.RemoteAddr); client != "" {
		attributes = append(attributes, semconv.ClientAddress(client))
	}
	if agent := r.UserAgent(); agent != "" {
		attributes = append(attributes, semconv.UserAgentOriginal(clip(agent)))
	}
	if methodIndex(r.Method) < 0 {
		attributes = append(attributes, semconv.HTTPRequestMethodOriginal(clip(r.Method)))
	}
	return attributes
}

// protocol returns the version of HTTP, such as 1.1 or 2.
func protocol(r *http.Request) string {
	switch {
	case r.ProtoMajor == 1 && r.ProtoMinor == 1:
		return "1.1"
	case r.ProtoMajor >= 2 && r.ProtoMinor == 0:
		return strconv.Itoa(r.ProtoMajor)
	}
	return strings.TrimPrefix(r.Proto, "HTTP/")
}

// clip shortens a string that a client has chosen: an exporter keeps many spans.
func clip(s string) string {
	const limit = 1024
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// splitHost splits a host and a port, 0 if there is none.
func splitHost(hostport string) (host string, port int) {
	if strings.IndexByte(hostport, ':') < 0 { // an error of net costs an allocation
		return hostport, 0
	}
	host, digits, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]"), 0
	}
	port, err = strconv.Atoi(digits)
	if err != nil || port > 65535 {
		port = 0
	}
	return host, port
}

// methods are the methods that have a name in OpenTelemetry's conventions.
var methods = [...]string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}

func methodIndex(method string) int {
	for i := range methods {
		if methods[i] == method {
			return i
		}
	}
	return -1
}

// routes are the templates of the endpoints' paths, as in the spec.
var routes = [...]string{
	"/v2/",
	"/v2/_catalog",
	"/v2/{name}/blobs/{digest}",
	"/v2/{name}/blobs/uploads/",
	"/v2/{name}/blobs/uploads/{reference}",
	"/v2/{name}/manifests/{reference}",
	"/v2/{name}/tags/list",
	"/v2/{name}/referrers/{digest}",
}

// asServer has the option of the spans of requests.
var asServer = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// endpoint has the name of the spans of a route and a method, and their attributes.
type endpoint struct {
	name       string
	attributes []attribute.KeyValue
}

// endpoints are those of all routes and methods; the last route is for paths without one,
// the last method for all others, since a client could invent any number.
var endpoints = func() (all [len(routes) + 1][len(methods) + 1]endpoint) {
	for i := range all {
		for j := range all[i] {
			name, attributes := "HTTP", []attribute.KeyValue{semconv.HTTPRequestMethodOther}
			if j < len(methods) {
				name, attributes[0] = methods[j], semconv.HTTPRequestMethodKey.String(methods[j])
			}
			if i < len(routes) {
				name += " " + routes[i]
				attributes = append(attributes, semconv.HTTPRoute(routes[i]))
			}
			all[i][j] = endpoint{name, attributes}
		}
	}
	return all
}()

// endpointOf returns the endpoint of a request.
func endpointOf(r *http.Request) *endpoint {
	route, method := routeOf(r.URL.Path), methodIndex(r.Method)
	if route < 0 {
		route = len(routes)
	}
	if method < 0 {
		method = len(methods)
	}
	return &endpoints[route][method]
}

// routeOf returns the index of a path's route, -1 if it has none. It need not reject
// paths that are malformed, as registry.ParseRequest does, which takes longer.
func routeOf(path string) int {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return -1
	case rest == "" || rest == "/":
		return 0
	case rest == "/_catalog":
		return 1
	}
	dir, last := cutLast(rest)
	name, kind := cutLast(dir)
	switch {
	case kind == "uploads" && strings.HasSuffix(name, "/blobs") && len(name) > len("/blobs"):
		if last == "" {
			return 3
		}
		return 4
	case name == "":
		return -1
	case kind == "blobs" && last == "uploads":
		return 3
	case kind == "blobs":
		return 2
	case kind == "manifests":
		return 5
	case kind == "tags" && last == "list":
		return 6
	case kind == "referrers":
		return 7
	}
	return -1
}

// cutLast cuts path around its last slash. Without one, last is the path.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}
