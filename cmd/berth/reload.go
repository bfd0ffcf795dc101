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
}

// filesInterval is the time between two looks at the files of the configuration.
const filesInterval = 2 * time.Second

// reloadWhenAsked reloads the configuration after each signal, and when one of its files
// has changed, until ctx ends.
func (s *server) reloadWhenAsked(ctx context.Context, signals <-chan os.Signal) {
	ticker := time.NewTicker(filesInterval)
	defer ticker.Stop()
	seen := s.fileStates()
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
			if why = changedFiles(seen, s.fileStates()); why == "" {
				continue
			}
		}
		// The files are looked at before they are read: a change meanwhile is seen
		// at the next look.
		before := s.fileStates()
		s.reload(why)
		seen = s.fileStates()
		maps.Copy(seen, before)
	}
}

// changedFiles returns the names of files whose states differ, in one text.
func changedFiles(before, after map[string]fileState) string {
	var changed []string
	for name, state := range after {
		if before[name] != state {
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
	if err == nil && old.hasUsers() && !c.hasUsers() {
		err = errors.New("a reload can't remove all users: restart the server")
	}
	var changed, ignored []string
	if err == nil {
		changed, ignored = s.start.changes(old, c)
		c.store, c.loopback = s.start.store, s.start.loopback
		c.transport, c.TLSFlags = s.start.transport, s.start.TLSFlags
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

// values returns the values of the flags and sections by name.
func (c *serveCmd) values() map[string]any {
	s := c.sections()
	values := map[string]any{"retention": s.Retention, "quotas": s.Quotas, "notifications": s.Notifications}
	c.flags.VisitAll(func(f *pflag.Flag) { values[f.Name] = f.Value.String() })
	return values
}

// fileState tells whether a file has changed.
type fileState struct {
	modified time.Time
	size     int64
	err      string
}

// fileStates returns the states of the files that a reload reads. Symbolic links are
// followed: Kubernetes replaces one of a ConfigMap's.
func (s *server) fileStates() map[string]fileState {
	states := make(map[string]fileState)
	c := s.current.Load().command
	for _, name := range append([]string{c.Config, c.Htpasswd, c.Rules, c.TLSCert, c.TLSKey, c.TLSClientCA}, c.TokenKeys...) {
		if name == "" || strings.Contains(name, "://") {
			continue
		}
		info, err := os.Stat(name)
		switch {
		case err == nil:
			states[name] = fileState{modified: info.ModTime(), size: info.Size()}
		case errors.Is(err, fs.ErrNotExist):
			states[name] = fileState{err: "missing"}
		default:
			states[name] = fileState{err: fmt.Sprint(err)}
		}
	}
	return states
}
