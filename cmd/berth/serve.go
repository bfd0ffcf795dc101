// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/bucket"
)

// serveCmd is berth serve.
type serveCmd struct {
	Addr     string `help:"Address to listen on (${default}). Port 0 takes a free one." default:"127.0.0.1:5000" placeholder:"HOST:PORT"`
	AddrFile string `help:"Write the address that is listened on to this file." type:"path" placeholder:"FILE"`
	TLSCert  string `help:"Serve HTTPS with this certificate chain, in PEM." name:"tls-cert" type:"existingfile" and:"tls" placeholder:"FILE" group:"TLS:"`
	TLSKey   string `help:"The certificate's private key, in PEM." name:"tls-key" type:"existingfile" and:"tls" placeholder:"FILE" group:"TLS:"`

	Store    string `help:"Where content is kept (${default}); see below." default:"mem:" placeholder:"STORE" group:"Content:"`
	Redirect bool   `help:"Send clients to the bucket itself for blobs, by signed URLs that they must be able to reach." group:"Content:"`

	Htpasswd      string `help:"Ask for the users and passwords of this file, as htpasswd -B writes it." type:"existingfile" placeholder:"FILE" group:"Users:"`
	AnonymousPull bool   `help:"Let those pull who are not in the file." group:"Users:"`

	AllowSparse     bool     `help:"Accept manifests that name blobs and manifests which are not there." group:"Registry:"`
	ClientUploadIDs bool     `help:"Let clients choose the IDs of upload sessions." name:"client-upload-ids" group:"Registry:"`
	ReadOnly        bool     `help:"Refuse pushes and deletes." group:"Registry:"`
	NoDelete        bool     `help:"Refuse deletes." group:"Registry:"`
	NoReferrers     bool     `help:"Do without the referrers API, as a registry of OCI 1.0." group:"Registry:"`
	Warning         []string `help:"Send this text to clients as a Warning, with each answer." sep:"none" placeholder:"TEXT" group:"Registry:"`

	Memory        size          `help:"Most memory for content and uploads (unlimited). Unless it is set, GOMEMLIMIT is a quarter more." placeholder:"SIZE" group:"Limits (SIZE is like 64MiB or 2g):"`
	Disk          size          `help:"Most bytes in temporary files, for large blobs when memory is short (none). Needs --memory." placeholder:"SIZE" group:"Limits (SIZE is like 64MiB or 2g):"`
	MaxBlob       size          `help:"Largest blob (unlimited)." placeholder:"SIZE" group:"Limits (SIZE is like 64MiB or 2g):"`
	MaxManifest   size          `help:"Largest manifest (${default})." default:"4MiB" placeholder:"SIZE" group:"Limits (SIZE is like 64MiB or 2g):"`
	MaxUploads    int           `help:"Most uploads in progress (unlimited)." placeholder:"N" group:"Limits (SIZE is like 64MiB or 2g):"`
	UploadIdle    time.Duration `help:"Time after which an idle upload is dropped (${default})." default:"1h" placeholder:"TIME" group:"Limits (SIZE is like 64MiB or 2g):"`
	HeaderTimeout time.Duration `help:"Time for a client to send a request's header (${default})." default:"10s" placeholder:"TIME" group:"Limits (SIZE is like 64MiB or 2g):"`
	IdleTimeout   time.Duration `help:"Time that a connection is kept without a request (${default})." default:"2m" placeholder:"TIME" group:"Limits (SIZE is like 64MiB or 2g):"`
	Progress      time.Duration `help:"Time within which 1 KiB of a request's body, or 64 KiB of an answer, must get through; 0 is for ever (${default})." default:"1m" placeholder:"TIME" group:"Limits (SIZE is like 64MiB or 2g):"`
	Connections   int           `help:"Most connections; further ones wait (${default})." default:"4096" placeholder:"N" group:"Limits (SIZE is like 64MiB or 2g):"`
	Grace         time.Duration `help:"Time for requests to finish after SIGTERM (${default})." default:"1m" placeholder:"TIME" group:"Limits (SIZE is like 64MiB or 2g):"`

	store registry.Store // in memory, unless a test gives one

	DebugAddr string     `help:"Serve Go's profiles below /debug/pprof/ on this address too: for no eyes but yours." placeholder:"HOST:PORT" group:"Log:"`
	LogFormat string     `help:"Log as text or json (${default})." enum:"text,json" default:"text" placeholder:"FORMAT" group:"Log:"`
	LogLevel  slog.Level `help:"Log from this level up: debug, info, warn or error (${default}). Requests are at info, refused ones at warn." default:"info" placeholder:"LEVEL" group:"Log:"`
}

// Help is shown by berth serve --help.
func (serveCmd) Help() string {
	return storeHelp + " In memory it is gone when the command stops; a directory belongs to one registry at a time; a bucket may have as many as you like, behind a load balancer."
}

// Run serves until SIGTERM or SIGINT, and then until the requests in flight are
// answered.
func (c *serveCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	log := slog.New(c.logHandler(logs))
	if c.Memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(c.Memory) + int64(c.Memory)/4)
	}
	if c.Disk > 0 && (c.Memory <= 0 || c.Store != "mem:") {
		return errors.New("--disk is for what --memory has no room for")
	}
	if c.store == nil {
		s, closer, err := openStore(ctx, c.Store, storeOptions{
			limits:  c.limits(),
			onError: func(err error) { log.Error("bucket", "error", err) },
			warn:    func(text string) { log.Warn(text) },

			readOnly: c.ReadOnly,
		})
		if err != nil {
			return err
		}
		defer closer.Close()
		c.store = s
	}
	handler, err := c.handler(ctx, log)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: c.HeaderTimeout,
		IdleTimeout:       c.IdleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	if c.Connections > 0 {
		listener = netutil.LimitListener(listener, c.Connections)
	}
	defer listener.Close()
	addr := listener.Addr().String()
	if c.AddrFile != "" {
		if err := writeFile(c.AddrFile, addr); err != nil {
			return err
		}
	}

	if c.DebugAddr != "" {
		profiles, err := serveProfiles(c.DebugAddr)
		if err != nil {
			return err
		}
		defer profiles.Close()
	}
	done := make(chan error, 1)
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
		go func() { done <- server.ServeTLS(listener, c.TLSCert, c.TLSKey) }()
	} else {
		go func() { done <- server.Serve(listener) }()
	}
	fmt.Fprintf(stdout, "berth: serving on %s://%s\n", scheme, addr)

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop() // a second signal ends the process at once
	log.Info("stopping", "grace", c.Grace)
	ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	err = server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		server.Close()
		return fmt.Errorf("requests were still in flight after %v", c.Grace)
	}
	return err
}

// handler returns all that is served, until stopping is done.
func (c *serveCmd) handler(stopping context.Context, log *slog.Logger) (http.Handler, error) {
	h := registry.New(c.options(log)...)
	if c.Redirect {
		b, ok := c.store.(*bucket.Store)
		if !ok {
			return nil, errors.New("--redirect is for buckets")
		}
		h = logRedirects(b.Redirect(h), log)
	}
	if c.Htpasswd != "" {
		users, err := readUsers(c.Htpasswd)
		if err != nil {
			return nil, err
		}
		h = auth.Basic("berth", users.check, c.policy())(h)
	}
	h = giveBack(health(h, stopping), 3*time.Second)
	return watchProgress(catchPanics(h, log), c.Progress), nil
}

// health answers /healthz and /readyz, and has h answer all else.
func health(h http.Handler, stopping context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			if stopping.Err() != nil {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return
			}
			fallthrough
		case "/healthz":
			fmt.Fprintln(w, "ok")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// serveProfiles serves Go's profiles until it is closed.
func serveProfiles(addr string) (io.Closer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	return server, nil
}

func readUsers(name string) (*htpasswd, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	users, err := readHtpasswd(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return users, nil
}

// policy lets those do everything who are in the file.
func (c *serveCmd) policy() auth.Policy {
	return func(user, _ string, action auth.Action) bool {
		return user != "" || c.AnonymousPull && action == auth.Pull
	}
}

func (c *serveCmd) options(log *slog.Logger) []registry.Option {
	opts := []registry.Option{
		registry.WithSlog(log),
		registry.WithReferrersSupport(!c.NoReferrers),
		registry.WithLimits(c.limits()),
		registry.WithStore(c.store),
	}
	if c.AllowSparse {
		opts = append(opts, registry.AllowSparse())
	}
	if c.ClientUploadIDs {
		opts = append(opts, registry.ClientUploadIDs())
	}
	if c.ReadOnly {
		opts = append(opts, registry.ReadOnly())
	}
	if c.NoDelete {
		opts = append(opts, registry.NoDelete())
	}
	for _, text := range c.Warning {
		opts = append(opts, registry.WithWarning(1, text))
	}
	return opts
}

func (c *serveCmd) limits() registry.Limits {
	l := registry.Limits{
		ManifestBytes: int64(c.MaxManifest),
		BlobBytes:     int64(c.MaxBlob),
		TotalBytes:    int64(c.Memory),
		Uploads:       c.MaxUploads,
		UploadIdle:    c.UploadIdle,
	}
	if c.Memory > 0 && c.Disk > 0 {
		l.TotalBytes, l.MemoryBytes = int64(c.Memory+c.Disk), int64(c.Memory)
	}
	return l
}

func (c *serveCmd) logHandler(w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(w, opts)
	}
	return slog.NewTextHandler(w, opts)
}

// writeFile writes a file so that whoever waits for it finds it whole.
func writeFile(name, content string) error {
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, []byte(content+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
