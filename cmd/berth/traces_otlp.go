// SPDX-License-Identifier: Apache-2.0

// Sending spans by OTLP, in JSON over HTTP:
// https://opentelemetry.io/docs/specs/otlp/#otlphttp. The exporter of OpenTelemetry,
// which also has Protocol Buffers and gRPC, would add 10 MB to this program.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// spanExporter sends spans to a collector. A batch that the collector does not take is
// lost.
type spanExporter struct {
	url    string
	client *http.Client
}

// ExportSpans implements [trace.SpanExporter].
func (e *spanExporter) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	if len(spans) == 0 {
		return nil
	}
	body, err := json.Marshal(otlpRequest(spans))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // then the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s: %q", e.url, resp.Status, text)
	}
	return nil
}

// Shutdown implements [trace.SpanExporter].
func (e *spanExporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// object is an object of JSON. Its keys are the names of the fields of OTLP's messages.
type object map[string]any

// otlpRequest returns an ExportTraceServiceRequest. All spans have the resource of the
// one provider of this program.
func otlpRequest(spans []trace.ReadOnlySpan) object {
	scopes := make(map[instrumentation.Scope][]object)
	for _, s := range spans {
		scopes[s.InstrumentationScope()] = append(scopes[s.InstrumentationScope()], otlpSpan(s))
	}
	var all []object
	for scope, list := range scopes {
		all = append(all, object{
			"scope":     object{"name": scope.Name, "version": scope.Version},
			"schemaUrl": scope.SchemaURL,
			"spans":     list,
		})
	}
	return object{"resourceSpans": []object{{"resource": otlpResource(spans[0].Resource()), "scopeSpans": all}}}
}

func otlpResource(r *resource.Resource) object {
	return object{"attributes": otlpAttributes(r.Attributes())}
}

func otlpSpan(s trace.ReadOnlySpan) object {
	span := object{
		"traceId":                s.SpanContext().TraceID().String(),
		"spanId":                 s.SpanContext().SpanID().String(),
		"traceState":             s.SpanContext().TraceState().String(),
		"name":                   s.Name(),
		"kind":                   int(s.SpanKind()), // has the numbers of OTLP
		"startTimeUnixNano":      otlpTime(s.StartTime()),
		"endTimeUnixNano":        otlpTime(s.EndTime()),
		"attributes":             otlpAttributes(s.Attributes()),
		"droppedAttributesCount": s.DroppedAttributes(),
		"droppedEventsCount":     s.DroppedEvents(),
		"droppedLinksCount":      s.DroppedLinks(),
	}
	if s.Parent().HasSpanID() {
		span["parentSpanId"] = s.Parent().SpanID().String()
	}
	var events, links []object
	for _, e := range s.Events() {
		events = append(events, object{"timeUnixNano": otlpTime(e.Time), "name": e.Name, "attributes": otlpAttributes(e.Attributes)})
	}
	for _, l := range s.Links() {
		links = append(links, object{"traceId": l.SpanContext.TraceID().String(), "spanId": l.SpanContext.SpanID().String(), "attributes": otlpAttributes(l.Attributes)})
	}
	span["events"], span["links"] = events, links
	switch s.Status().Code {
	case otelcodes.Ok:
		span["status"] = object{"code": 1}
	case otelcodes.Error:
		span["status"] = object{"code": 2, "message": s.Status().Description}
	}
	return span
}

// otlpTime returns a time as a string: JSON's numbers have too few digits for some readers.
func otlpTime(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func otlpAttributes(all []attribute.KeyValue) []object {
	list := make([]object, 0, len(all))
	for _, kv := range all {
		list = append(list, object{"key": string(kv.Key), "value": otlpValue(kv.Value)})
	}
	return list
}

func otlpValue(v attribute.Value) object {
	switch v.Type() {
	case attribute.BOOL:
		return object{"boolValue": v.AsBool()}
	case attribute.INT64:
		return object{"intValue": strconv.FormatInt(v.AsInt64(), 10)}
	case attribute.FLOAT64:
		return object{"doubleValue": v.AsFloat64()}
	case attribute.STRINGSLICE:
		var values []object
		for _, s := range v.AsStringSlice() {
			values = append(values, object{"stringValue": s})
		}
		return object{"arrayValue": object{"values": values}}
	}
	return object{"stringValue": v.Emit()}
}
