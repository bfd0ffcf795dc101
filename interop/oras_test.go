// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
)

func orasRepo(t *testing.T, host, name string) *remote.Repository {
	t.Helper()
	repo, err := remote.NewRepository(host + "/" + name)
	qt.Assert(t, qt.IsNil(err))
	repo.PlainHTTP = true
	return repo
}

func TestOras(t *testing.T) {
	for name, c := range contents() {
		t.Run(name, func(t *testing.T) {
			host := newServer(t)
			repo := orasRepo(t, host, "test/"+name)
			from, err := oci.NewFromFS(t.Context(), os.DirFS(c.writeLayout(t)))
			qt.Assert(t, qt.IsNil(err))
			d, err := oras.Copy(t.Context(), from, name, repo, name, oras.DefaultCopyOptions)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(d.Digest, c.root.Digest))
			c.checkServed(t, host, "test/"+name)

			dir := t.TempDir()
			to, err := oci.New(dir)
			qt.Assert(t, qt.IsNil(err))
			// Use a new client, which has cached nothing from the push.
			d, err = oras.Copy(t.Context(), orasRepo(t, host, "test/"+name), name, to, "", oras.DefaultCopyOptions)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(d.Digest, c.root.Digest))
			c.checkLayout(t, dir)
		})
	}
}

func TestOrasReferrers(t *testing.T) {
	ctx := t.Context()
	host := newServer(t)
	repo := orasRepo(t, host, "test")
	subject, err := oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, "application/vnd.example.subject", oras.PackManifestOptions{})
	qt.Assert(t, qt.IsNil(err))
	want := make(map[string][]digest.Digest)
	for i := range 6 {
		artifactType := fmt.Sprintf("application/vnd.example.%d", i%2)
		d, err := oras.PackManifest(ctx, repo, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{
			Subject:             &subject,
			ManifestAnnotations: map[string]string{"n": fmt.Sprint(i)},
		})
		qt.Assert(t, qt.IsNil(err))
		want[artifactType] = append(want[artifactType], d.Digest)
		want[""] = append(want[""], d.Digest)
	}
	// Use the API only: a fallback to the tag schema would hide a 404.
	repo = orasRepo(t, host, "test")
	qt.Assert(t, qt.IsNil(repo.SetReferrersCapability(true)))
	for artifactType, want := range want {
		var got []digest.Digest
		err := repo.Referrers(ctx, subject, artifactType, func(page []ocispec.Descriptor) error {
			for _, d := range page {
				qt.Check(t, qt.Not(qt.Equals(d.Annotations["n"], "")))
				qt.Check(t, qt.IsTrue(artifactType == "" || d.ArtifactType == artifactType))
				got = append(got, d.Digest)
			}
			return nil
		})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.ContentEquals(got, want))
	}
	// The client did not push the list under a tag.
	qt.Assert(t, qt.IsNil(repo.Tags(ctx, "", func(tags []string) error {
		qt.Check(t, qt.HasLen(tags, 0))
		return nil
	})))
}

func TestOrasLists(t *testing.T) {
	ctx := t.Context()
	host := newServer(t)
	reg, err := remote.NewRegistry(host)
	qt.Assert(t, qt.IsNil(err))
	reg.PlainHTTP = true
	qt.Assert(t, qt.IsNil(reg.Ping(ctx)))
	reg.RepositoryListPageSize = 3

	var tags, repos []string
	for i := range 10 {
		repos = append(repos, fmt.Sprintf("test/%02d", i))
		contents()["sha512"].seed(t, host, repos[i])
		tags = append(tags, fmt.Sprintf("v%02d", i))
		_, err := oras.Tag(ctx, orasRepo(t, host, "test/00"), "sha512", tags[i])
		qt.Assert(t, qt.IsNil(err))
	}
	collect := func(list func(last string, page func([]string) error) error) (all []string, pages int) {
		t.Helper()
		qt.Assert(t, qt.IsNil(list("", func(page []string) error {
			all = append(all, page...)
			pages++
			return nil
		})))
		return all, pages
	}
	repo := orasRepo(t, host, "test/00")
	repo.TagListPageSize = 3
	got, pages := collect(func(last string, page func([]string) error) error { return repo.Tags(ctx, last, page) })
	qt.Check(t, qt.DeepEquals(got, append([]string{"sha512"}, tags...)))
	qt.Check(t, qt.Equals(pages, 4))
	got, pages = collect(func(last string, page func([]string) error) error { return reg.Repositories(ctx, last, page) })
	qt.Check(t, qt.DeepEquals(got, repos))
	qt.Check(t, qt.Equals(pages, 4))
}

func TestOrasBlobs(t *testing.T) {
	ctx := t.Context()
	host := newServer(t)
	repo := orasRepo(t, host, "test")
	data := strings.Repeat("0123456789", 100_000)
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(data), Size: int64(len(data))}
	qt.Assert(t, qt.IsNil(repo.Push(ctx, d, strings.NewReader(data))))

	r, err := repo.Blobs().Fetch(ctx, d)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	seeker, ok := r.(io.ReadSeeker)
	qt.Assert(t, qt.IsTrue(ok))
	for _, offset := range []int64{500_003, 7, 999_990} {
		_, err = seeker.Seek(offset, io.SeekStart)
		qt.Assert(t, qt.IsNil(err))
		part := make([]byte, 10)
		_, err = io.ReadFull(seeker, part)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(part), data[offset:offset+10]))
	}

	other := orasRepo(t, host, "other")
	qt.Assert(t, qt.IsNil(other.Mount(ctx, d, "test", func() (io.ReadCloser, error) {
		return nil, errors.New("the registry did not mount the blob")
	})))
	exists, err := other.Exists(ctx, d)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(exists))

	qt.Assert(t, qt.IsNil(repo.Blobs().Delete(ctx, d)))
	exists, err = repo.Exists(ctx, d)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(exists))
	_, err = repo.Blobs().Fetch(ctx, d)
	qt.Check(t, qt.ErrorIs(err, errdef.ErrNotFound))
}

func TestOrasDelete(t *testing.T) {
	ctx := t.Context()
	host := newServer(t)
	c := contents()["index"]
	c.seed(t, host, "test")
	repo := orasRepo(t, host, "test")
	d, err := repo.Resolve(ctx, "index")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(repo.Delete(ctx, d)))
	for _, ref := range []string{"index", c.root.Digest.String(), "missing"} {
		_, err = repo.Resolve(ctx, ref)
		qt.Check(t, qt.ErrorIs(err, errdef.ErrNotFound), qt.Commentf("%s", ref))
	}
	remaining := slices.DeleteFunc(slices.Clone(c.manifests), func(m ocispec.Descriptor) bool { return m.Digest == d.Digest })
	for _, m := range remaining {
		_, err = repo.Resolve(ctx, m.Digest.String())
		qt.Check(t, qt.IsNil(err))
	}
}
