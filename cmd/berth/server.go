// SPDX-License-Identifier: Apache-2.0

// A running server, and the parts of it that a reload replaces.

package main

import (
	"context"
	"crypto"
	"errors"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/guard"
	"github.com/berth-oci/registry/inspect"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/observe/metrics"
	"github.com/berth-oci/registry/observe/notify"
	"github.com/berth-oci/registry/observe/tracing"
	"github.com/berth-oci/registry/quota"
)

// server is a running berth serve.
type server struct {
	start    *serveCmd // the configuration at the start
	log      *serverLog
	registry http.Handler
	store    registry.Store
	ready    func(context.Context) error

	audit   *auditLog        // nil without one
	metrics *metrics.Metrics // nil without --debug-addr
	quotas  *quota.Store     // nil without quotas at the start
	senders []*notify.Sender
	traces  *tracer        // nil without --traces
	mirror  *mirror.Mirror // nil without --mirror

	inspector *inspect.Inspector // nil without --ui
	deletions http.Handler       // of the page

	collecting sync.Mutex // held during a collection

	tokenKey crypto.Signer // of tokens without a file
	current  atomic.Pointer[configured]
}

// configured is what a reload replaces as a whole.
type configured struct {
	command *serveCmd
	handler http.Handler
	page    http.Handler // of the inspector
	users   *users       // nil: there are none

	replaced context.Context // ends with the configuration
	replace  context.CancelFunc
}

// newServer returns a server for a store that is open. The caller must close it.
func (c *serveCmd) newServer(log *serverLog) (_ *server, err error) {
	s := &server{start: c, log: log, store: c.store, ready: c.ready()}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if limits := c.sections().limits(); len(limits) > 0 {
		if s.quotas, err = quota.New(context.Background(), s.store, limits...); err != nil {
			return nil, err
		}
		s.store = s.quotas
	}
	if s.mirror, err = s.openMirror(c); err != nil {
		return nil, err
	}
	if s.mirror != nil {
		s.store = s.mirror
	}
	if s.traces, err = c.openTraces(log.Logger); err != nil {
		return nil, err
	}
	if s.traces != nil {
		s.store = tracing.Store(s.store, s.traces.Options)
	}
	s.registry = registry.New(c.options(s.store)...)
	if c.Redirect {
		b, ok := c.store.(*bucket.Store)
		if !ok {
			return nil, errors.New("--redirect requires a bucket")
		}
		s.registry = b.Redirect(s.registry)
	}
	if c.AuditLog != "" {
		if s.audit, err = openAudit(c.AuditLog); err != nil {
			return nil, err
		}
	}
	if c.DebugAddr != "" {
		s.metrics = s.newMetrics()
	}
	if s.senders, err = openSenders(c.sections().Notifications, log.Logger); err != nil {
		return nil, err
	}
	if shows, err := c.showsUI(); err != nil {
		return nil, err
	} else if shows {
		s.inspector = s.newInspector()
	}
	return s, s.configure(c)
}

// Close waits for notifications and traces that are being sent, and closes files.
func (s *server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, sender := range s.senders {
		if err := sender.Close(ctx); err != nil {
			s.log.Warn("notifications", "error", err)
		}
	}
	if s.traces != nil {
		if err := s.traces.provider.Shutdown(ctx); err != nil {
			s.log.Warn("traces", "error", err)
		}
	}
	if s.mirror != nil {
		s.mirror.Close()
	}
	if s.audit != nil {
		s.audit.file.Close()
	}
}

// configure replaces the parts of the server that a reload can replace. If it returns an
// error, nothing has changed.
func (s *server) configure(c *serveCmd) error {
	if s.quotas == nil && len(c.sections().Quotas) > 0 {
		return errors.New("a reload can't add the first quota, since that counts all content: restart the server")
	}
	upstreams, err := c.upstreams()
	if err != nil {
		return err
	}
	if s.mirror == nil && len(upstreams) > 0 {
		return errors.New("a reload can't add the first mirror: restart the server")
	}
	h := s.registry
	var u *users
	if c.hasUsers() {
		if u, err = c.loadUsers(); err != nil {
			return err
		}
		authenticate, err := s.authenticate(c, u)
		if err != nil {
			return err
		}
		h = authenticate(h)
	}
	h, err = c.guardHosts(h)
	if err != nil {
		return err
	}
	var page http.Handler
	if s.inspector != nil {
		if _, err := c.showsUI(); err != nil {
			return err
		}
		if page, err = c.guardHosts(s.login(c, u)); err != nil {
			return err
		}
	}
	useCertificates, err := c.transport.read()
	if err != nil {
		return err
	}
	if s.quotas != nil {
		if err := s.quotas.SetLimits(c.sections().limits()...); err != nil {
			return err
		}
	}
	if s.mirror != nil {
		if err := s.mirror.SetUpstreams(c.MirrorDefault, upstreams...); err != nil {
			return err
		}
	}
	useCertificates()
	s.log.level.Set(c.LogLevel)
	next := &configured{command: c, handler: h, page: page, users: u}
	next.replaced, next.replace = context.WithCancel(context.Background())
	if old := s.current.Swap(next); old != nil {
		old.replace()
	}
	return nil
}

// handler returns the handler of the entire server. The context stopping ends when the
// server starts to shut down.
func (s *server) handler(stopping context.Context) http.Handler {
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.current.Load().handler.ServeHTTP(w, r)
	})
	h = catchPanics(h, s.log.Logger)
	hooks := s.hooks()
	observe := registry.Observe(func(e registry.Event) {
		for _, hook := range hooks {
			hook(e)
		}
	})
	if s.metrics != nil {
		observe = func(h http.Handler) http.Handler { return s.metrics.Handler(h, hooks...) }
	}
	h = observe(h)
	if s.traces != nil {
		h = tracing.Handler(h, s.traces.Options)
	}
	if s.mirror != nil {
		h = s.mirror.Handler(h)
	}
	if s.inspector != nil {
		h = s.withUI(h, observe)
		context.AfterFunc(stopping, s.inspector.Close)
	}
	return guard.Progress(s.start.Progress)(withHealth(h, stopping, s.ready))
}

// hooks returns the functions that are called after each request.
func (s *server) hooks() []func(registry.Event) {
	hooks := []func(registry.Event){s.log.logRequest, freeAfterDeletes(3*time.Second, debug.FreeOSMemory)}
	if s.audit != nil {
		hooks = append(hooks, func(e registry.Event) {
			if err := s.audit.write(e); err != nil {
				s.log.Error("audit log", "error", err)
			}
		})
	}
	for _, sender := range s.senders {
		hooks = append(hooks, sender.Observe)
	}
	if s.inspector != nil {
		hooks = append(hooks, s.inspector.Record)
	}
	return hooks
}
