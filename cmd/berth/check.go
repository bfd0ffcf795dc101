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

	"github.com/berth-oci/registry/ocidir"
)

// checkCmd is berth check.
type checkCmd struct {
	Store  string `help:"The store: dir:PATH." required:"" placeholder:"STORE"`
	Repair bool   `help:"Replace damaged files by intact copies in other repositories, and move the others to .berth/damaged, so that clients push them again. The directory must not be in use."`
}

// Help is shown by berth check --help.
func (checkCmd) Help() string {
	return "Read all content of a directory, and report the files whose bytes do not have the digest that they are named by, the manifests that are missing, and the repositories that can't be read. Without --repair, the directory may be in use. The exit status is 1 if there is a problem that was not repaired."
}

func (c *checkCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	s, closer, err := openStore(ctx, c.Store, storeOptions{log: logs.logger(), readOnly: !c.Repair})
	if err != nil {
		return err
	}
	defer closer.Close()
	last := time.Now()
	stats, err := ocidir.Check(ctx, s, ocidir.CheckOptions{
		Repair:  c.Repair,
		Problem: func(p ocidir.Problem) { fmt.Fprintln(stdout, p) },
		Progress: func(done, total int64) {
			if time.Since(last) > 5*time.Second {
				fmt.Fprintf(logs, "berth: verified %s of %s\n", units.BytesSize(float64(done)), units.BytesSize(float64(total)))
				last = time.Now()
			}
		},
	})
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "verified %d repositories, %d files, %s; %d problems, %d repaired\n",
		stats.Repositories, stats.Files, units.BytesSize(float64(stats.Bytes)), stats.Problems, stats.Repaired)
	if stats.Problems > stats.Repaired {
		return errors.New("not all content is intact")
	}
	return nil
}
