// SPDX-License-Identifier: Apache-2.0

// The mirrors of berth serve.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry/mirror"
)

// mirrorFlags are the flags about mirrors.
type mirrorFlags struct {
	Mirror             []string
	MirrorDefault      string
	MirrorTTL          time.Duration
	MirrorSize         size
	MirrorDockerConfig string
}

func (m *mirrorFlags) define(f *pflag.FlagSet) {
	f.StringArrayVar(&m.Mirror, "mirror", nil, "Mirror the registry `NAME=URL`, such as docker.io=https://registry-1.docker.io: fetch what clients ask for and is not here. Can be repeated. More options are in the section mirrors of --config; berth mirror hosts prints the configurations of clients.")
	f.StringVar(&m.MirrorDefault, "mirror-default", "", "Fetch repositories whose names do not begin with the name of a mirrored registry from the one with this `NAME`, for dockerd.")
	f.DurationVar(&m.MirrorTTL, "mirror-ttl", time.Minute, "Serve a fetched tag for this `TIME` before asking whether it has moved; 0 asks each time.")
	f.TextVar(&m.MirrorSize, "mirror-size", size(0), "Keep at most this `SIZE` of fetched content, and evict the least recently used (default: unlimited).")
	f.Var(existingFile(&m.MirrorDockerConfig), "mirror-docker-config", "Log in to mirrored registries with the credentials in this `FILE`, such as ~/.docker/config.json, and of the credential helpers that it names (default: ask anonymously). Who may pull here gets what these credentials may pull.")
}

// mirrorRule is a [mirror.Upstream].
type mirrorRule struct {
	Name         string        `yaml:"name"`
	URL          string        `yaml:"url"`
	TTL          *mirrorPeriod `yaml:"ttl"`
	Repositories []string      `yaml:"repositories"`
	Private      bool          `yaml:"private"`
	KeepDeleted  bool          `yaml:"keep-deleted"`
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password-file"`
	DockerConfig string        `yaml:"docker-config"`
}

// mirrorPeriod is a time such as 30s or 5m.
type mirrorPeriod time.Duration

func (p *mirrorPeriod) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not a time such as 30s, 5m or 1h30m", text)
	}
	*p = mirrorPeriod(d)
	return nil
}

func (r mirrorRule) check() error {
	switch {
	case r.Name == "" || r.URL == "":
		return errors.New("it requires a name and a url")
	case (r.Username == "") != (r.PasswordFile == ""):
		return errors.New("username and password-file require each other")
	case r.Username != "" && r.DockerConfig != "":
		return errors.New("username and docker-config exclude each other")
	}
	return r.upstream().Check()
}

func (r mirrorRule) upstream() mirror.Upstream {
	return mirror.Upstream{Name: r.Name, URL: r.URL, Repositories: r.Repositories, Private: r.Private, KeepDeleted: r.KeepDeleted}
}

// checkMirrors checks the flags and the section about mirrors.
func (c *serveCmd) checkMirrors() error {
	rules, err := c.mirrorRules()
	switch {
	case err != nil:
		return err
	case c.MirrorTTL < 0:
		return errors.New("--mirror-ttl may not be negative")
	case len(rules) == 0 && (c.MirrorDefault != "" || c.MirrorSize > 0 || c.MirrorDockerConfig != ""):
		return errors.New("--mirror-default, --mirror-size and --mirror-docker-config require --mirror, or the section mirrors of --config")
	case len(rules) > 0 && c.ReadOnly && strings.HasPrefix(c.Store, "dir:"):
		return errors.New("--mirror requires a directory that can be written to: remove --read-only, and use --rules to reject pushes")
	}
	var list []mirror.Upstream
	for _, r := range rules {
		list = append(list, r.upstream())
	}
	return mirror.Options{Upstreams: list, Default: c.MirrorDefault}.Check()
}

// mirrorRules returns the mirrors of the flags and of the section.
func (c *serveCmd) mirrorRules() ([]mirrorRule, error) {
	rules := append([]mirrorRule(nil), c.sections().Mirrors...)
	for _, text := range c.Mirror {
		name, url, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--mirror=%s: requires NAME=URL, such as docker.io=https://registry-1.docker.io", text)
		}
		rule := mirrorRule{Name: name, URL: url}
		if err := rule.check(); err != nil {
			return nil, fmt.Errorf("--mirror=%s=…: %w", name, err) // the URL may have a password
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// upstreams returns the registries to mirror.
func (c *serveCmd) upstreams() ([]mirror.Upstream, error) {
	rules, err := c.mirrorRules()
	if err != nil {
		return nil, err
	}
	var list []mirror.Upstream
	for _, r := range rules {
		u := r.upstream()
		if u.TTL = c.MirrorTTL; r.TTL != nil {
			u.TTL = time.Duration(*r.TTL)
		}
		if u.TTL == 0 {
			u.TTL = -1 // ask each time
		}
		if u.Credential, err = r.credential(c.MirrorDockerConfig); err != nil {
			return nil, fmt.Errorf("the mirror %s: %w", r.Name, err)
		}
		list = append(list, u)
	}
	return list, nil
}

// credential returns the credentials of a mirror, nil for none.
func (r mirrorRule) credential(dockerConfig string) (auth.CredentialFunc, error) {
	if r.PasswordFile != "" {
		password, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return nil, err
		}
		login := auth.Credential{Username: r.Username, Password: strings.TrimRight(string(password), "\r\n")}
		if login.Password == "" {
			return nil, fmt.Errorf("%s is empty", r.PasswordFile)
		}
		return func(context.Context, string) (auth.Credential, error) { return login, nil }, nil
	}
	if file := cmp.Or(r.DockerConfig, dockerConfig); file != "" {
		return mirror.DockerCredentials(file)
	}
	return nil, nil
}

// openMirror returns a store that will fetch what it lacks from the upstreams that configure
// sets, or nil if nothing is mirrored.
func (s *server) openMirror(c *serveCmd) (*mirror.Mirror, error) {
	rules, err := c.mirrorRules()
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	// A container's file system may be read-only.
	temp, err := os.CreateTemp("", "berth-mirror-*")
	if err != nil {
		return nil, fmt.Errorf("mirrors require a directory for temporary files, which the environment variable TMPDIR can name: %w", err)
	}
	temp.Close()
	os.Remove(temp.Name())
	return mirror.New(s.store, mirror.Options{MaxBytes: int64(c.MirrorSize), Logger: s.log.Logger})
}

// mirrorFiles returns the names of the files that mirrors read.
func (c *serveCmd) mirrorFiles() []string {
	files := []string{c.MirrorDockerConfig}
	for _, r := range c.sections().Mirrors {
		files = append(files, r.PasswordFile, r.DockerConfig)
	}
	return files
}
