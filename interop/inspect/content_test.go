// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layer returns a layer with files, whose names end in a slash for folders.
func layer(t *testing.T, files ...string) v1.Layer {
	t.Helper()
	return layerWith(t, compression.GZip, files...)
}

func layerWith(t *testing.T, c compression.Compression, files ...string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(files[i], "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case strings.HasPrefix(files[i+1], "-> "):
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, files[i+1][3:], 0
		}
		qt.Assert(t, qt.IsNil(w.WriteHeader(h)))
		if h.Size > 0 {
			io.WriteString(w, files[i+1])
		}
	}
	qt.Assert(t, qt.IsNil(w.Close()))
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithCompression(c))
	qt.Assert(t, qt.IsNil(err))
	return l
}

// appImage returns an image as a build makes it.
func appImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	base := layer(t, "bin/", "", "bin/sh", strings.Repeat("#!", 300_000), "etc/", "", "etc/os-release", "NAME=\"Example Linux\"\nVERSION=12\n", "lib", "-> usr/lib")
	code := layer(t, "app/", "", "app/server", strings.Repeat(arch, 40_000), "app/config.yaml", "listen: :8080\nlog: info\n")
	clean := layer(t, "tmp/", "", "tmp/.wh.build-cache", "", "app/README.md", "# The server\n\nIt serves.\n")
	image, err := mutate.Append(empty.Image,
		mutate.Addendum{Layer: base, History: v1.History{CreatedBy: "/bin/sh -c #(nop) ADD file:0fb3b0… in /"}},
		mutate.Addendum{History: v1.History{CreatedBy: "ENV PATH=/usr/local/bin:/usr/bin:/bin", EmptyLayer: true}},
		mutate.Addendum{Layer: code, History: v1.History{CreatedBy: "COPY server config.yaml /app/ # buildkit"}},
		mutate.Addendum{Layer: clean, History: v1.History{CreatedBy: "RUN /bin/sh -c rm -rf /tmp/build-cache # buildkit"}},
		mutate.Addendum{History: v1.History{CreatedBy: "ENTRYPOINT [\"/app/server\"]", EmptyLayer: true}},
	)
	qt.Assert(t, qt.IsNil(err))
	config, err := image.ConfigFile()
	qt.Assert(t, qt.IsNil(err))
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{
		Env:          []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
		Entrypoint:   []string{"/app/server"},
		Cmd:          []string{"--config", "/app/config.yaml"},
		WorkingDir:   "/app",
		User:         "65532",
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Labels:       map[string]string{"org.opencontainers.image.source": "https://git.example/app"},
	}
	image, err = mutate.ConfigFile(image, config)
	qt.Assert(t, qt.IsNil(err))
	return image
}

// appIndex returns appImage for two platforms.
func appIndex(t *testing.T) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        appImage(t, arch),
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index
}

// seed pushes an image for two platforms with a signature and an SBOM, a small image, and
// others that share its layers.
func seed(t *testing.T, host string) {
	t.Helper()
	ref, err := name.ParseReference(host + "/team/app:v1")
	qt.Assert(t, qt.IsNil(err))
	index := appIndex(t)
	qt.Assert(t, qt.IsNil(remote.WriteIndex(ref, index)))
	d, err := partial.Descriptor(index)
	qt.Assert(t, qt.IsNil(err))
	attach := func(artifact, mediaType, content string, subject v1.Descriptor) v1.Descriptor {
		image := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.MediaType(artifact)), types.OCIManifestSchema1)
		image, err := mutate.AppendLayers(image, static.NewLayer([]byte(content), types.MediaType(mediaType)))
		qt.Assert(t, qt.IsNil(err))
		image = mutate.Subject(image, subject).(v1.Image)
		digest, err := image.Digest()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.Write(ref.Context().Digest(digest.String()), image)))
		d, err := partial.Descriptor(image)
		qt.Assert(t, qt.IsNil(err))
		return *d
	}
	bom := attach("application/spdx+json", "application/spdx+json", `{"spdxVersion":"SPDX-2.3"}`, *d)
	attach("application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.cosign.simplesigning.v1+json", `{"critical":{}}`, *d)
	attach("application/vnd.dev.cosign.artifact.sig.v1+json", "application/vnd.dev.cosign.simplesigning.v1+json", `{"critical":{"of":"the SBOM"}}`, bom)
	for i, repo := range []string{"team/app:latest", "team/worker:v1", "tools/cli:2.0"} {
		image := appImage(t, "amd64")
		if i > 0 {
			image, err = mutate.AppendLayers(image, layer(t, fmt.Sprintf("opt/tool%d", i), strings.Repeat("x", 100_000*i)))
			qt.Assert(t, qt.IsNil(err))
		}
		qt.Assert(t, qt.IsNil(crane.Push(image, host+"/"+repo)))
	}
	_, err = crane.Manifest(host + "/team/app:none")
	qt.Assert(t, qt.IsNotNil(err))
	_, err = crane.Pull(host + "/team/app:v1")
	qt.Assert(t, qt.IsNil(err))
}
