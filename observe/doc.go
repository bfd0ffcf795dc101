// SPDX-License-Identifier: Apache-2.0

// Package observe is empty. The packages below it tell operators what a registry
// does:
//
//   - metrics, for Prometheus, with the names of distribution's metrics
//   - tracing, for OpenTelemetry: a span for each request and each call of a store
//   - notify, webhooks with distribution's or CloudEvents' format and a journal
//
// They are packages of their own so that a program links only what it uses: notify
// requires nothing but the standard library and the registry. Metrics and notify are
// hooks for registry.Observe, and one Observe can call both:
//
//	handler := registry.New(registry.WithStore(tracing.Store(store, tracing.Options{})))
//	handler = m.Handler(handler, sender.Observe) // m is a metrics.Metrics, sender a notify.Sender
//	handler = tracing.Handler(handler, tracing.Options{})
//
// The module is separate from the registry's because of its dependencies.
package observe
