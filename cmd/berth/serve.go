// SPDX-License-Identifier: Apache-2.0

// Command berth serve.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/retention"
)

// maxHeader is the size in bytes of the largest header, the request line included.
// While it is parsed, a header costs a multiple of its size. Tokens are the longest
// that clients send.
const maxHeader = 64 << 10

// Run serves until SIGTERM or SIGINT, and then finishes the requests in progress.
func (c *serveCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	if err := c.check(); err != nil {
		return err
	}
	log := c.openLog(logs.Writer)
	defer log.flush()
	// It may take long to open the store: a change meanwhile is not lost.
	seen := c.fileStates()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for _, sentence := range unknownVariables(os.Environ(), c.flags) {
		log.Warn(sentence)
	}
	if c.Memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(c.Memory) + int64(c.Memory)/4)
	}
	defer raiseHeap(int64(c.Memory))()
	closer, err := c.openStore(ctx, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := closer.Close(); err != nil {
			log.Error("closing the store", "error", err)
		}
	}()
	listeners, err := listen(c.Addr, c.SocketMode)
	if err != nil {
		return err
	}
	defer closeListeners(listeners)
	c.loopback = onLoopback(listeners)
	if addr := publicAddr(listeners); addr != nil && !c.hasUsers() {
		log.Warn("anyone who can reach this address can use the registry: see --htpasswd", "addr", addr.String())
	}
	hosts, err := c.hostNames()
	if err != nil {
		return err
	}
	if c.transport, err = c.openTLS(ownHosts(c.Addr, listeners, hosts), log.Logger); err != nil {
		return err
	}
	addrs := urls(listeners, "")
	if c.Connections > 0 {
		listeners = limitConnections(listeners, c.Connections)
	}
	s, err := c.newServer(log)
	if err != nil {
		return err
	}
	defer s.Close()
	if state, ok := c.fileStates()[c.TokenKeyFile]; ok {
		seen[c.TokenKeyFile] = state // it may have been made just now
	}
	if c.DebugAddr != "" {
		debugServer, err := s.serveDebug(c.DebugAddr, ctx)
		if err != nil {
			return err
		}
		defer debugServer.Close()
	}
	defer s.serveControl()()
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	background.Go(func() { freeWhenIdle(ctx, 3*time.Second, allocatedBytes, debug.FreeOSMemory) })
	background.Go(func() { s.collectRegularly(ctx) })
	background.Go(func() { s.reloadWhenAsked(ctx, hangups, seen) })
	background.Go(func() { watchdog(ctx, log.Logger) })

	server := &http.Server{
		Handler:           s.handler(ctx),
		ReadHeaderTimeout: c.HeaderTimeout,
		MaxHeaderBytes:    maxHeader,
		IdleTimeout:       c.IdleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:         c.protocols(),
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: max(c.Progress, 0)},
	}
	done := serveAll(ctx, server, listeners, c.transport)
	for _, url := range urls(listeners, scheme(c.transport)) {
		fmt.Fprintf(stdout, "berth: serving on %s\n", url)
	}
	if c.AddrFile != "" {
		if err := writeFile(c.AddrFile, []byte(strings.Join(addrs, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	unmapStart()
	notifyReady(log.Logger)

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop() // a second signal ends the process at once
	log.Info("stopping", "drain", c.Drain, "grace", c.Grace)
	notifyStopping(log.Logger)
	select {
	case err := <-done:
		return err
	case <-time.After(c.Drain):
	}
	grace, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	err = server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		server.Close()
		return fmt.Errorf("requests still in progress after %v", c.Grace)
	}
	return err
}

// openStore opens the store, unless a test has set it. The caller must close it.
func (c *serveCmd) openStore(ctx context.Context, log *serverLog) (io.Closer, error) {
	if c.store != nil {
		return io.NopCloser(nil), nil
	}
	s, closer, err := openStore(ctx, c.Store, storeOptions{
		limits:   c.memLimits(),
		onError:  func(err error) { log.Error("bucket", "error", err) },
		warn:     func(text string) { log.Warn(text) },
		log:      log.Logger,
		readOnly: c.ReadOnly,
		memory:   int64(c.Memory) / 2, // the rest is for pulls, and for garbage

		noReferrers: c.NoReferrers,
	})
	if err != nil {
		return nil, err
	}
	if _, ok := s.(registry.Collector); !ok && c.GCEvery > 0 {
		closer.Close()
		return nil, errors.New("--gc-every: this store has no garbage collection")
	}
	if m, ok := s.(*registry.MemStore); ok && c.Evict > 0 {
		m.Limits.Collect = retention.Evict(m, retention.Options{Grace: c.Evict})
	}
	c.store = s
	return closer, nil
}
