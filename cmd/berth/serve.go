// SPDX-License-Identifier: Apache-2.0

// Command berth serve.

package main

import (
	"cmp"
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
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/guard"
	"github.com/berth-oci/registry/retention"
)

// serveCmd is berth serve.
type serveCmd struct {
	Addr       []string   `help:"Address to listen on: HOST:PORT, where port 0 picks a free one, unix:PATH, or systemd: and systemd:NAME for the sockets that systemd passes (default: ${default}). Can be repeated." default:"127.0.0.1:5000" sep:"none" placeholder:"ADDR"`
	AddrFile   string     `help:"Write the addresses to this file, one in each line, once the server listens on them." type:"path" placeholder:"FILE"`
	SocketMode socketMode `help:"Mode of a unix socket (default: 0660)." placeholder:"MODE"`
	Host       []string   `help:"Serve this host name too, on a loopback address. By default a server there rejects requests for other hosts than loopback addresses, localhost, *.localhost, names without a dot, host.docker.internal and host.containers.internal, so that no web page can use it." sep:"none" placeholder:"NAME"`
	TLSFlags

	Store    string `help:"Where to keep content (default: ${default}); see above." default:"mem:" placeholder:"STORE" group:"content"`
	Redirect bool   `help:"Redirect downloads of blobs to signed URLs of the bucket. Clients must be able to reach the bucket." group:"content"`

	Htpasswd      string `help:"Require a user and password from this file, in the format of htpasswd -B." type:"existingfile" placeholder:"FILE" group:"users"`
	AnonymousPull bool   `help:"Allow pulls without a password. Requires --htpasswd or --tls-client-ca." group:"users"`

	AllowSparse     bool     `help:"Accept manifests that reference missing blobs or manifests." group:"registry"`
	ClientUploadIDs bool     `help:"Let clients choose the IDs of upload sessions." name:"client-upload-ids" group:"registry"`
	ReadOnly        bool     `help:"Reject pushes and deletes." group:"registry"`
	NoDelete        bool     `help:"Reject deletes." group:"registry"`
	NoReferrers     bool     `help:"Disable the referrers API, like a registry of OCI 1.0." group:"registry"`
	Warning         []string `help:"Send this text in a Warning header with each response." sep:"none" placeholder:"TEXT" group:"registry"`

	Memory        size          `help:"Maximum memory for the content and uploads of mem: (default: unlimited). With a bucket, half of it is for uploads in progress (default: 256MiB). With any store, requests in progress may use another eighth. Sets GOMEMLIMIT to 1.25 times this size unless GOMEMLIMIT is set." placeholder:"SIZE" group:"limits"`
	Disk          size          `help:"Maximum size of temporary files for large blobs when memory is short (default: none). Requires --memory." placeholder:"SIZE" group:"limits"`
	Evict         time.Duration `help:"When mem: is full, remove content that no tag leads to and that no client has used for this time, instead of rejecting pushes (default: reject). Requires --memory." placeholder:"TIME" group:"limits"`
	MaxBlob       size          `help:"Maximum size of a blob (default: unlimited)." placeholder:"SIZE" group:"limits"`
	MaxManifest   size          `help:"Maximum size of a manifest (default: ${default})." default:"4MiB" placeholder:"SIZE" group:"limits"`
	MaxUploads    int           `help:"Maximum number of uploads in progress (default: unlimited)." placeholder:"N" group:"limits"`
	UploadIdle    time.Duration `help:"Discard an upload after this time without a request (default: ${default})." default:"1h" placeholder:"TIME" group:"limits"`
	HeaderTimeout time.Duration `help:"Maximum time to read the header of a request (default: ${default})." default:"10s" placeholder:"TIME" group:"limits"`
	IdleTimeout   time.Duration `help:"Close a connection after this time without a request (default: ${default})." default:"2m" placeholder:"TIME" group:"limits"`
	Progress      time.Duration `help:"Close a connection that takes longer than this to transfer 1 KiB of a request body or 64 KiB of a response (default: ${default}); 0 means never." default:"1m" placeholder:"TIME" group:"limits"`
	Connections   int           `help:"Maximum number of connections (default: ${default}). Further connections wait." default:"4096" placeholder:"N" group:"limits"`
	Grace         time.Duration `help:"Maximum time to finish requests after SIGTERM (default: ${default})." default:"1m" placeholder:"TIME" group:"limits"`

	DebugAddr string     `help:"Also serve Go's profiles, on this address below /debug/pprof/. Do not expose it." placeholder:"HOST:PORT" group:"log"`
	LogFormat string     `help:"Format of the log: text or json (default: ${default})." enum:"text,json" default:"text" placeholder:"FORMAT" group:"log"`
	LogLevel  slog.Level `help:"Minimum level to log: debug, info, warn or error (default: ${default}). Requests are logged at info, rejected ones at warn, except HEAD requests for missing content." default:"info" placeholder:"LEVEL" group:"log"`

	store    registry.Store // opened by Run, unless a test sets it
	loopback bool           // web pages on this machine can reach the server, but no other machines
}

// flagGroups are the groups of flags in the help of berth serve.
var flagGroups = []kong.Group{
	{Key: "tls", Title: "TLS:"},
	{Key: "content", Title: "Content:"},
	{Key: "users", Title: "Users:"},
	{Key: "registry", Title: "Registry:"},
	{Key: "limits", Title: "Limits (SIZE is a number with a unit, such as 64MiB or 2g):"},
	{Key: "log", Title: "Log:"},
}

// Help is shown by berth serve --help.
func (serveCmd) Help() string {
	return storeHelp + " The content of mem: is lost when the command exits. A directory can be served by one process at a time. A bucket can be served by any number of processes behind a load balancer."
}

// maxHeader is the size in bytes of the largest header, the request line included.
// While it is parsed, a header costs a multiple of its size. Tokens are the longest
// that clients send.
const maxHeader = 64 << 10

// Run serves until SIGTERM or SIGINT, and then finishes the requests in progress.
func (c *serveCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	log := c.openLog(logs.Writer)
	defer log.flush()
	if c.Memory > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(c.Memory) + int64(c.Memory)/4)
	}
	defer raiseHeap(int64(c.Memory))()
	if c.Disk > 0 && (c.Memory <= 0 || c.Store != "mem:") {
		return errors.New("--disk requires --store=mem: and --memory")
	}
	if c.Evict < 0 || c.Evict > 0 && (c.Memory <= 0 || c.Store != "mem:") {
		return errors.New("--evict requires --store=mem: and --memory, and a positive time")
	}
	if c.AnonymousPull && c.Htpasswd == "" && c.TLSClientCA == "" {
		return errors.New("--anonymous-pull requires --htpasswd: without users, anyone may push too")
	}
	if c.AnonymousPull && c.TLSClientCA != "" && c.TLSClientAuth != "optional" {
		return errors.New("--anonymous-pull requires --tls-client-auth=optional: otherwise all clients have a certificate")
	}
	if c.store == nil {
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
			return err
		}
		defer func() {
			if err := closer.Close(); err != nil {
				log.Error("closing the store", "error", err)
			}
		}()
		c.store = s
	}
	if m, ok := c.store.(*registry.MemStore); ok && c.Evict > 0 {
		m.Limits.Collect = retention.Evict(m, retention.Options{Grace: c.Evict})
	}
	listeners, err := listen(c.Addr, c.SocketMode)
	if err != nil {
		return err
	}
	defer closeListeners(listeners)
	c.loopback = onLoopback(listeners)
	if addr := publicAddr(listeners); addr != nil && c.Htpasswd == "" && c.TLSClientCA == "" {
		log.Warn("anyone who can reach this address can use the registry: see --htpasswd", "addr", addr.String())
	}
	hosts, err := c.hostNames()
	if err != nil {
		return err
	}
	transport, err := c.openTLS(ownHosts(c.Addr, listeners, hosts), log.Logger)
	if err != nil {
		return err
	}
	addrs := urls(listeners, "")
	if c.Connections > 0 {
		listeners = limitConnections(listeners, c.Connections)
	}
	handler, err := c.handler(ctx, log)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: c.HeaderTimeout,
		MaxHeaderBytes:    maxHeader,
		IdleTimeout:       c.IdleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:         c.protocols(),
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: max(c.Progress, 0)},
	}
	if c.DebugAddr != "" {
		profiles, err := serveProfiles(c.DebugAddr)
		if err != nil {
			return err
		}
		defer profiles.Close()
	}
	go freeWhenIdle(ctx, 3*time.Second, allocatedBytes, debug.FreeOSMemory)
	done := serveAll(ctx, server, listeners, transport)
	for _, url := range urls(listeners, scheme(transport)) {
		fmt.Fprintf(stdout, "berth: serving on %s\n", url)
	}
	if c.AddrFile != "" {
		if err := writeFile(c.AddrFile, strings.Join(addrs, "\n")); err != nil {
			return err
		}
	}
	notifyReady(log.Logger)
	go watchdog(ctx, log.Logger)

	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop() // a second signal ends the process at once
	log.Info("stopping", "grace", c.Grace)
	notifyStopping(log.Logger)
	ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	err = server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		server.Close()
		return fmt.Errorf("requests still in progress after %v", c.Grace)
	}
	return err
}

// handler returns the handler of the entire server. The context stopping ends
// when the server starts to shut down.
func (c *serveCmd) handler(stopping context.Context, log *serverLog) (http.Handler, error) {
	h := registry.New(c.options()...)
	if c.Redirect {
		b, ok := c.store.(*bucket.Store)
		if !ok {
			return nil, errors.New("--redirect requires a bucket")
		}
		h = b.Redirect(h)
	}
	h, err := c.authenticate(h)
	if err != nil {
		return nil, err
	}
	h, err = c.guardHosts(h)
	if err != nil {
		return nil, err
	}
	free := freeAfterDeletes(3*time.Second, debug.FreeOSMemory)
	h = registry.Observe(func(e registry.Event) {
		log.logRequest(e)
		free(e)
	})(catchPanics(h, log.Logger))
	return guard.Progress(c.Progress)(withHealth(h, stopping, c.ready())), nil
}

// authenticate restricts h to users, if there are any: with a password, or with only a
// certificate.
func (c *serveCmd) authenticate(h http.Handler) (http.Handler, error) {
	if c.Htpasswd == "" && c.TLSClientCA == "" {
		return h, nil
	}
	check := auth.Users(nil).Check
	if c.Htpasswd != "" {
		users, err := openHtpasswd(c.Htpasswd)
		if err != nil {
			return nil, err
		}
		check = users.check()
	}
	others := auth.Basic("berth", check, c.policy())(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, ok := clientUser(r)
		if !ok || c.Htpasswd != "" && r.Header.Get("Authorization") != "" {
			others.ServeHTTP(w, r)
			return
		}
		registry.ReportUser(r.Context(), name)
		h.ServeHTTP(w, r)
	}), nil
}

// policy lets users do everything and, with AnonymousPull, everyone pull.
func (c *serveCmd) policy() auth.Policy {
	return func(_ context.Context, user string, action auth.Action, _ registry.Request) error {
		if user != "" || c.AnonymousPull && action == auth.Pull {
			return nil
		}
		return registry.ErrDenied
	}
}

func (c *serveCmd) options() []registry.Option {
	opts := []registry.Option{
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
	l := registry.Limits{ManifestBytes: int64(c.MaxManifest), BlobBytes: int64(c.MaxBlob)}
	if _, ok := c.store.(*registry.MemStore); !ok && c.Memory > 0 {
		// The same as the registry derives from the limits of a MemStore: an
		// eighth, but at least enough for one manifest, which takes four times
		// its size.
		memory, manifest := int64(c.Memory), cmp.Or(int64(c.MaxManifest), 4<<20)
		l.InFlightBytes = max(memory/8, 4*min(manifest, memory)+16<<10)
	}
	return l
}

func (c *serveCmd) memLimits() registry.MemLimits {
	l := registry.MemLimits{TotalBytes: int64(c.Memory), Uploads: c.MaxUploads, UploadIdle: c.UploadIdle}
	if c.Memory > 0 && c.Disk > 0 {
		l.TotalBytes, l.MemoryBytes = int64(c.Memory+c.Disk), int64(c.Memory)
	}
	return l
}

// writeFile writes a file atomically, since other processes may wait for it.
func writeFile(name, content string) error {
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, []byte(content+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
