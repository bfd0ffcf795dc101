// SPDX-License-Identifier: Apache-2.0

// The files of a layout, and how they are written.

package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// makeIndex makes the files other than blobs.
func (s *saver) makeIndex() error {
	slices.SortFunc(s.entries, func(a, b savedEntry) int {
		switch {
		case a.root != b.root && a.root:
			return -1
		case a.root != b.root:
			return 1
		}
		return cmp.Or(cmp.Compare(a.ref.repo, b.ref.repo), cmp.Compare(a.ref.tag, b.ref.tag), cmp.Compare(a.digest, b.digest))
	})
	s.entries = slices.CompactFunc(s.entries, func(a, b savedEntry) bool { return a == b })
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, e := range s.entries {
		d := ocispec.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size}
		if e.root {
			d.Annotations = map[string]string{annotationRepository: e.ref.repo}
			if e.ref.tag != "" {
				d.Annotations[ocispec.AnnotationRefName] = e.ref.tag
				d.Annotations[annotationImageName] = fullName(e.ref)
			}
		}
		index.Manifests = append(index.Manifests, d)
	}
	var err error
	s.index = make(map[string][]byte)
	add := func(name string, v any) {
		if err == nil {
			s.index[name], err = json.Marshal(v)
		}
	}
	add(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	add(ocispec.ImageIndexFile, index)
	if s.docker {
		slices.SortFunc(s.images, func(a, b dockerImage) int {
			return cmp.Or(slices.Compare(a.RepoTags, b.RepoTags), cmp.Compare(a.Config, b.Config))
		})
		add(dockerManifestFile, s.images)
	}
	return err
}

// fullName returns the name of an image with a host, as containerd has it. A name
// without one is an image of Docker Hub.
func fullName(r ref) string {
	first, _, ok := strings.Cut(r.repo, "/")
	switch {
	case ok && (strings.ContainsAny(first, ".:") || first == "localhost"):
		return r.String()
	case ok:
		return "docker.io/" + r.String()
	}
	return "docker.io/library/" + r.String()
}

// blobPath returns the file of a blob in a layout.
func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// write writes all files with put, in order.
func (s *saver) write(ctx context.Context, put func(name string, size int64, content io.Reader) error) error {
	names := slices.Sorted(maps.Keys(s.index))
	slices.Reverse(names) // oci-layout first
	for _, name := range names {
		if err := put(name, int64(len(s.index[name])), bytes.NewReader(s.index[name])); err != nil {
			return err
		}
	}
	for _, d := range sortedKeys(s.contents) {
		if err := s.writeContent(ctx, d, put); err != nil {
			return fmt.Errorf("%s: %s: %w", s.contents[d].repo, d, err)
		}
		s.done.Add(1)
	}
	return nil
}

// writeContent writes a blob or a manifest, and verifies its digest.
func (s *saver) writeContent(ctx context.Context, d digest.Digest, put func(string, int64, io.Reader) error) error {
	c := s.contents[d]
	var content io.Reader
	if c.manifest {
		m, err := s.from.GetManifest(ctx, c.repo, d)
		if err != nil {
			return err
		}
		if _, err := digestOf(m, d); err != nil {
			return err
		}
		content = bytes.NewReader(m.Content)
	} else {
		blob, err := s.from.OpenBlob(ctx, c.repo, d)
		if err != nil {
			return err
		}
		defer blob.Close()
		content = blob
	}
	verifier := d.Verifier()
	source := &sourceReader{ctx: ctx, r: content, n: &s.bytes}
	// A reader with one byte more than it should have is corrupt, too.
	if err := put(blobPath(d), c.size, io.TeeReader(io.LimitReader(source, c.size+1), verifier)); err != nil {
		return err
	}
	if !c.manifest && !verifier.Verified() {
		return errors.New("corrupt in the source: its content has another digest")
	}
	return nil
}

// writeOutput calls write with a function that adds a file to the output, which
// appears only when all has been written.
func writeOutput(ctx context.Context, name string, write func(context.Context, func(string, int64, io.Reader) error) error) (err error) {
	isDir := strings.HasSuffix(name, "/")
	target := filepath.Clean(name)
	if info, err := os.Stat(target); err == nil && (isDir || !info.Mode().IsRegular()) {
		return fmt.Errorf("%s exists", target)
	}
	temp := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+"."+rand.Text()[:8]+".tmp")
	defer func() {
		if err != nil {
			os.RemoveAll(temp)
		}
	}()
	if isDir {
		err = write(ctx, func(name string, _ int64, content io.Reader) error {
			return writeNew(filepath.Join(temp, filepath.FromSlash(name)), content)
		})
	} else {
		err = writeTar(ctx, temp, name, write)
	}
	if err != nil {
		return err
	}
	return os.Rename(temp, target)
}

// writeNew writes a new file, and the folders above it.
func writeNew(name string, content io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	return f.Sync()
}

// writeTar writes a tar file, compressed as the extension of name says.
func writeTar(ctx context.Context, temp, name string, write func(context.Context, func(string, int64, io.Reader) error) error) (err error) {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, closeWriter := io.Writer(f), func() error { return nil }
	switch {
	case strings.HasSuffix(name, ".gz"), strings.HasSuffix(name, ".tgz"):
		z := gzip.NewWriter(f)
		w, closeWriter = z, z.Close
	case strings.HasSuffix(name, ".zst"):
		z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		w, closeWriter = z, z.Close
	}
	t := tar.NewWriter(w)
	err = write(ctx, func(name string, size int64, content io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		n, err := io.Copy(t, content)
		if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n < size {
			return fmt.Errorf("corrupt in the source: it has not %d bytes", size)
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(t.Close(), closeWriter()); err != nil {
		return err
	}
	return f.Sync()
}
