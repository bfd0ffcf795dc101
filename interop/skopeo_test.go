// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

func TestSkopeo(t *testing.T) {
	newSkopeo(t) // skips the entire test if skopeo is missing
	t.Run("copy_layout", testSkopeoCopyLayout)
	t.Run("copy_dir", testSkopeoCopyDir)
	t.Run("copy_between_repositories", testSkopeoCopyBetweenRepositories)
	t.Run("copy_docker_archive", testSkopeoCopyArchive)
	t.Run("list_tags", testSkopeoListTags)
	t.Run("inspect", testSkopeoInspect)
	t.Run("not_found", testSkopeoNotFound)
	t.Run("delete", testSkopeoDelete)
	t.Run("sync", testSkopeoSync)
}

// testSkopeoCopyLayout copies from an OCI layout to the registry, and back to a
// new layout. skopeo 1.9.3 can't copy this content:
//
//   - docker and docker-list, because it ignores Docker media types in a layout:
//     `no descriptor found for reference "docker"`. copy_dir copies them.
//   - sha512, from any source to any destination, because it computes SHA-256
//     digests of everything it reads: "Internal error writing blob sha512:…,
//     blob with digest sha512:… saved with digest sha256:…". inspect reads its
//     manifest.
func testSkopeoCopyLayout(t *testing.T) {
	for _, name := range []string{"image", "index", "artifact", "empty-layer", "large"} {
		t.Run(name, func(t *testing.T) {
			if name == "large" && testing.Short() {
				t.Skip("200 MB")
			}
			c := contents()[name]
			host, s := newServer(t), newSkopeo(t)
			parts := []*content{c}
			if name == "artifact" {
				// skopeo does not copy the subject, so copy it first: it is the
				// content named image.
				image := contents()["image"]
				qt.Assert(t, qt.Equals(image.root.Digest, c.manifests[0].Digest))
				parts = []*content{image, c}
			}
			dir := t.TempDir()
			for _, part := range parts {
				remote := "docker://" + host + "/test/" + name + ":" + part.name
				digestFile := filepath.Join(t.TempDir(), "digest")
				s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--digestfile", digestFile,
					"--dest-tls-verify=false", "oci:"+part.writeLayout(t)+":"+part.name, remote)
				got, err := os.ReadFile(digestFile)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(strings.TrimSpace(string(got)), part.root.Digest.String()))
				s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--dest-oci-accept-uncompressed-layers",
					"--src-tls-verify=false", remote, "oci:"+dir+":"+part.name)
			}
			c.checkServed(t, host, "test/"+name)
			c.checkLayout(t, dir)
		})
	}
}

// testSkopeoCopyDir copies from the registry to a directory, and from there to
// another registry.
func testSkopeoCopyDir(t *testing.T) {
	for _, name := range []string{"image", "index", "docker", "docker-list", "empty-layer"} {
		t.Run(name, func(t *testing.T) {
			c := contents()[name]
			from, to, s := newServer(t), newServer(t), newSkopeo(t)
			c.seed(t, from, "test")
			dir := t.TempDir()
			s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--src-tls-verify=false",
				"docker://"+from+"/test:"+name, "dir:"+dir)
			checkSkopeoDir(t, c, dir)
			s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--dest-tls-verify=false",
				"dir:"+dir, "docker://"+to+"/test:"+name)
			c.checkServed(t, to, "test")
		})
	}
}

// testSkopeoCopyBetweenRepositories copies within one registry: skopeo mounts the
// blobs that it has seen in other repositories.
func testSkopeoCopyBetweenRepositories(t *testing.T) {
	for _, name := range []string{"image", "index", "docker", "docker-list", "artifact", "empty-layer"} {
		t.Run(name, func(t *testing.T) {
			c := contents()[name]
			host, log := newRecordingServer(t)
			s := newSkopeo(t)
			c.seed(t, host, "from")
			if name == "artifact" {
				// Leave out the subject, which skopeo does not copy, and which
				// may be missing.
				c = &content{name: name, root: c.root, manifests: c.manifests[1:], blobs: c.blobs[2:]}
			}
			s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
				"docker://"+host+"/from:"+name, "docker://"+host+"/to:"+name)
			c.checkServed(t, host, "to")

			// Copy to a third repository: skopeo knows that the registry has the
			// layers, and mounts them.
			log.reset()
			s.run(t, "copy", "--multi-arch=all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
				"docker://"+host+"/from:"+name, "docker://"+host+"/third:"+name)
			c.checkServed(t, host, "third")
			layers := 0
			for _, d := range c.blobs {
				switch d.MediaType {
				case ocispec.MediaTypeImageConfig, dockerConfig, ocispec.MediaTypeEmptyJSON:
				default:
					layers++
				}
			}
			qt.Check(t, qt.HasLen(log.find("POST", "/v2/third/blobs/uploads/?from=", 201), layers))
		})
	}
}

// testSkopeoCopyArchive copies to and from an archive in the format of "docker
// save".
func testSkopeoCopyArchive(t *testing.T) {
	for _, name := range []string{"image", "docker"} {
		t.Run(name, func(t *testing.T) {
			c := contents()[name]
			config, layer := c.blobs[0], c.blobs[1]
			// Use two servers and two instances of skopeo, which share nothing
			// but the archive.
			from, to := newServer(t), newServer(t)
			c.seed(t, from, "test")
			archive := filepath.Join(t.TempDir(), "archive.tar")
			newSkopeo(t).run(t, "copy", "--src-tls-verify=false",
				"docker://"+from+"/test:"+name, "docker-archive:"+archive+":example.org/test:"+name)
			s := newSkopeo(t)
			s.run(t, "copy", "--dest-tls-verify=false", "docker-archive:"+archive, "docker://"+to+"/test:"+name)

			// The archive holds the layer uncompressed, so the manifest is a new
			// one. The config is the same.
			remote := "docker://" + to + "/test:" + name
			raw := s.run(t, "inspect", "--raw", "--tls-verify=false", remote)
			var m ocispec.Manifest
			qt.Assert(t, qt.IsNil(json.Unmarshal(raw, &m)))
			qt.Check(t, qt.Equals(m.MediaType, dockerManifest))
			qt.Check(t, qt.Equals(m.Config.Digest, config.Digest))
			qt.Assert(t, qt.HasLen(m.Layers, 1))
			qt.Check(t, qt.Equals(m.Layers[0].MediaType, dockerLayer))

			got := s.inspect(t, remote)
			qt.Check(t, qt.Equals(got.Digest, digest.FromBytes(raw)))
			qt.Check(t, qt.DeepEquals(got.Layers, []digest.Digest{m.Layers[0].Digest}))
			qt.Check(t, qt.DeepEquals(got.RepoTags, []string{name}))
			rawConfig := s.run(t, "inspect", "--config", "--raw", "--tls-verify=false", remote)
			qt.Check(t, qt.IsTrue(bytes.Equal(rawConfig, c.bytes[config.Digest])))

			// The new layer decompresses to the same bytes as the original.
			dir := t.TempDir()
			s.run(t, "copy", "--src-tls-verify=false", "--dest-decompress", remote, "dir:"+dir)
			want := t.TempDir()
			s.run(t, "copy", "--src-tls-verify=false", "--dest-decompress", "docker://"+from+"/test:"+name, "dir:"+want)
			var image ocispec.Image
			qt.Assert(t, qt.IsNil(json.Unmarshal(c.bytes[config.Digest], &image)))
			diffID := image.RootFS.DiffIDs[0]
			for _, d := range []string{dir, want} {
				data, err := os.ReadFile(filepath.Join(d, diffID.Encoded()))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(digest.FromBytes(data), diffID))
			}
			qt.Check(t, qt.Not(qt.Equals(layer.Digest, diffID)))
		})
	}
}

func testSkopeoListTags(t *testing.T) {
	for _, test := range []struct {
		name  string
		opts  []registry.Option
		pages int
	}{
		{"single_page", nil, 1},
		{"several_pages", []registry.Option{registry.WithLimits(registry.Limits{PageNames: 2})}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			host, log := newRecordingServer(t, test.opts...)
			s := newSkopeo(t)
			names := []string{"docker", "empty-layer", "image", "sha512"}
			for _, name := range names {
				contents()[name].seed(t, host, "test")
			}
			var got struct {
				Repository string
				Tags       []string
			}
			qt.Assert(t, qt.IsNil(json.Unmarshal(s.run(t, "list-tags", "--tls-verify=false", "docker://"+host+"/test"), &got)))
			qt.Check(t, qt.Equals(got.Repository, host+"/test"))
			qt.Check(t, qt.DeepEquals(got.Tags, names))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/test/tags/list", 200), test.pages))
		})
	}
}

func testSkopeoInspect(t *testing.T) {
	host, s := newServer(t), newSkopeo(t)
	for name, c := range contents() {
		if name != "large" {
			c.seed(t, host, "test")
		}
	}

	t.Run("raw", func(t *testing.T) {
		for name, c := range contents() {
			if name == "large" {
				continue
			}
			for _, m := range c.manifests {
				raw := s.run(t, "inspect", "--raw", "--tls-verify=false", "docker://"+host+"/test@"+m.Digest.String())
				qt.Check(t, qt.Equals(string(raw), string(c.bytes[m.Digest])))
			}
			raw := s.run(t, "inspect", "--raw", "--tls-verify=false", "docker://"+host+"/test:"+name)
			qt.Check(t, qt.Equals(string(raw), string(c.bytes[c.root.Digest])))
		}
	})

	for _, test := range []struct {
		name, tag, os, arch string
	}{
		{"image", "image", "linux", "amd64"},
		{"docker", "docker", "linux", "amd64"},
		{"empty_layer", "empty-layer", "linux", "amd64"},
		{"index_linux_amd64", "index", "linux", "amd64"},
		{"index_linux_arm64", "index", "linux", "arm64"},
		{"index_windows", "index", "windows", "amd64"},
		{"list_linux_arm64", "docker-list", "linux", "arm64"},
		{"list_windows", "docker-list", "windows", "amd64"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := contents()[test.tag]
			remote := "docker://" + host + "/test:" + test.tag
			s := s.with("--override-os", test.os, "--override-arch", test.arch)

			// Find the manifest for the platform, if c is an index.
			d := c.root
			var index ocispec.Index
			qt.Assert(t, qt.IsNil(json.Unmarshal(c.bytes[d.Digest], &index)))
			for _, child := range index.Manifests {
				if child.Platform.OS == test.os && child.Platform.Architecture == test.arch {
					d = child
				}
			}
			var m ocispec.Manifest
			qt.Assert(t, qt.IsNil(json.Unmarshal(c.bytes[d.Digest], &m)))

			got := s.inspect(t, remote)
			qt.Check(t, qt.Equals(got.Name, host+"/test"))
			qt.Check(t, qt.Equals(got.Digest, c.root.Digest))
			qt.Check(t, qt.Equals(got.Os, test.os))
			qt.Check(t, qt.Equals(got.Architecture, test.arch))
			qt.Check(t, qt.DeepEquals(got.Layers, []digest.Digest{m.Layers[0].Digest}))
			qt.Check(t, qt.DeepEquals(got.RepoTags, []string{
				"artifact", "docker", "docker-list", "empty-layer", "image", "index", "sha512",
			}))

			raw := s.run(t, "inspect", "--config", "--raw", "--tls-verify=false", remote)
			qt.Check(t, qt.Equals(string(raw), string(c.bytes[m.Config.Digest])))
			var config, want ocispec.Image
			qt.Assert(t, qt.IsNil(json.Unmarshal(s.run(t, "inspect", "--config", "--tls-verify=false", remote), &config)))
			qt.Assert(t, qt.IsNil(json.Unmarshal(c.bytes[m.Config.Digest], &want)))
			qt.Check(t, qt.DeepEquals(config, want))
		})
	}
}

func testSkopeoNotFound(t *testing.T) {
	host, s := newServer(t), newSkopeo(t)
	contents()["image"].seed(t, host, "test")
	missing := digest.FromString("missing").String()
	for _, test := range []struct {
		name string
		args []string
		want string // a regular expression for the error that skopeo prints
	}{
		{"tag", []string{"inspect", "docker://" + host + "/test:none"}, "manifest unknown"},
		{"digest", []string{"inspect", "docker://" + host + "/test@" + missing}, "manifest unknown"},
		{"repository", []string{"inspect", "docker://" + host + "/none:image"}, "name unknown|repository name not known"},
		{"tags_of_missing_repository", []string{"list-tags", "docker://" + host + "/none"}, "404|name unknown|repository name not known"},
		{"delete", []string{"delete", "docker://" + host + "/test:none"}, "may not exist"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{test.args[0], "--tls-verify=false"}, test.args[1:]...)
			qt.Check(t, qt.Matches(s.fail(t, args...), "(?s).*("+test.want+").*"))
		})
	}
}

func testSkopeoDelete(t *testing.T) {
	image, other := contents()["image"], contents()["empty-layer"]
	host, log := newRecordingServer(t)
	s := newSkopeo(t)
	image.seed(t, host, "test")
	other.seed(t, host, "test")
	s.run(t, "copy", "--src-tls-verify=false", "--dest-tls-verify=false",
		"docker://"+host+"/test:image", "docker://"+host+"/test:again")

	// skopeo looks up the tag's digest and deletes the manifest, which deletes all
	// its tags.
	s.run(t, "delete", "--tls-verify=false", "docker://"+host+"/test:image")
	qt.Check(t, qt.HasLen(log.find("DELETE", "/v2/test/manifests/"+image.root.Digest.String(), 202), 1))
	for _, ref := range []string{":image", ":again", "@" + image.root.Digest.String()} {
		qt.Check(t, qt.StringContains(s.fail(t, "inspect", "--tls-verify=false", "docker://"+host+"/test"+ref), "manifest unknown"))
	}
	other.checkServed(t, host, "test")
	qt.Check(t, qt.DeepEquals(s.inspect(t, "docker://"+host+"/test:"+other.name).RepoTags, []string{other.name}))
}

// testSkopeoSync copies all tags of a repository, which skopeo lists, to a
// directory, and the entire directory to a registry.
func testSkopeoSync(t *testing.T) {
	names := []string{"image", "index", "docker", "docker-list", "empty-layer"}
	from, to, s := newServer(t), newServer(t), newSkopeo(t)
	for _, name := range names {
		contents()[name].seed(t, from, "some/test")
	}
	dir := t.TempDir()
	s.run(t, "sync", "--all", "--preserve-digests", "--src-tls-verify=false",
		"--src", "docker", "--dest", "dir", from+"/some/test", dir)
	for _, name := range names {
		checkSkopeoDir(t, contents()[name], filepath.Join(dir, "test:"+name))
	}
	s.run(t, "sync", "--all", "--preserve-digests", "--dest-tls-verify=false",
		"--src", "dir", "--dest", "docker", dir, to+"/synced")
	for _, name := range names {
		contents()[name].checkServed(t, to, "synced/test")
	}

	// Copy a single tag from registry to registry.
	s.run(t, "sync", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
		"--src", "docker", "--dest", "docker", from+"/some/test:index", to+"/one")
	contents()["index"].checkServed(t, to, "one/test")
	qt.Check(t, qt.DeepEquals(s.inspect(t, "docker://"+to+"/one/test:index").RepoTags, []string{"index"}))
}

// checkSkopeoDir checks that skopeo has written all of c to dir.
func checkSkopeoDir(t *testing.T, c *content, dir string) {
	t.Helper()
	check := func(name string, d digest.Digest) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if sha256.Sum256(got) != sha256.Sum256(c.bytes[d]) {
			t.Errorf("%s: %s differs", c.name, d)
		}
	}
	for _, d := range c.blobs {
		check(d.Digest.Encoded(), d.Digest)
	}
	for _, d := range c.manifests {
		if d.Digest == c.root.Digest {
			check("manifest.json", d.Digest)
		} else {
			check(d.Digest.Encoded()+".manifest.json", d.Digest)
		}
	}
}

// skopeo runs the program, isolated from the machine's configuration.
type skopeo struct {
	path string
	args []string // global options, which precede the command
	env  []string
}

func newSkopeo(t *testing.T) *skopeo {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		const missing = "skopeo is not installed: apt-get install skopeo"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	sub := func(name string) string {
		name = filepath.Join(dir, name)
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		return name
	}
	registries := filepath.Join(dir, "registries.conf")
	if err := os.WriteFile(registries, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return &skopeo{
		path: path,
		args: []string{
			"--insecure-policy",
			"--registries.d", sub("registries.d"),
			"--registries-conf", registries,
			"--tmpdir", sub("tmp"),
		},
		env: []string{
			"PATH=" + os.Getenv("PATH"),
			"HOME=" + sub("home"),
			"XDG_RUNTIME_DIR=" + sub("run"),
			"XDG_CONFIG_HOME=" + sub("config"),
			"XDG_DATA_HOME=" + sub("data"),
			"REGISTRY_AUTH_FILE=" + filepath.Join(dir, "auth.json"),
			// As root, skopeo caches the locations of blobs in /var/lib, for
			// all users; otherwise in XDG_DATA_HOME.
			"_CONTAINERS_ROOTLESS_UID=1000",
		},
	}
}

// with returns a skopeo with further global options.
func (s *skopeo) with(args ...string) *skopeo {
	return &skopeo{s.path, append(s.args[:len(s.args):len(s.args)], args...), s.env}
}

// run runs skopeo and returns its standard output.
func (s *skopeo) run(t *testing.T, args ...string) []byte {
	t.Helper()
	stdout, stderr, err := s.exec(t, args)
	if err != nil {
		t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// fail runs skopeo, which must fail, and returns its standard error.
func (s *skopeo) fail(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := s.exec(t, args)
	if err == nil {
		t.Fatalf("skopeo %s: no error\n%s", strings.Join(args, " "), stdout)
	}
	return stderr
}

func (s *skopeo) exec(t *testing.T, args []string) (stdout []byte, stderr string, err error) {
	cmd := exec.CommandContext(t.Context(), s.path, append(s.args[:len(s.args):len(s.args)], args...)...)
	cmd.Env = s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.Bytes(), errs.String(), err
}

// inspection is the output of skopeo inspect.
type inspection struct {
	Name             string
	Digest           digest.Digest
	RepoTags         []string
	Architecture, Os string
	Layers           []digest.Digest
}

func (s *skopeo) inspect(t *testing.T, image string) (i inspection) {
	t.Helper()
	if err := json.Unmarshal(s.run(t, "inspect", "--tls-verify=false", image), &i); err != nil {
		t.Fatal(err)
	}
	return i
}
