// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// nonRoot is the user and group that the image runs as. Other images without a
// shell use the same one, so volumes can be shared with them.
const nonRoot = 65532

// release holds the contents of an image.
type release struct {
	version  string
	revision string    // the commit
	created  time.Time // of everything in the image, so that it is reproducible

	certificates []byte            // in PEM, for stores that use HTTPS
	binaries     map[string][]byte // the berth command, by platform: linux/amd64
}

// image writes an image of the Linux binaries that build wrote to dir, as an OCI
// layout in dir/image.
func image(ctx context.Context, repo, dir string) error {
	r, err := newRelease(repo)
	if err != nil {
		return err
	}
	for _, platform := range platforms {
		arch, ok := strings.CutPrefix(platform, "linux/")
		if !ok {
			continue
		}
		binary, err := os.ReadFile(filepath.Join(dir, "berth-linux-"+arch))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.binaries[platform] = binary
	}
	if len(r.binaries) == 0 {
		return fmt.Errorf("no berth-linux-* in %s", dir)
	}
	index, err := r.writeLayout(ctx, filepath.Join(dir, "image"))
	if err != nil {
		return err
	}
	fmt.Println(index.Digest)
	return nil
}

// newRelease returns a release of the last commit of repo, without binaries yet.
func newRelease(repo string) (*release, error) {
	r := &release{binaries: make(map[string][]byte)}
	mod, err := git(repo, "show", "HEAD:cmd/berth/go.mod")
	if err != nil {
		return nil, err
	}
	if r.version, err = checkModule("cmd/berth", mod, ""); err != nil {
		return nil, err
	}
	revision, err := git(repo, "rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	r.revision = strings.TrimSpace(string(revision))
	if r.created, err = commitTime(repo); err != nil {
		return nil, err
	}
	// The path on Debian and its derivatives, where releases are built.
	r.certificates, err = os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	return r, err
}

// writeLayout writes the image to dir, which must not exist yet, as an OCI layout
// with the version as tag. It returns the descriptor of the image's index.
func (r *release) writeLayout(ctx context.Context, dir string) (ocispec.Descriptor, error) {
	// A repository of an ocidir store is a layout. Once the store is closed, only
	// that folder is needed.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "image-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.RemoveAll(tmp)
	store, err := ocidir.Open(tmp, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	index, err := r.push(ctx, store, "berth")
	if closed := store.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return index, os.Rename(filepath.Join(tmp, "berth"), dir)
}

// push pushes the image to repo, and returns the descriptor of its index.
func (r *release) push(ctx context.Context, s registry.Store, repo string) (ocispec.Descriptor, error) {
	index := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Annotations: r.labels(),
	}
	for _, platform := range platforms {
		binary, ok := r.binaries[platform]
		if !ok {
			continue
		}
		d, err := r.pushPlatform(ctx, s, repo, platform, binary)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("%s: %w", platform, err)
		}
		index.Manifests = append(index.Manifests, d)
	}
	return pushJSON(ctx, s, repo, ocispec.MediaTypeImageIndex, index, r.version)
}

// pushPlatform pushes the image for one platform.
func (r *release) pushPlatform(ctx context.Context, s registry.Store, repo, platform string, binary []byte) (ocispec.Descriptor, error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	user := strconv.Itoa(nonRoot)
	config := ocispec.Image{
		Created:  &r.created,
		Platform: ocispec.Platform{OS: goos, Architecture: goarch},
		Config: ocispec.ImageConfig{
			User:         user + ":" + user,
			Entrypoint:   []string{"/berth"},
			Cmd:          []string{"serve"},
			Env:          []string{"BERTH_ADDR=0.0.0.0:5000", "BERTH_STORE=dir:/data"}, // flags replace them
			WorkingDir:   "/",
			ExposedPorts: map[string]struct{}{"5000/tcp": {}},
			Volumes:      map[string]struct{}{"/data": {}},
			Labels:       r.labels(),
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Annotations: r.labels(),
	}
	// The folders and certificates have their own layer, which all platforms and
	// most versions share.
	for _, files := range [][]file{r.base(), {{tar.Header{Name: "berth", Mode: 0o755}, binary}}} {
		layer, diffID, err := r.layer(files)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d, err := pushBlob(ctx, s, repo, ocispec.MediaTypeImageLayerGzip, layer)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ocispec.History{Created: &r.created, CreatedBy: "interop/release"})
	}
	data, err := json.Marshal(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if manifest.Config, err = pushBlob(ctx, s, repo, ocispec.MediaTypeImageConfig, data); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := pushJSON(ctx, s, repo, ocispec.MediaTypeImageManifest, manifest, "")
	d.Platform = &config.Platform
	return d, err
}

// labels returns the labels of the image, which are also its annotations.
func (r *release) labels() map[string]string {
	return map[string]string{
		ocispec.AnnotationTitle:       "berth",
		ocispec.AnnotationDescription: "An OCI registry in one process",
		ocispec.AnnotationSource:      "https://" + rootModule,
		ocispec.AnnotationLicenses:    "Apache-2.0",
		ocispec.AnnotationVersion:     r.version,
		ocispec.AnnotationRevision:    r.revision,
		ocispec.AnnotationCreated:     r.created.Format(time.RFC3339),
	}
}

// file is a file or folder of a layer.
type file struct {
	tar.Header
	content []byte
}

// base returns the files of the image besides the command.
func (r *release) base() []file {
	return []file{
		{Header: tar.Header{Name: "data/", Mode: 0o700, Uid: nonRoot, Gid: nonRoot}},
		{Header: tar.Header{Name: "etc/", Mode: 0o755}},
		{Header: tar.Header{Name: "etc/ssl/", Mode: 0o755}},
		{Header: tar.Header{Name: "etc/ssl/certs/", Mode: 0o755}},
		{Header: tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, content: r.certificates},
		// For --disk. With a read-only root file system it needs a tmpfs.
		{Header: tar.Header{Name: "tmp/", Mode: 0o1777}},
	}
}

// layer returns a compressed layer of files, and the digest of the uncompressed
// layer.
func (r *release) layer(files []file) (layer []byte, diffID digest.Digest, err error) {
	var unpacked, packed bytes.Buffer
	w := tar.NewWriter(&unpacked)
	for _, f := range files {
		f.Typeflag = tar.TypeReg
		if strings.HasSuffix(f.Name, "/") {
			f.Typeflag = tar.TypeDir
		}
		f.Size = int64(len(f.content))
		f.ModTime = r.created
		if err := w.WriteHeader(&f.Header); err != nil {
			return nil, "", err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, "", err
		}
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(unpacked.Bytes()); err != nil {
		return nil, "", err
	}
	if err := z.Close(); err != nil {
		return nil, "", err
	}
	return packed.Bytes(), digest.FromBytes(unpacked.Bytes()), nil
}

func pushBlob(ctx context.Context, s registry.Store, repo, mediaType string, data []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, registry.PushBlob(ctx, s, repo, d.Digest, bytes.NewReader(data))
}

// pushJSON pushes a manifest or an index, and points tag at it unless tag is
// empty.
func pushJSON(ctx context.Context, s registry.Store, repo, mediaType string, v any, tag string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	push := registry.ManifestPush{MediaType: mediaType, Content: data}
	if tag != "" {
		push.Tags = []string{tag}
	}
	if _, err := registry.PushManifest(ctx, s, repo, push); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}
