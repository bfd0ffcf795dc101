// SPDX-License-Identifier: Apache-2.0

// The flags of berth serve.

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// serveCmd is berth serve.
type serveCmd struct {
	Config     string
	Addr       []string
	AddrFile   string
	SocketMode socketMode
	Host       []string
	TLSFlags

	UI string

	Store    string
	Redirect bool
	mirrorFlags

	User          []string
	Htpasswd      string
	AnonymousPull bool
	Rules         string
	Token         bool
	TokenKeyFile  string
	TokenLifetime time.Duration
	TokenRealm    string
	TokenService  string
	TokenKeys     []string
	TokenIssuer   string
	AuditLog      string

	AllowSparse     bool
	ClientUploadIDs bool
	ReadOnly        bool
	NoDelete        bool
	NoReferrers     bool
	Warning         []string

	Memory        size
	Disk          size
	Evict         time.Duration
	MaxBlob       size
	MaxManifest   size
	MaxUploads    int
	UploadIdle    time.Duration
	HeaderTimeout time.Duration
	IdleTimeout   time.Duration
	Progress      time.Duration
	Connections   int
	Drain         time.Duration
	Grace         time.Duration

	GCEvery    time.Duration
	GCGrace    time.Duration
	GCUntagged bool

	DebugAddr           string
	MetricsRepositories bool
	TraceFlags
	LogFormat string
	LogLevel  slog.Level

	store     registry.Store // opened by Run, unless a test sets it
	loopback  bool           // web pages on this machine can reach the server, but no other machines
	transport *serverTLS     // nil without TLS

	args  []string       // the command line
	flags *pflag.FlagSet // of the command line, set from the environment and the file, too
	file  *configFile    // nil without --config
}

func (c *serveCmd) command() *cobra.Command {
	return c.newCommand("serve", "Serve a registry.",
		storeHelp+" The content of mem: is lost when the command exits. A directory can be served by one process at a time. A bucket can be served by any number of processes behind a load balancer.\n\n"+
			"A SIZE is a number with a unit, such as 64MiB or 2g, and a TIME is one such as 30s, 5m or 1h30m.",
		c.Run)
}

// newCommand returns a command with the flags of berth serve, and more.
func (c *serveCmd) newCommand(use, short, long string, run func(io.Writer, logOutput) error, more ...flagGroup) *cobra.Command {
	cmd := newCommand(use, short, long, run, append(more,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.Var(anyPath(&c.Config), "config", "Read flags from this YAML `FILE`: each key is the name of a flag, or one of the sections retention, quotas, notifications and mirrors. A flag has precedence over its environment variable, such as BERTH_MAX_BLOB for --max-blob, and that over the file.")
			f.StringArrayVar(&c.Addr, "addr", []string{"127.0.0.1:5000"}, "Listen on this `ADDR`: HOST:PORT, where port 0 picks a free one, unix:PATH, or systemd: and systemd:NAME for the sockets that systemd passes. Can be repeated.")
			f.Var(anyPath(&c.AddrFile), "addr-file", "Write the addresses to this `FILE`, one in each line, once the server listens on them.")
			f.TextVar(&c.SocketMode, "socket-mode", socketMode(0), "`MODE` of a unix socket (default 0660).")
			f.StringArrayVar(&c.Host, "host", nil, "Serve this host `NAME` too, on a loopback address. By default a server there rejects requests for other hosts than loopback addresses, localhost, *.localhost, names without a dot, host.docker.internal and host.containers.internal, so that no web page can use it. Can be repeated.")
			c.UI = "auto"
			f.Var(enumValue{&c.UI, []string{"auto", "on", "off"}}, "ui", "Serve a page that shows the content and the last requests in a browser, at /inspect/: `WHEN` is on, off, or auto, on a loopback address only. Users log in to it.")
		}},
		flagGroup{"TLS", c.TLSFlags.define},
		flagGroup{"Content", func(f *pflag.FlagSet) {
			f.StringVar(&c.Store, "store", "mem:", "Keep content in this `STORE`; see above.")
			f.BoolVar(&c.Redirect, "redirect", false, "Redirect downloads of blobs to signed URLs of the bucket. Clients must be able to reach the bucket.")
		}},
		flagGroup{"Mirrors", c.mirrorFlags.define},
		flagGroup{"Users", func(f *pflag.FlagSet) {
			f.StringArrayVar(&c.User, "user", nil, "Require a user and password, `NAME:PASSWORD`. Can be repeated. Other users of this machine can see it: see --htpasswd.")
			f.Var(existingFile(&c.Htpasswd), "htpasswd", "Require a user and password from this `FILE`, in the format of htpasswd -B: see berth passwd.")
			f.BoolVar(&c.AnonymousPull, "anonymous-pull", false, "Allow pulls without a password. Requires users.")
			f.Var(existingFile(&c.Rules), "rules", "Read from this YAML `FILE` which users may do what. Without it, each user may do everything. Requires users.")
			f.BoolVar(&c.Token, "token", false, "Let users log in by tokens, which clients get at /token; passwords work, too. Requires --user or --htpasswd.")
			f.Var(anyPath(&c.TokenKeyFile), "token-key-file", "Keep the keys of tokens in this `FILE`, made if it does not exist, so that tokens outlive the process (default: in memory).")
			f.DurationVar(&c.TokenLifetime, "token-lifetime", 0, "`TIME` for which a token is valid (default 5m).")
			f.StringVar(&c.TokenRealm, "token-realm", "", "`URL` at which clients get tokens (default: /token on the host that the client uses).")
			f.StringVar(&c.TokenService, "token-service", "", "`NAME` of this registry in tokens (default berth).")
			f.StringArrayVar(&c.TokenKeys, "token-keys", nil, "Accept tokens of another server, which are signed with a key in the JWK Set at this `PLACE`, a URL or a file. Can be repeated. Requires --token-realm and --token-service.")
			f.StringVar(&c.TokenIssuer, "token-issuer", "", "`NAME` of the required issuer of the tokens of another server (default: any).")
			f.Var(anyPath(&c.AuditLog), "audit-log", "Append a line of JSON to this `FILE` for each pull, change, login and rejection. SIGHUP opens it again.")
		}},
		flagGroup{"Registry", func(f *pflag.FlagSet) {
			f.BoolVar(&c.AllowSparse, "allow-sparse", false, "Accept manifests that reference missing blobs or manifests.")
			f.BoolVar(&c.ClientUploadIDs, "client-upload-ids", false, "Let clients choose the IDs of upload sessions.")
			f.BoolVar(&c.ReadOnly, "read-only", false, "Reject pushes and deletes.")
			f.BoolVar(&c.NoDelete, "no-delete", false, "Reject deletes.")
			f.BoolVar(&c.NoReferrers, "no-referrers", false, "Disable the referrers API, like a registry of OCI 1.0.")
			f.StringArrayVar(&c.Warning, "warning", nil, "Send this `TEXT` in a Warning header with each response. Can be repeated.")
		}},
		flagGroup{"Limits", func(f *pflag.FlagSet) {
			f.TextVar(&c.Memory, "memory", size(0), "Maximum `SIZE` of the memory for the content and uploads of mem: (default: unlimited). With a bucket, half of it is for uploads in progress (default 256MiB). With any store, requests in progress may use another eighth. Sets GOMEMLIMIT to 1.25 times this size unless GOMEMLIMIT is set.")
			f.TextVar(&c.Disk, "disk", size(0), "Maximum `SIZE` of temporary files for large blobs when memory is short (default: none). Requires --memory.")
			f.DurationVar(&c.Evict, "evict", 0, "When mem: is full, remove content that no tag leads to and that no client has used for this `TIME`, instead of rejecting pushes (default: reject). Requires --memory.")
			f.TextVar(&c.MaxBlob, "max-blob", size(0), "Maximum `SIZE` of a blob (default: unlimited).")
			f.TextVar(&c.MaxManifest, "max-manifest", size(4<<20), "Maximum `SIZE` of a manifest.")
			f.IntVar(&c.MaxUploads, "max-uploads", 0, "At most `N` uploads in progress (default: unlimited).")
			f.DurationVar(&c.UploadIdle, "upload-idle", time.Hour, "Discard an upload after this `TIME` without a request.")
			f.DurationVar(&c.HeaderTimeout, "header-timeout", 10*time.Second, "Maximum `TIME` to read the header of a request.")
			f.DurationVar(&c.IdleTimeout, "idle-timeout", 2*time.Minute, "Close a connection after this `TIME` without a request.")
			f.DurationVar(&c.Progress, "progress", time.Minute, "Close a connection that takes longer than this `TIME` to transfer 1 KiB of a request body or 64 KiB of a response; 0 means never.")
			f.IntVar(&c.Connections, "connections", 4096, "At most `N` connections. Further connections wait.")
			f.DurationVar(&c.Drain, "drain", 0, "`TIME` between SIGTERM and the end of new connections (default: none). Meanwhile /readyz responds with 503, so that a load balancer sends no more.")
			f.DurationVar(&c.Grace, "grace", time.Minute, "Maximum `TIME` to finish requests after SIGTERM.")
		}},
		flagGroup{"Garbage collection", func(f *pflag.FlagSet) {
			f.DurationVar(&c.GCEvery, "gc-every", 0, "`TIME` between two collections of garbage, by the rules of the section retention of --config (default: never). The first is after this time.")
			f.DurationVar(&c.GCGrace, "gc-grace", time.Hour, "`TIME` for which content must have been unused before it is collected, for a bucket at least 30m.")
			f.BoolVar(&c.GCUntagged, "gc-untagged", false, "Also collect manifests that no tag leads to.")
		}},
		flagGroup{"Log, metrics and traces", func(f *pflag.FlagSet) {
			f.StringVar(&c.DebugAddr, "debug-addr", "", "Also serve /metrics, for Prometheus, /healthz, /readyz and Go's profiles, below /debug/pprof/, on this address, `HOST:PORT`. Do not expose it.")
			f.BoolVar(&c.MetricsRepositories, "metrics-repositories", false, "Count requests by repository, too, which may make many metrics. Requires --debug-addr.")
			c.TraceFlags.define(f)
			c.LogFormat, c.LogLevel = "text", slog.LevelInfo
			f.Var(enumValue{&c.LogFormat, []string{"text", "json"}}, "log-format", "`FORMAT` of the log: text or json.")
			f.Var((*levelValue)(&c.LogLevel), "log-level", "Minimum `LEVEL` to log: debug, info, warn or error. Requests are logged at info, rejected ones at warn, except HEAD requests for missing content.")
		}},
	)...)
	c.flags = cmd.Flags()
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if err := setFromEnvironment(c.flags); err != nil {
			return err
		}
		return c.setFromFile()
	}
	return cmd
}

// parseAgain parses the same command line, and reads the same file.
func (c *serveCmd) parseAgain() (*serveCmd, error) {
	again := &serveCmd{args: c.args}
	cmd := again.command()
	if err := cmd.ParseFlags(c.args); err != nil {
		return nil, err
	}
	return again, cmd.PreRunE(cmd, nil)
}

// check checks the flags that depend on each other.
func (c *serveCmd) check() error {
	switch {
	case c.Disk > 0 && (c.Memory <= 0 || c.Store != "mem:"):
		return errors.New("--disk requires --store=mem: and --memory")
	case c.Evict < 0 || c.Evict > 0 && (c.Memory <= 0 || c.Store != "mem:"):
		return errors.New("--evict requires --store=mem: and --memory, and a positive time")
	case c.MetricsRepositories && c.DebugAddr == "":
		return errors.New("--metrics-repositories requires --debug-addr")
	}
	return cmp.Or(c.checkPositive(), c.TLSFlags.check(), c.TraceFlags.check(), c.checkUsers(), c.checkCollections(), c.checkMirrors())
}

// checkPositive rejects negative limits.
func (c *serveCmd) checkPositive() error {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"--connections", int64(c.Connections)},
		{"--max-uploads", int64(c.MaxUploads)},
		{"--upload-idle", int64(c.UploadIdle)},
		{"--header-timeout", int64(c.HeaderTimeout)},
		{"--idle-timeout", int64(c.IdleTimeout)},
		{"--progress", int64(c.Progress)},
		{"--drain", int64(c.Drain)},
		{"--grace", int64(c.Grace)},
	} {
		if limit.value < 0 {
			return fmt.Errorf("%s may not be negative", limit.name)
		}
	}
	return nil
}

func (c *serveCmd) options(s registry.Store) []registry.Option {
	opts := []registry.Option{
		registry.WithReferrersSupport(!c.NoReferrers),
		registry.WithLimits(c.limits()),
		registry.WithStore(s),
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
