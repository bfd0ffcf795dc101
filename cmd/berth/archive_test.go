// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/ocidir"
)

// tarFile returns a tar file with the given entries. A link's content is its target.
func tarFile(entries ...tar.Header) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, h := range entries {
		content := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Linkname, h.Size = "", int64(len(content))
		}
		t.WriteHeader(&h)
		if h.Typeflag == tar.TypeReg {
			io.WriteString(t, content)
		}
	}
	t.Close()
	return b.Bytes()
}

func regular(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content}
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

// TestHostileArchives checks that archives that nobody should load are rejected with
// one sentence.
func TestHostileArchives(t *testing.T) {
	const maxSize = 1 << 20
	bomb := string(zipped(make([]byte, 2*maxSize)))
	image := func(layer string) tar.Header {
		return regular("manifest.json", `[{"Config":"c","RepoTags":["a:b"],"Layers":["`+layer+`"]}]`)
	}
	someID := digest.FromString("x").String()
	config := regular("c", `{"rootfs":{"diff_ids":["`+someID+`"]}}`)
	whole := tarFile(regular("index.json", strings.Repeat("x", 5000)))
	// Package tar does not write sparse files.
	sparse := tarFile(tar.Header{Typeflag: tar.TypeReg, Name: "index.json", Linkname: "0\n" + strings.Repeat("\x00", 510), PAXRecords: map[string]string{"XXX.sparse.major": "1", "XXX.sparse.minor": "0"}})
	sparse = bytes.ReplaceAll(sparse, []byte("XXX.sparse"), []byte("GNU.sparse"))
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "it is neither an OCI image layout nor a docker archive"},
		{"not_tar", bytes.Repeat([]byte("text"), 1000), "it is neither an OCI image layout nor a docker archive"},
		{"no_index", tarFile(regular("a", "b")), "it is neither an OCI image layout nor a docker archive"},
		{"truncated", whole[:3000], "it is truncated: the content of \"index.json\" is missing"},
		{"truncated_gzip", zipped(whole)[:20], "unexpected EOF"},
		{"bomb", zipped(make([]byte, 2*maxSize)), "it has more than 1MiB when decompressed: raise --max-size to load it"},
		{"bomb_in_layer", tarFile(image("l"), config, regular("l", bomb)), `the layer "l": it has more than 1MiB when decompressed: raise --max-size to load it`},
		{"sparse", sparse, `"index.json" is a sparse file`},
		{"not_JSON", tarFile(regular("index.json", "x")), "index.json: invalid character 'x' looking for beginning of value"},
		{"too_many", tarFile(regular("index.json", strings.Repeat("{", 3*maxDescriptors+1))), "index.json names more than 400000 things"},
		{"link_to_outside", tarFile(image("l"), config, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc/passwd"}), `the layer "l": the archive does not contain it`},
		{"links_in_circle", tarFile(image("l"), config, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "m"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "m", Linkname: "l"}), `the layer "l": the archive does not contain it`},
		{"other_layer", tarFile(image("l"), config, regular("l", "y")), `the layer "l" is corrupt: its content has the digest ` + digest.FromString("y").String() + " instead of " + someID},
		{"no_config", tarFile(image("l")), `the configuration "c" of an image: the archive does not contain it`},
		{"layers_differ", tarFile(image(`l","l`), config), `an image has 2 layers, but its configuration "c" has 1`},
		{"escape_sequence", tarFile(regular("manifest.json", "[{\"Config\":\"\\u001b[2J\"}]")), `the configuration "?[2J" of an image: the archive does not contain it`},
		{"bad_name", tarFile(regular("manifest.json", `[{"Config":"c","RepoTags":["A:b"],"Layers":["l"]}]`), config, regular("l", "x")), `its image "A:b" has a name that a registry can't have: use --as REPO:TAG`},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "archive")
			if err := os.WriteFile(name, test.data, 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := openArchive(t.Context(), name, nil, maxSize)
			if err == nil {
				defer a.Close()
				_, err = newArchiveStore(t.Context(), a, ref{}, maxSize)
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}

// TestCorruptLayout checks that nothing of a repository with a corrupt blob is tagged.
func TestCorruptLayout(t *testing.T) {
	dir := t.TempDir()
	s, err := ocidir.Open(dir+"/store", nil)
	if err == nil {
		err = errors.Join(pushImages(t.Context(), s), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	save := saveCmd{Refs: []string{"app:v1", "tools/cli:1.0"}, From: "dir:" + dir + "/store", Output: dir + "/layout/", Format: "oci"}
	if err := save.Run(io.Discard, logOutput{io.Discard}); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "layout", filepath.FromSlash(blobPath(digest.FromString("signed"))))
	if err := os.WriteFile(blob, []byte("Signed"), 0o666); err != nil {
		t.Fatal(err)
	}
	load := loadCmd{Files: []string{dir + "/layout"}, To: "dir:" + dir + "/loaded", Jobs: 2, MaxSize: 1 << 30}
	var log bytes.Buffer
	if err := load.Run(io.Discard, logOutput{&log}); err == nil || !strings.Contains(log.String(), "app: blob sha256:") || !strings.Contains(log.String(), "corrupt in the source") {
		t.Errorf("%v: %s", err, &log)
	}
	loaded, closer, err := openSource(t.Context(), load.To, storeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	if _, err := loaded.GetTag(t.Context(), "tools/cli", "1.0"); err != nil {
		t.Errorf("the intact repository: %v", err)
	}
	for _, err := range loaded.Manifests(t.Context(), "app", "") {
		if !isUnknown(err) {
			t.Errorf("the corrupt repository has manifests: %v", err)
		}
	}
}

// TestSaveInterrupted stops a save in the middle, and checks that nothing is left.
func TestSaveInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	dir := t.TempDir()
	for _, output := range []string{dir + "/out.tar.gz", dir + "/out/"} {
		err := interruptible(errInterrupted, func(ctx context.Context) error {
			return writeOutput(ctx, output, func(ctx context.Context, put func(string, int64, io.Reader) error) error {
				if err := put("a/b", 1, strings.NewReader("x")); err != nil {
					return err
				}
				self, err := os.FindProcess(os.Getpid())
				if err == nil {
					err = self.Signal(syscall.SIGTERM)
				}
				if err != nil {
					return err
				}
				<-ctx.Done()
				return ctx.Err()
			})
		})
		if !errors.Is(err, errInterrupted) {
			t.Error(err)
		}
	}
	if files, err := os.ReadDir(dir); len(files) > 0 || err != nil {
		t.Error(files, err)
	}
}

// TestLoadInterrupted stops a load that waits for standard input.
func TestLoadInterrupted(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	r, w := io.Pipe()
	defer w.Close()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	err := interruptible(errInterrupted, func(ctx context.Context) error {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Signal(syscall.SIGTERM)
		}
		if err != nil {
			return err
		}
		_, err = openArchive(ctx, "-", r, 1<<20)
		return err
	})
	if err != errInterrupted {
		t.Error(err)
	}
	if files, err := os.ReadDir(dir); len(files) > 0 || err != nil {
		t.Error(files, err)
	}
}
