// SPDX-License-Identifier: Apache-2.0

// The sections of a configuration file.

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/berth-oci/registry/observe/notify"
	"github.com/berth-oci/registry/quota"
	"github.com/berth-oci/registry/retention"
)

// sections returns the sections of the configuration file, if there is one.
func (c *serveCmd) sections() sections {
	if c.file == nil {
		return sections{}
	}
	return c.file.sections
}

// retentionRule is a [retention.Rule].
type retentionRule struct {
	Name         string        `yaml:"name"`
	Repositories []string      `yaml:"repositories"`
	Tags         []string      `yaml:"tags"`
	Untagged     bool          `yaml:"untagged"`
	Dangling     bool          `yaml:"dangling"`
	Keep         retentionKeep `yaml:"keep"`
}

// retentionKeep is a [retention.Keep], without PulledWithin: the server does not note
// pulls.
type retentionKeep struct {
	All    bool            `yaml:"all"`
	Newest int             `yaml:"newest"`
	Within retentionPeriod `yaml:"within"`
}

func (r retentionRule) rule() retention.Rule {
	return retention.Rule{
		Name:         r.Name,
		Repositories: r.Repositories,
		Tags:         r.Tags,
		Untagged:     r.Untagged,
		Dangling:     r.Dangling,
		Keep:         retention.Keep{All: r.Keep.All, Newest: r.Keep.Newest, Within: time.Duration(r.Keep.Within)},
	}
}

func (r retentionRule) check() error { return r.rule().Check() }

func (s sections) retentionRules() []retention.Rule {
	var rules []retention.Rule
	for i, r := range s.Retention {
		rule := r.rule()
		if rule.Name == "" {
			rule.Name = fmt.Sprint(i + 1)
		}
		rules = append(rules, rule)
	}
	return rules
}

// quotaRule is a [quota.Limit].
type quotaRule struct {
	Repositories []string `yaml:"repositories"`
	Each         bool     `yaml:"each"`
	Bytes        size     `yaml:"bytes"`
	Manifests    int64    `yaml:"manifests"`
}

func (q quotaRule) limit() quota.Limit {
	return quota.Limit{Repositories: q.Repositories, Each: q.Each, Bytes: int64(q.Bytes), Manifests: q.Manifests}
}

func (q quotaRule) check() error { return q.limit().Check() }

func (s sections) limits() []quota.Limit {
	var limits []quota.Limit
	for _, q := range s.Quotas {
		limits = append(limits, q.limit())
	}
	return limits
}

// notificationRule has the most useful of [notify.Options].
type notificationRule struct {
	URL          string            `yaml:"url"`
	Headers      map[string]string `yaml:"headers"`
	Format       string            `yaml:"format"`
	SecretFile   string            `yaml:"secret-file"`
	Actions      []string          `yaml:"actions"`
	Repositories []string          `yaml:"repositories"`
	MediaTypes   []string          `yaml:"media-types"`
	Journal      string            `yaml:"journal"`
	Durable      bool              `yaml:"durable"`
	Queue        int               `yaml:"queue"`
	BaseURL      string            `yaml:"base-url"`
}

// formats are the formats of notifications, by name.
var formats = map[string]notify.Format{"": notify.Distribution, "distribution": notify.Distribution, "cloudevents": notify.CloudEvents}

func (n notificationRule) check() error {
	if n.URL == "" {
		return errors.New("it requires a url")
	}
	if _, ok := formats[n.Format]; !ok {
		return fmt.Errorf("unknown format %q: use distribution or cloudevents", n.Format)
	}
	known := []string{notify.Push, notify.Pull, notify.Mount, notify.Delete}
	for _, action := range n.Actions {
		if !slices.Contains(known, action) {
			return fmt.Errorf("unknown action %q: use %s", action, strings.Join(known, ", "))
		}
	}
	return nil
}

func (n notificationRule) options(log *slog.Logger) (notify.Options, error) {
	o := notify.Options{
		URL:          n.URL,
		Format:       formats[n.Format],
		Actions:      n.Actions,
		Repositories: n.Repositories,
		MediaTypes:   n.MediaTypes,
		Journal:      n.Journal,
		Durable:      n.Durable,
		Queue:        n.Queue,
		BaseURL:      n.BaseURL,
		Logger:       log,
		Header:       make(http.Header),
	}
	for name, value := range n.Headers {
		o.Header.Set(name, value)
	}
	if n.SecretFile != "" {
		secret, err := os.ReadFile(n.SecretFile)
		if err != nil {
			return o, err
		}
		if o.Secret = []byte(strings.TrimSpace(string(secret))); len(o.Secret) == 0 {
			return o, fmt.Errorf("%s is empty", n.SecretFile)
		}
	}
	return o, nil
}

// openSenders returns a sender for each endpoint. The caller must close them, after an
// error, too.
func openSenders(rules []notificationRule, log *slog.Logger) (senders []*notify.Sender, err error) {
	for _, n := range rules {
		o, err := n.options(log)
		if err == nil {
			var sender *notify.Sender
			if sender, err = notify.New(o); err == nil {
				senders = append(senders, sender)
			}
		}
		if err != nil {
			return senders, fmt.Errorf("notifications to %s: %w", n.URL, err)
		}
	}
	return senders, nil
}
