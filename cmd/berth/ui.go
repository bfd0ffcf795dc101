// SPDX-License-Identifier: Apache-2.0

// The page that shows what the server holds and does.

package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/inspect"
)

// showsUI reports whether the server has the page.
func (c *serveCmd) showsUI() (bool, error) {
	canLogIn := !c.hasUsers() || len(c.User) > 0 || c.Htpasswd != "" || c.TLSClientCA != ""
	switch {
	case c.UI == "auto":
		return c.loopback && canLogIn, nil
	case c.UI != "on":
		return false, nil
	case !canLogIn:
		return false, errors.New("--ui=on requires users with passwords or certificates: a browser can't log in by the tokens of another server")
	case !c.loopback && !c.hasUsers():
		return false, errors.New("--ui=on requires users on an address that other machines can reach: see --htpasswd")
	}
	return true, nil
}

// newInspector returns the page's handler.
func (s *server) newInspector() *inspect.Inspector {
	o := inspect.Options{Zstd: newZstdReader}
	o.Policy = func(ctx context.Context, user string, action auth.Action, req registry.Request) error {
		if u := s.current.Load().users; u != nil {
			return u.policy(ctx, user, action, req)
		}
		return nil
	}
	if !s.start.ReadOnly && !s.start.NoDelete {
		o.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.deletions.ServeHTTP(w, r) })
	}
	if s.mirror != nil {
		o.Mirrors = func() map[string]inspect.MirrorStats {
			all := make(map[string]inspect.MirrorStats)
			for name, stats := range s.mirror.Stats() {
				all[name] = inspect.MirrorStats{Hits: stats.Hits, Stale: stats.Stale, Misses: stats.Misses, Bytes: stats.Bytes}
			}
			return all
		}
	}
	return inspect.New(s.store, o)
}

// newZstdReader returns a reader whose memory is bounded.
func newZstdReader(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}

// withUI returns a handler that serves the page, and everything else with h. The requests of
// users who log in to the page are those of the users to the registry.
func (s *server) withUI(h http.Handler, observe func(http.Handler) http.Handler) http.Handler {
	s.deletions = observe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry.ReportUser(r.Context(), auth.User(r.Context()))
		s.registry.ServeHTTP(w, r)
	}))
	page := catchPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		current := s.current.Load()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		// The stream of an open page ends with a reload: the browser opens it again, and
		// logs in again.
		defer context.AfterFunc(current.replaced, cancel)()
		current.page.ServeHTTP(w, r.WithContext(ctx))
	}), s.log.Logger)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.inspector.Serves(r) {
			page.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// login returns a handler that serves the page to users who have logged in, or, if everyone
// may list the repositories, to everyone.
func (s *server) login(c *serveCmd, u *users) http.Handler {
	if u == nil {
		return s.inspector
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, ok := "", false
		if c.TLSClientCA != "" {
			var groups []string
			if user, groups, ok = c.transport.clients.user(r); ok {
				r = r.WithContext(context.WithValue(r.Context(), groupsKey{}, groups))
			}
		}
		if name, password, sent := r.BasicAuth(); sent && !ok {
			if err := u.check(r.Context(), name, password); err != nil {
				s.log.Warn("login to the page", "user", name, "remote", r.RemoteAddr, "error", err)
				requestLogin(w, err)
				return
			}
			user, ok = name, true
		}
		anyone := u.policy(r.Context(), "", auth.Catalog, registry.Request{Op: registry.OpCatalog}) == nil
		if !ok && !anyone {
			requestLogin(w, auth.ErrCredentials)
			return
		}
		s.inspector.ServeHTTP(w, r.WithContext(auth.WithUser(r.Context(), user)))
	})
}

// requestLogin has a browser ask for a name and a password.
func requestLogin(w http.ResponseWriter, err error) {
	if !errors.Is(err, auth.ErrCredentials) {
		status := http.StatusServiceUnavailable
		if e := (*registry.Error)(nil); errors.As(err, &e) {
			status = e.Status // of a throttle
		}
		http.Error(w, "logging in is not possible now", status)
		return
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="berth", charset="UTF-8"`)
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "log in with the name and password of a user of this registry", http.StatusUnauthorized)
}
