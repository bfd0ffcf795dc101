// SPDX-License-Identifier: Apache-2.0

// Command berth mirror hosts.

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mirrorCommand returns berth mirror.
func mirrorCommand() *cobra.Command {
	var c mirrorHostsCmd
	hosts := c.newCommand("hosts", "Print the configurations of clients that pull through the mirror.",
		"The flags are those of berth serve, and so is --config. The output has a part for each client.", c.Run,
		flagGroup{"Clients", func(f *pflag.FlagSet) {
			f.StringVar(&c.URL, "url", "", "`URL` at which clients reach the server (default: its first address).")
		}})
	cmd := newCommand("mirror", "Help with mirrors of other registries.", "", nil)
	cmd.AddCommand(hosts)
	return cmd
}

type mirrorHostsCmd struct {
	serveCmd
	URL string
}

// Run prints the configurations.
func (c *mirrorHostsCmd) Run(stdout io.Writer, _ logOutput) error {
	if err := c.check(); err != nil {
		return err
	}
	rules, err := c.mirrorRules()
	if err != nil {
		return err
	}
	if len(rules) == 0 {
		return errors.New("nothing is mirrored: use --mirror, or the section mirrors of --config")
	}
	base, err := c.url()
	if err != nil {
		return err
	}
	c.print(stdout, base, rules)
	return nil
}

// url returns the URL at which clients reach the server.
func (c *mirrorHostsCmd) url() (*url.URL, error) {
	text := c.URL
	if text == "" {
		host, port, err := net.SplitHostPort(c.Addr[0])
		if err != nil || port == "0" {
			return nil, fmt.Errorf("clients can't find the server by its address %s: use --url", c.Addr[0])
		}
		if host == "" || net.ParseIP(host).IsUnspecified() {
			return nil, fmt.Errorf("the address %s has no host: use --url", c.Addr[0])
		}
		scheme := "http"
		if c.TLSFlags.enabled() {
			scheme = "https"
		}
		text = scheme + "://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("--url=%s: requires a URL such as https://registry.example.com", text)
	}
	return u, nil
}

// print prints the configurations of clients of the server at base.
func (c *mirrorHostsCmd) print(w io.Writer, base *url.URL, rules []mirrorRule) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	plain := base.Scheme == "http"
	for _, r := range rules {
		p("# containerd, nerdctl, kind: /etc/containerd/certs.d/%s/hosts.toml", r.Name)
		p("server = %q\n", r.URL)
		p("[host.%q]", base.String())
		p("  capabilities = [\"pull\", \"resolve\"]\n")
	}
	p("# k3s and RKE2: /etc/rancher/k3s/registries.yaml\nmirrors:")
	for _, r := range rules {
		p("  %q:\n    endpoint: [%q]", r.Name, base.String())
	}
	p("\n# podman, buildah, skopeo, CRI-O: /etc/containers/registries.conf.d/berth.conf")
	for _, r := range rules {
		// They name the mirrored registry in the path, where a name has no colon.
		p("[[registry]]\nlocation = %q", r.Name)
		p("[[registry.mirror]]\nlocation = %q", base.Host+"/"+strings.ReplaceAll(r.Name, ":", "_"))
		if plain {
			p("insecure = true")
		}
	}
	p("\n# BuildKit: buildkitd.toml")
	for _, r := range rules {
		p("[registry.%q]\n  mirrors = [%q]", r.Name, base.Host)
	}
	if plain {
		p("[registry.%q]\n  http = true", base.Host)
	}
	if c.MirrorDefault == "docker.io" {
		p("\n# dockerd: /etc/docker/daemon.json\n{\"registry-mirrors\": [%q]}", base.String())
		return
	}
	p("\n# dockerd asks mirrors only for docker.io, by names without a registry. It requires:")
	p("# berth serve --mirror docker.io=https://registry-1.docker.io --mirror-default docker.io")
}
