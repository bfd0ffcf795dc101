// SPDX-License-Identifier: Apache-2.0

// Reloading the configuration of a running server.

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// reloadable are the flags and sections whose changes take effect without a restart,
// with those of their files.
var reloadable = []string{
	"user", "htpasswd", "anonymous-pull", "rules",
	"token", "token-key-file", "token-lifetime", "token-realm", "token-service", "token-keys", "token-issuer",
	"host", "log-level", "gc-every", "gc-grace", "gc-untagged", "retention", "quotas",
	"mirror", "mirror-default", "mirror-ttl", "mirror-docker-config", "mirrors",
}

const (
	filesInterval = 2 * time.Second // between two looks at the files of the configuration
	reloadLatest  = 24 * time.Hour  // between two reloads, which replace old keys of tokens
)

// reloadWhenAsked reloads the configuration after each signal, and when one of its files
// has changed since it was seen, and each day, until ctx ends.
func (s *server) reloadWhenAsked(ctx context.Context, signals <-chan os.Signal, seen map[string]fileState) {
	ticker := time.NewTicker(filesInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		why := "SIGHUP"
		select {
		case <-ctx.Done():
			return
		case <-signals:
			if s.audit != nil {
				if err := s.audit.reopen(); err != nil {
					s.log.Error("audit log", "error", err)
				}
			}
		case <-ticker.C:
			why = changedFiles(seen, s.current.Load().command.fileStates())
			if why == "" && time.Since(last) >= reloadLatest {
				why = "a day has passed"
			}
			if why == "" {
				continue
			}
		}
		last = time.Now()
		// The files are looked at before they are read: a change meanwhile is seen
		// at the next look.
		before := s.current.Load().command.fileStates()
		s.reload(why)
		seen = s.current.Load().command.fileStates()
		maps.Copy(seen, before)
	}
}

// changedFiles returns the names of files whose states differ, in one text.
func changedFiles(before, after map[string]fileState) string {
	var changed []string
	for name, state := range after {
		if !state.equal(before[name]) {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return strings.Join(changed, ",")
}

// reload reads the configuration again. If there is anything wrong with it, nothing
// changes.
func (s *server) reload(why string) {
	notifyReloading(s.log.Logger)
	defer notifyReady(s.log.Logger)
	old := s.current.Load().command
	c, err := s.start.parseAgain()
	if err == nil {
		err = c.check()
	}
	var changed, ignored []string
	if err == nil {
		changed, ignored = s.start.changes(old, c)
		c.keep(s.start)
		err = c.check()
	}
	if err == nil && old.hasUsers() && !c.hasUsers() {
		err = errors.New("a reload can't remove all users: restart the server")
	}
	if err == nil {
		err = s.configure(c)
	}
	if err != nil {
		s.log.Error("the configuration was not reloaded, and the old one stays", "error", err)
		return
	}
	if len(ignored) > 0 {
		s.log.Warn("changes that take effect after a restart", "keys", strings.Join(ignored, ","))
	}
	s.log.Info("reloaded", "because", why, "changed", strings.Join(changed, ","))
}

// changes returns the names of the reloadable flags and sections that differ in before
// and after, and of those that differ in c and after but require a restart.
func (c *serveCmd) changes(before, after *serveCmd) (changed, ignored []string) {
	old, current := before.values(), after.values()
	for name, start := range c.values() {
		switch {
		case slices.Contains(reloadable, name):
			if !reflect.DeepEqual(old[name], current[name]) {
				changed = append(changed, name)
			}
		case !reflect.DeepEqual(start, current[name]):
			ignored = append(ignored, name)
		}
	}
	slices.Sort(changed)
	slices.Sort(ignored)
	return changed, ignored
}

// keep replaces everything in c that a reload can't change by the value in start. The rest
// must not be used, or checked, with values that have no effect: an authority of clients
// that is not asked, for example, stands for no users.
func (c *serveCmd) keep(start *serveCmd) {
	kept := *start
	kept.args, kept.flags, kept.file = c.args, c.flags, c.file
	kept.User, kept.Htpasswd, kept.AnonymousPull, kept.Rules = c.User, c.Htpasswd, c.AnonymousPull, c.Rules
	kept.Token, kept.TokenKeyFile, kept.TokenLifetime, kept.TokenRealm = c.Token, c.TokenKeyFile, c.TokenLifetime, c.TokenRealm
	kept.TokenService, kept.TokenKeys, kept.TokenIssuer = c.TokenService, c.TokenKeys, c.TokenIssuer
	kept.Host, kept.LogLevel = c.Host, c.LogLevel
	kept.Mirror, kept.MirrorDefault, kept.MirrorTTL, kept.MirrorDockerConfig = c.Mirror, c.MirrorDefault, c.MirrorTTL, c.MirrorDockerConfig
	kept.GCEvery, kept.GCGrace, kept.GCUntagged = c.GCEvery, c.GCGrace, c.GCUntagged
	*c = kept
}

// values returns the values of the flags and sections by name.
func (c *serveCmd) values() map[string]any {
	s := c.sections()
	values := map[string]any{"retention": s.Retention, "quotas": s.Quotas, "notifications": s.Notifications, "mirrors": s.Mirrors}
	c.flags.VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	return values
}

// fileState tells whether a file has changed.
type fileState struct {
	info fs.FileInfo // nil: the file can't be read
	err  string
}

// equal reports whether the states are those of the same file, without a change. Tools that
// replace a file may keep the time and the size.
func (a fileState) equal(b fileState) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil && a.err == b.err
	}
	return os.SameFile(a.info, b.info) && a.info.ModTime().Equal(b.info.ModTime()) && a.info.Size() == b.info.Size()
}

// fileStates returns the states of the files that a reload reads. Symbolic links are
// followed: Kubernetes replaces one of a ConfigMap's.
func (c *serveCmd) fileStates() map[string]fileState {
	states := make(map[string]fileState)
	for _, name := range slices.Concat([]string{c.Config, c.Htpasswd, c.Rules, c.TokenKeyFile, c.TLSCert, c.TLSKey, c.TLSClientCA}, c.TokenKeys, c.mirrorFiles()) {
		if name == "" || strings.Contains(name, "://") {
			continue
		}
		info, err := os.Stat(name)
		switch {
		case err == nil:
			states[name] = fileState{info: info}
		case errors.Is(err, fs.ErrNotExist):
			states[name] = fileState{err: "missing"}
		default:
			states[name] = fileState{err: fmt.Sprint(err)}
		}
	}
	return states
}
