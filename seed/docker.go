// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// PushDockerArchive pushes the images of a tar archive written by "docker save"
// to repo. Each image keeps its tags; the repository names in the archive are
// ignored. Like "docker push", PushDockerArchive generates the manifests, which
// it returns; unlike it, it does not compress layers. It reads the entire archive
// into memory.
//
// Errors: those of reading r, one for a file that manifest.json names and the
// archive lacks, those of registry.PushBlob and registry.PushManifest.
func PushDockerArchive(ctx context.Context, s registry.Store, repo string, r io.Reader) ([]registry.Manifest, error) {
	files, err := readArchive(r)
	if err != nil {
		return nil, err
	}
	list, ok := files["manifest.json"]
	if !ok {
		return nil, errors.New("seed: no manifest.json in the archive")
	}
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(list, &images); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var all []registry.Manifest
	for _, image := range images {
		push := func(mediaType, name string) (ocispec.Descriptor, error) {
			data, ok := files[path.Clean(name)]
			if !ok {
				return ocispec.Descriptor{}, fmt.Errorf("seed: no %s in the archive", name)
			}
			if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) { // gzip
				mediaType += ".gzip"
			}
			d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
			return d, registry.PushBlob(ctx, s, repo, d.Digest, bytes.NewReader(data))
		}
		doc := ocispec.Manifest{
			MediaType: typeDockerManifest,
			Layers:    []ocispec.Descriptor{},
		}
		doc.SchemaVersion = 2
		if doc.Config, err = push(typeDockerConfig, image.Config); err != nil {
			return nil, err
		}
		for _, name := range image.Layers {
			d, err := push(typeDockerLayer, name)
			if err != nil {
				return nil, err
			}
			doc.Layers = append(doc.Layers, d)
		}
		content, err := json.Marshal(doc)
		if err != nil {
			return nil, err
		}
		p := registry.ManifestPush{MediaType: doc.MediaType, Content: content}
		for _, name := range image.RepoTags {
			p.Tags = append(p.Tags, name[strings.LastIndexByte(name, ':')+1:])
		}
		m, err := registry.PushManifest(ctx, s, repo, p)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// readArchive reads the files of a tar archive. It follows links: Docker writes
// a layer that several images share only once.
func readArchive(r io.Reader) (map[string][]byte, error) {
	files := make(map[string][]byte)
	links := make(map[string]string)
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		switch name := path.Clean(h.Name); h.Typeflag {
		case tar.TypeReg:
			if files[name], err = io.ReadAll(t); err != nil {
				return nil, err
			}
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		}
	}
	for name, target := range links {
		for range len(links) { // follow links to links, but not in a cycle forever
			next, ok := links[target]
			if !ok {
				break
			}
			target = next
		}
		if data, ok := files[target]; ok {
			files[name] = data
		}
	}
	return files, nil
}
