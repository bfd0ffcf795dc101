// SPDX-License-Identifier: Apache-2.0

// Where content is kept.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/ocidir"
)

const storeHelp = "A store is mem: (in memory), dir:PATH (a directory of OCI image layouts) or a bucket's URL: s3://BUCKET?region=REGION, gs://BUCKET, azblob://CONTAINER or file:///PATH, with prefix=PREFIX/ among its parameters if it is to share the bucket with others. For other services that speak S3: s3://BUCKET?endpoint=URL&use_path_style=true&region=us-east-1."

// storeOptions are what the kinds of stores have in common.
type storeOptions struct {
	limits  registry.Limits
	onError func(error) // is told of a bucket's failures
	warn    func(string)

	readOnly bool // a bucket need not be writable
}

// openStore opens the store that a command line names. It is to be closed.
func openStore(ctx context.Context, name string, opts storeOptions) (registry.Store, io.Closer, error) {
	if name == "mem:" {
		return &registry.MemStore{Limits: opts.limits}, io.NopCloser(nil), nil
	}
	if dir, ok := strings.CutPrefix(name, "dir:"); ok {
		if dir == "" {
			return nil, nil, errors.New("dir: needs a path: dir:PATH")
		}
		s, err := ocidir.Open(dir, &ocidir.Options{Uploads: opts.limits.Uploads, UploadIdle: opts.limits.UploadIdle})
		return s, s, err
	}
	if !strings.Contains(name, "://") {
		return nil, nil, fmt.Errorf("there is no store %q: mem:, dir:PATH or a bucket's URL", name)
	}
	s, err := bucket.Open(ctx, name, &bucket.Options{Uploads: opts.limits.Uploads, UploadIdle: opts.limits.UploadIdle, OnError: opts.onError})
	if err != nil {
		return nil, nil, err
	}
	for _, text := range s.Warnings() {
		opts.warn(text)
	}
	if !opts.readOnly {
		if err := s.Check(ctx); err != nil {
			s.Close()
			return nil, nil, err
		}
	}
	return s, s, nil
}

// gcCmd is berth gc.
type gcCmd struct {
	Store string        `help:"What to clean: dir:PATH or a bucket's URL." required:"" placeholder:"STORE"`
	Grace time.Duration `help:"How long something must have been without use (${default}). In a bucket what is found is marked first, and removed by a later run." default:"1h" placeholder:"TIME"`
}

// Help is shown by berth gc --help.
func (gcCmd) Help() string {
	return "Remove what no repository has any more. In a bucket that is safe beside registries at work; a directory must not be in use. " + storeHelp
}

func (c *gcCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx := context.Background()
	s, closer, err := openStore(ctx, c.Store, storeOptions{warn: logs.warn, onError: logs.failed})
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
		fmt.Fprintf(stdout, "looked at %d blobs; condemned %d, deleted %d (%s); ended %d uploads; removed %d stale links and %d names\n",
			stats.Blobs, stats.Condemned, stats.Deleted, units.BytesSize(float64(stats.Bytes)), stats.Uploads, stats.Links, stats.Names)
		return err
	}
	return fmt.Errorf("%s has nothing to clean", c.Store)
}
