// SPDX-License-Identifier: Apache-2.0

// The flags of berth serve.

package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"github.com/berth-oci/registry"
)

// serveCmd is berth serve.
type serveCmd struct {
	Config     string     `help:"Read flags from this YAML file: each key is the name of a flag, or one of the sections retention, quotas and notifications. A flag has precedence over its environment variable, and that over the file." type:"path" placeholder:"FILE"`
	Addr       []string   `help:"Address to listen on: HOST:PORT, where port 0 picks a free one, unix:PATH, or systemd: and systemd:NAME for the sockets that systemd passes (default: ${default}). Can be repeated." default:"127.0.0.1:5000" sep:"none" placeholder:"ADDR"`
	AddrFile   string     `help:"Write the addresses to this file, one in each line, once the server listens on them." type:"path" placeholder:"FILE"`
	SocketMode socketMode `help:"Mode of a unix socket (default: 0660)." placeholder:"MODE"`
	Host       []string   `help:"Serve this host name too, on a loopback address. By default a server there rejects requests for other hosts than loopback addresses, localhost, *.localhost, names without a dot, host.docker.internal and host.containers.internal, so that no web page can use it." sep:"none" placeholder:"NAME"`
	TLSFlags

	Store    string `help:"Where to keep content (default: ${default}); see above." default:"mem:" placeholder:"STORE" group:"content"`
	Redirect bool   `help:"Redirect downloads of blobs to signed URLs of the bucket. Clients must be able to reach the bucket." group:"content"`

	User          []string      `help:"Require this user and password; may be repeated. Other users of this machine can see it: see --htpasswd." sep:"none" placeholder:"NAME:PASSWORD" group:"users"`
	Htpasswd      string        `help:"Require a user and password from this file, in the format of htpasswd -B: see berth passwd." type:"existingfile" placeholder:"FILE" group:"users"`
	AnonymousPull bool          `help:"Allow pulls without a password. Requires users." group:"users"`
	Rules         string        `help:"Read from this YAML file which users may do what. Without it, each user may do everything. Requires users." type:"existingfile" placeholder:"FILE" group:"users"`
	Token         bool          `help:"Let users log in by tokens, which clients get at /token; passwords work, too. Requires --user or --htpasswd." group:"users"`
	TokenKeyFile  string        `help:"Keep the keys of tokens in this file, made if it does not exist, so that tokens outlive the process (default: in memory)." type:"path" placeholder:"FILE" group:"users"`
	TokenLifetime time.Duration `help:"How long a token is valid (default: 5m)." placeholder:"TIME" group:"users"`
	TokenRealm    string        `help:"URL at which clients get tokens (default: /token on the host that the client uses)." placeholder:"URL" group:"users"`
	TokenService  string        `help:"Name of this registry in tokens (default: berth)." placeholder:"NAME" group:"users"`
	TokenKeys     []string      `help:"Accept tokens of another server, which are signed with a key in this JWK Set, a URL or a file; may be repeated. Requires --token-realm and --token-service." sep:"none" placeholder:"PLACE" group:"users"`
	TokenIssuer   string        `help:"Required issuer of the tokens of another server (default: any)." placeholder:"NAME" group:"users"`
	AuditLog      string        `help:"Append a line of JSON to this file for each pull, change, login and rejection. SIGHUP opens it again." type:"path" placeholder:"FILE" group:"users"`

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
	Drain         time.Duration `help:"Time between SIGTERM and the end of new connections (default: none). Meanwhile /readyz responds with 503, so that a load balancer sends no more." placeholder:"TIME" group:"limits"`
	Grace         time.Duration `help:"Maximum time to finish requests after SIGTERM (default: ${default})." default:"1m" placeholder:"TIME" group:"limits"`

	GCEvery    time.Duration `help:"Time between two collections of garbage, by the rules of the section retention of --config (default: never). The first is after this time." name:"gc-every" placeholder:"TIME" group:"gc"`
	GCGrace    time.Duration `help:"How long content must have been unused before it is collected (default: ${default}; for a bucket at least 30m)." name:"gc-grace" default:"1h" placeholder:"TIME" group:"gc"`
	GCUntagged bool          `help:"Also collect manifests that no tag leads to." name:"gc-untagged" group:"gc"`

	DebugAddr           string     `help:"Also serve /metrics, for Prometheus, /healthz, /readyz and Go's profiles, below /debug/pprof/, on this address. Do not expose it." placeholder:"HOST:PORT" group:"log"`
	MetricsRepositories bool       `help:"Count requests by repository, too, which may make many metrics. Requires --debug-addr." group:"log"`
	LogFormat           string     `help:"Format of the log: text or json (default: ${default})." enum:"text,json" default:"text" placeholder:"FORMAT" group:"log"`
	LogLevel            slog.Level `help:"Minimum level to log: debug, info, warn or error (default: ${default}). Requests are logged at info, rejected ones at warn, except HEAD requests for missing content." default:"info" placeholder:"LEVEL" group:"log"`

	store     registry.Store // opened by Run, unless a test sets it
	loopback  bool           // web pages on this machine can reach the server, but no other machines
	transport *serverTLS     // nil without TLS

	file       *configFile               // nil without --config
	flags      []*kong.Flag              // set by run
	parseAgain func() (*serveCmd, error) // set by run: parses the same command line
}

// flagGroups are the groups of flags in the help of berth serve.
var flagGroups = []kong.Group{
	{Key: "tls", Title: "TLS:"},
	{Key: "content", Title: "Content:"},
	{Key: "users", Title: "Users:"},
	{Key: "registry", Title: "Registry:"},
	{Key: "limits", Title: "Limits (SIZE is a number with a unit, such as 64MiB or 2g):"},
	{Key: "gc", Title: "Garbage collection:"},
	{Key: "log", Title: "Log and metrics:"},
}

// Help is shown by berth serve --help.
func (serveCmd) Help() string {
	return storeHelp + " The content of mem: is lost when the command exits. A directory can be served by one process at a time. A bucket can be served by any number of processes behind a load balancer."
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
	return cmp.Or(c.checkPositive(), c.TLSFlags.check(), c.checkUsers(), c.checkCollections())
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
