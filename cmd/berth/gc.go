// SPDX-License-Identifier: Apache-2.0

// Command berth gc.

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"

	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/ocidir"
)

// gcCmd is berth gc.
type gcCmd struct {
	Store string        `help:"The store: dir:PATH or the URL of a bucket." required:"" placeholder:"STORE"`
	Grace time.Duration `help:"For a bucket: how long content must have been unused (default: ${default}). One run marks unused content, and a later run removes it." default:"1h" placeholder:"TIME"`
}

// Help is shown by berth gc --help.
func (gcCmd) Help() string {
	return "Remove content that no repository uses. A bucket may be in use while gc runs; a directory may not. " + storeHelp
}

func (c *gcCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx := context.Background()
	s, closer, err := openStore(ctx, c.Store, storeOptions{warn: logs.warn, onError: logs.failed, log: logs.logger()})
	if err != nil {
		return err
	}
	defer closer.Close()
	switch s := s.(type) {
	case *ocidir.Store:
		blobs, size, err := s.GC(ctx)
		fmt.Fprintf(stdout, "removed %d blobs, %s\n", blobs, units.BytesSize(float64(size)))
		return err
	case *bucket.Store:
		stats, err := s.GC(ctx, bucket.GCOptions{Grace: c.Grace})
		fmt.Fprintf(stdout, "checked %d blobs; condemned %d, deleted %d (%s); ended %d uploads; removed %d stale links, %d names, %d entries and %d marks\n",
			stats.Blobs, stats.Condemned, stats.Deleted, units.BytesSize(float64(stats.Bytes)), stats.Uploads, stats.Links, stats.Names, stats.Entries, stats.Marks)
		return err
	}
	return fmt.Errorf("%s does not need garbage collection", c.Store)
}
