// SPDX-License-Identifier: Apache-2.0

// Command berth gc.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/retention"
)

// gcCmd is berth gc.
type gcCmd struct {
	Store    string
	Config   string
	Grace    time.Duration
	Untagged bool
	DryRun   bool
	Verbose  bool
}

func (c *gcCmd) command() *cobra.Command {
	cmd := newCommand("gc --store STORE", "Remove unused content from a store.",
		"Remove blobs that no manifest names, uploads that were given up, empty repositories, and what crashes have left. "+
			"The store may be in use meanwhile: the berth serve of a directory does the work itself. A bucket frees the bytes of what gc removes in a later run.\n\n"+storeHelp,
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.Store, "store", "", "The `STORE`: dir:PATH or the URL of a bucket. Required.")
			f.Var(existingFile(&c.Config), "config", "Apply the rules in the section retention of this configuration `FILE` of berth serve.")
			f.DurationVar(&c.Grace, "grace", time.Hour, "`TIME` for which content must have been unused, for a bucket at least 30m.")
			f.BoolVar(&c.Untagged, "untagged", false, "Also remove manifests that no tag leads to.")
			f.BoolVar(&c.DryRun, "dry-run", false, "Remove nothing, and say what would be removed.")
			f.BoolVarP(&c.Verbose, "verbose", "v", false, "Print each tag, manifest and blob, and why it is kept or removed.")
		}})
	cmd.MarkFlagRequired("store")
	return cmd
}

func (c *gcCmd) Run(stdout io.Writer, logs logOutput) error {
	req := gcRequest{Grace: graceOption(c.Grace), KeepUntagged: !c.Untagged, DryRun: c.DryRun, Verbose: c.Verbose}
	if c.Config != "" {
		file, err := readConfig(c.Config)
		if err != nil {
			return err
		}
		req.Rules = file.sections.retentionRules()
	}
	ctx := context.Background()
	if err := askServer(ctx, c.Store, req, stdout); !errors.Is(err, errNoServer) {
		return err
	}
	s, closer, err := openStore(ctx, c.Store, storeOptions{warn: logs.warn, onError: logs.failed, log: logs.logger()})
	if err != nil {
		return err
	}
	defer closer.Close()
	if _, ok := s.(*registry.MemStore); ok {
		return fmt.Errorf("%s does not need garbage collection", c.Store)
	}
	return printCollection(stdout, req, func(o retention.Options) (retention.Report, error) {
		return retention.Collect(ctx, s, o)
	})
}

// printCollection runs a collection by calling collect, and prints its results.
func printCollection(w io.Writer, req gcRequest, collect func(retention.Options) (retention.Report, error)) error {
	o := req.options()
	if req.Verbose {
		o.OnDecision = func(d retention.Decision) { printDecision(w, d) }
	}
	report, err := collect(o)
	if errors.Is(err, errCollecting) {
		return err
	}
	verb := "removed"
	if o.DryRun {
		verb = "would remove"
	}
	fmt.Fprintf(w, "examined %d repositories; %s %d tags, %d manifests and %d blobs, %s; ended %d uploads\n",
		report.Repositories, verb, report.Tags, report.Manifests, report.Blobs, units.BytesSize(float64(report.Bytes)), report.Uploads)
	return err
}

func printDecision(w io.Writer, d retention.Decision) {
	verb, kind, name := "remove", "manifest", string(d.Digest)
	if d.Keep {
		verb = "keep"
	}
	switch {
	case d.Tag != "":
		kind, name = "tag", d.Tag
	case d.Blob:
		kind = "blob"
	}
	fmt.Fprintf(w, "%s %s %s %s: %s\n", verb, d.Repository, kind, name, d.Reason)
}
