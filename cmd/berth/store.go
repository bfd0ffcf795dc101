// SPDX-License-Identifier: Apache-2.0

// The stores that a command line can name.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/ocidir"
)

const storeHelp = "A STORE is mem: (memory), dir:PATH (a directory of OCI image layouts) or the URL of a bucket: s3://BUCKET?region=REGION, gs://BUCKET, azblob://CONTAINER or file:///PATH. If the bucket also holds other data, add the parameter prefix=PREFIX/. For other services with the S3 API, use s3://BUCKET?endpoint=URL&use_path_style=true&region=us-east-1."

// storeOptions are the options of openStore.
type storeOptions struct {
	limits   registry.MemLimits // dir: and buckets use only the limits of uploads
	onError  func(error)        // called with each failure of a bucket
	warn     func(string)
	log      *slog.Logger // of a directory
	readOnly bool         // nothing will be written; the store must exist
	memory   int64        // for uploads to a bucket; 0 means its default
	remote   remoteFlags  // for a running registry

	noReferrers bool // lists of referrers are tags
}

// openStore opens the store with the given name. The caller must close it.
func openStore(ctx context.Context, name string, opts storeOptions) (registry.Store, io.Closer, error) {
	if name == "mem:" {
		return &registry.MemStore{Limits: opts.limits}, io.NopCloser(nil), nil
	}
	if dir, ok := strings.CutPrefix(name, "dir:"); ok {
		if dir == "" {
			return nil, nil, errors.New("dir: requires a path: dir:PATH")
		}
		if opts.readOnly {
			return openReadOnly(dir)
		}
		s, err := ocidir.Open(dir, &ocidir.Options{Uploads: opts.limits.Uploads, UploadIdle: opts.limits.UploadIdle, NoReferrers: opts.noReferrers, Logger: opts.log})
		if err != nil {
			return nil, nil, err
		}
		return s, s, nil
	}
	if !strings.Contains(name, "://") {
		return nil, nil, fmt.Errorf("unknown store %q: use mem:, dir:PATH or the URL of a bucket", name)
	}
	s, err := bucket.Open(ctx, name, &bucket.Options{
		Uploads:    opts.limits.Uploads,
		UploadIdle: opts.limits.UploadIdle,
		Memory:     opts.memory,
		OnError:    opts.onError,
	})
	if err != nil {
		return nil, nil, err
	}
	if !opts.readOnly {
		if err := s.Check(ctx); err != nil {
			s.Close()
			return nil, nil, err
		}
	}
	for _, text := range s.Warnings() {
		opts.warn(text)
	}
	return s, s, nil
}

// openContent opens a store or connects to a running registry, to change its content.
// The caller must close it.
func openContent(ctx context.Context, name string, opts storeOptions) (registry.Store, io.Closer, error) {
	if isRemote(name) {
		s, err := openRemote(ctx, name, opts.remote)
		return s, s, err
	}
	if name == "mem:" {
		return nil, nil, errors.New("a store in memory ends with the command")
	}
	return openStore(ctx, name, opts)
}

// openReadOnly opens a directory, which may be in use or on a file system that is
// read-only.
func openReadOnly(dir string) (registry.Store, io.Closer, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	return ocidir.FS(root.FS()), root, nil
}

// openSource opens an existing store to read from, and takes no lock: it may be
// in use. The caller must close it.
// Errors: fs.ErrNotExist if the store is a folder that does not exist.
func openSource(ctx context.Context, name string, opts storeOptions) (registry.Store, io.Closer, error) {
	if name == "mem:" {
		return nil, nil, fmt.Errorf("a store in memory is empty: %w", fs.ErrNotExist)
	}
	if isRemote(name) {
		s, err := openRemote(ctx, name, opts.remote)
		return s, s, err
	}
	opts.readOnly = true
	return openStore(ctx, withoutCreate(name), opts)
}

// withoutCreate returns the URL of a bucket without the parameter that creates a
// folder that does not exist.
func withoutCreate(bucketURL string) string {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return bucketURL
	}
	q := u.Query()
	if !q.Has("create_dir") {
		return bucketURL
	}
	q.Del("create_dir")
	u.RawQuery = q.Encode()
	return u.String()
}
