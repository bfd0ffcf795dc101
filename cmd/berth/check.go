// SPDX-License-Identifier: Apache-2.0

// Command berth check.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/ocidir"
)

// checkCmd is berth check.
type checkCmd struct {
	Store  string
	Repair bool
}

func (c *checkCmd) command() *cobra.Command {
	cmd := newCommand("check --store STORE", "Verify the content of a directory or a bucket.",
		"Read all content of a directory or a bucket, and report the content whose bytes do not have the digest that it is named by, the content that is missing, and the repositories that can't be read. A bucket may be in use; a directory may be, without --repair. Damaged manifests in a bucket stay, and so do their tags: a push repairs them. The exit status is 1 if there is a problem that was not repaired.\n\n"+storeHelp,
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.Store, "store", "", "The `STORE`: dir:PATH or the URL of a bucket. Required.")
			f.BoolVar(&c.Repair, "repair", false, "Replace damaged content by intact copies, and move the rest to .berth/damaged (in a bucket: delete the links to it), so that clients push it again. A directory must not be in use.")
		}})
	cmd.MarkFlagRequired("store")
	return cmd
}

func (c *checkCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	s, closer, err := openStore(ctx, withoutCreate(c.Store), storeOptions{warn: logs.warn, onError: logs.failed, log: logs.logger(), readOnly: !c.Repair})
	if err != nil {
		return err
	}
	defer closer.Close()
	last := time.Now()
	progress := func(done, total int64) {
		if time.Since(last) > 5*time.Second {
			fmt.Fprintf(logs, "berth: verified %s of %s\n", units.BytesSize(float64(done)), units.BytesSize(float64(total)))
			last = time.Now()
		}
	}
	var left int // problems that were not repaired
	if b, ok := s.(*bucket.Store); ok {
		left, err = c.scrub(ctx, b, stdout, progress)
	} else {
		left, err = c.check(ctx, s, stdout, progress)
	}
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err == nil && left > 0 {
		err = errors.New("not all content is intact")
	}
	return err
}

// check verifies a directory.
func (c *checkCmd) check(ctx context.Context, s registry.Store, stdout io.Writer, progress func(done, total int64)) (left int, err error) {
	stats, err := ocidir.Check(ctx, s, ocidir.CheckOptions{
		Repair:   c.Repair,
		Problem:  func(p ocidir.Problem) { fmt.Fprintln(stdout, p) },
		Progress: progress,
	})
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(stdout, "verified %d repositories, %d files, %s; %d problems, %d repaired\n",
		stats.Repositories, stats.Files, units.BytesSize(float64(stats.Bytes)), stats.Problems, stats.Repaired)
	return stats.Problems - stats.Repaired, nil
}

// scrub verifies a bucket.
func (c *checkCmd) scrub(ctx context.Context, s *bucket.Store, stdout io.Writer, progress func(done, total int64)) (left int, err error) {
	stats, err := s.Scrub(ctx, bucket.ScrubOptions{
		Repair:   c.Repair,
		Problem:  func(p bucket.Problem) { fmt.Fprintln(stdout, p) },
		Progress: progress,
	})
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(stdout, "verified %d repositories, %d blobs, %s, %d manifests, %d tags; %d problems, %d repaired\n",
		stats.Repositories, stats.Blobs, units.BytesSize(float64(stats.Bytes)), stats.Manifests, stats.Tags, stats.Problems, stats.Repaired)
	return stats.Problems - stats.Repaired, nil
}
