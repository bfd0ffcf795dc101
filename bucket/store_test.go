// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/storetest"
)

func open(t testing.TB, url string, opts *bucket.Options) *bucket.Store {
	t.Helper()
	s, err := bucket.Open(context.Background(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// runContract tests the contract of a store. Content may be collected at once.
func runContract(t *testing.T, open func(t *testing.T) *bucket.Store) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		s := open(t)
		s.SetGrace(10*time.Minute, 0)
		return s
	})
}

func TestMemory(t *testing.T) {
	t.Parallel()
	runContract(t, func(t *testing.T) *bucket.Store { return open(t, "mem://", nil) })
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	runContract(t, func(t *testing.T) *bucket.Store {
		return open(t, "file://"+t.TempDir(), nil)
	})
}

func TestMinIO(t *testing.T) {
	t.Parallel()
	server := miniotest.Start(t)
	runContract(t, func(t *testing.T) *bucket.Store { return open(t, server.URL(t), nil) })
}

func TestHTTP(t *testing.T) {
	server := miniotest.Start(t)
	for name, url := range map[string]func() string{
		"memory":    func() string { return "mem://" },
		"directory": func() string { return "file://" + t.TempDir() },
		"minio":     func() string { return server.URL(t) },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.RunHTTP(t, func(t *testing.T) registry.Store { return open(t, url(), nil) })
		})
	}
}

// TestPrefix opens two stores in one bucket, which share nothing.
func TestPrefix(t *testing.T) {
	dir := t.TempDir()
	one := open(t, "file://"+dir+"?prefix=one/", nil)
	two := open(t, "file://"+dir+"?prefix=t", &bucket.Options{Prefix: "wo/"})
	for i, s := range []*bucket.Store{one, two} {
		push(t, s, "a/b", "data")
		for _, tag := range []string{"a", "b", "c"}[i:] {
			qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a/b", manifest("m"), []string{tag}, nil)))
		}
	}
	tags, err := collect(one.Tags(t.Context(), "a/b", "a"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(tags, []string{"b", "c"}))
	names, err := collect(two.Repositories(t.Context(), ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(names, []string{"a/b"}))
	tags, err = collect(open(t, "file://"+dir, &bucket.Options{Prefix: "two/"}).Tags(t.Context(), "a/b", ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(tags, []string{"b", "c"}))
}

// TestListsAfterAnything starts lists after strings that need not be names.
func TestListsAfterAnything(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testListsAfterAnything(t, "mem://") })
	for name, start := range servers {
		t.Run(name, func(t *testing.T) { testListsAfterAnything(t, start(t)) })
	}
}

func testListsAfterAnything(t *testing.T, url string) {
	s := open(t, url, nil)
	for _, repo := range []string{"a-b", "a.b", "a/b", "a0"} {
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), repo, manifest("m"), []string{"A", "a-b"}, nil)))
	}
	for _, test := range []struct {
		after       string
		repos, tags int
	}{
		{"", 4, 2},
		{"a!", 4, 1},
		{"a+", 4, 1},
		{"a,", 4, 1},
		{"a-b\x00", 3, 0},
		{"a\xff", 0, 0},
		{"\n", 4, 2},
		{"B", 4, 1},
		{"é", 0, 0},
		{strings.Repeat("a", 5000), 0, 0},
		{strings.Repeat("A", 5000), 4, 1},
	} {
		repos, err := collect(s.Repositories(t.Context(), test.after))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(repos, test.repos), qt.Commentf("%q", test.after))
		tags, err := collect(s.Tags(t.Context(), "a/b", test.after))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(tags, test.tags), qt.Commentf("%q", test.after))
	}
}

// TestListsAfterDots starts lists after strings that are paths rather than names, which
// MinIO does not accept in keys. The lists are those of a MemStore.
func TestListsAfterDots(t *testing.T) {
	repos := []string{"0", "a", "a.b", "a/b", "a/b/c", "b", "x"}
	tags := []string{"0", "A", "_", "a", "a-b", "a.b", "x"}
	fill := func(s registry.Store) (subject digest.Digest) {
		subject = digest.FromString("subject")
		for _, repo := range repos {
			qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), repo, manifest("m"), tags, nil)))
		}
		m := manifest("referrer")
		m.Subject = subject
		m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte("{}")}
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", m, nil, nil)))
		return subject
	}
	lists := func(s registry.Store, after string, subject digest.Digest) (lists [5][]string) {
		var errs [5]error
		lists[0], errs[0] = collect(s.Repositories(t.Context(), after))
		lists[1], errs[1] = collect(s.Tags(t.Context(), "a", after))
		add := func(i int, d digest.Digest) { lists[i] = append(lists[i], string(d)) }
		for r, err := range s.Referrers(t.Context(), "a", subject, digest.Digest(after)) {
			add(2, r.Digest)
			errs[2] = err
		}
		for info, err := range s.Blobs(t.Context(), "a", digest.Digest(after)) {
			add(3, info.Digest)
			errs[3] = err
		}
		for info, err := range s.Manifests(t.Context(), "a", digest.Digest(after)) {
			add(4, info.Digest)
			errs[4] = err
		}
		for i, err := range errs {
			qt.Check(t, qt.IsNil(err), qt.Commentf("list %d after %q", i, after))
		}
		return lists
	}
	want := new(registry.MemStore)
	subject := fill(want)
	for name, url := range map[string]string{"memory": "mem://", "minio": miniotest.Start(t).URL(t)} {
		t.Run(name, func(t *testing.T) {
			s := open(t, url, nil)
			fill(s)
			for _, after := range []string{
				".", "..", "./", "../", "../x", "./x", "/", "//", "///", "/a", "//a",
				"a/", "a//", "a//b", "a/.", "a/..", "a/./b", "a/../b", "a/b/", "a/b/..", "a.", "a..", "a../b",
				"...", "a/...", ":", "a:", ":..", "sha256:", "sha256:.", "sha256:..", "sha256:/", "sha256:../x",
			} {
				qt.Check(t, qt.DeepEquals(lists(s, after, subject), lists(want, after, subject)), qt.Commentf("%q", after))
			}
		})
	}
}

// TestOddNames uses valid names that a file system, or lists of files, can't store
// as they are.
func TestOddNames(t *testing.T) {
	repos := []string{
		strings.Repeat("a", 255), strings.Repeat("a", 201), strings.Repeat("a", 200) + "/b", strings.Repeat("b", 235),
		strings.Repeat("c", 120) + "/" + strings.Repeat("c", 134), strings.Repeat("d", 249) + ".attrs",
		strings.Repeat("e", 194) + ".attrs", "x.attrs", "x.attrs/y", "y/x.attrs", "attrs", "a__0x41__b", "a__0x41", "aa",
		"0x41__0x42__0", "n/a__0x2f__b", "n/a", strings.Repeat("z__0x41__z", 25),
	}
	tags := []string{
		"x.attrs", "_.attrs", "x", "x.attrs.attrs", "xattrs", "X.attrs-1", "a__0x41__b", "a__0x41__0x42__0x43", "aAb",
		strings.Repeat("t", 128), strings.Repeat("t", 122) + ".attrs", "__0x2f__",
	}
	slices.Sort(repos)
	slices.Sort(tags)
	ctx := t.Context()
	for name, url := range map[string]string{"memory": "mem://", "directory": "file://" + t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			s := open(t, url, nil)
			s.SetGrace(10*time.Minute, 0)
			for _, repo := range repos {
				d := push(t, s, repo, "data")
				u, err := s.CreateUpload(ctx, repo, registry.UploadOptions{})
				qt.Assert(t, qt.IsNil(err))
				_, err = u.ReadFrom(strings.NewReader("upload"))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(u.Close()))
				_, err = s.UploadSize(ctx, repo, u.ID())
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(s.PutManifest(ctx, repo, manifest("m"), tags, nil)))
				wantBlob(t, s, repo, d)
			}
			s.Wait()
			_, err := s.GC(ctx, bucket.GCOptions{Grace: time.Nanosecond})
			qt.Assert(t, qt.IsNil(err))
			for i := range repos {
				got, err := collect(s.Repositories(ctx, append([]string{""}, repos...)[i]))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.DeepEquals(got, repos[i:]))
			}
			for _, repo := range repos {
				wantBlob(t, s, repo, digest.FromString("data"))
				for i := range tags {
					got, err := collect(s.Tags(ctx, repo, append([]string{""}, tags...)[i]))
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.DeepEquals(got, tags[i:]), qt.Commentf("%s", repo))
					_, err = s.GetTag(ctx, repo, tags[i])
					qt.Assert(t, qt.IsNil(err))
				}
				qt.Assert(t, qt.IsNil(s.DeleteTag(ctx, repo, "x.attrs", nil)))
				_, err = s.GetTag(ctx, repo, "x.attrs")
				qt.Assert(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
			}
		})
	}
}

func TestUploadLimit(t *testing.T) {
	storetest.RunUploadLimit(t, func(t *testing.T, uploads int) registry.Store {
		return open(t, "mem://", &bucket.Options{Uploads: uploads})
	})
}

// TestInvalidSessionIDs uses IDs that would change the form of a key.
func TestInvalidSessionIDs(t *testing.T) {
	s := open(t, "file://"+t.TempDir(), nil)
	for _, id := range []string{"", ".", "..", "a/b", "\xff", "../x", "a b", "a.."} {
		_, err := s.ResumeUpload(t.Context(), "a", id)
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
		_, err = s.UploadSize(t.Context(), "a", id)
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
		qt.Check(t, qt.ErrorIs(s.CancelUpload(t.Context(), "a", id), error(registry.ErrBlobUploadUnknown)))
		if id != "" {
			_, err = s.CreateUpload(t.Context(), "a", registry.UploadOptions{ID: id})
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUploadInvalid)))
		}
	}
}

// TestSeveralRejections checks that a push of several tags calls AllowFunc for one of
// them at a time, although it reads them at once, and all may be rejected.
func TestSeveralRejections(t *testing.T) {
	s := open(t, "mem://", nil)
	rejections := 0
	for range 50 {
		err := s.PutManifest(t.Context(), "a", manifest("1"), []string{"t0", "t1", "t2"}, func(string, digest.Digest) error {
			rejections++
			return registry.ErrDenied
		})
		qt.Assert(t, qt.ErrorIs(err, error(registry.ErrDenied)))
	}
	qt.Assert(t, qt.Not(qt.Equals(rejections, 0)))
}

func TestCheck(t *testing.T) {
	for _, url := range []string{"mem://", "file://" + t.TempDir()} {
		s := open(t, url, nil)
		qt.Assert(t, qt.IsNil(s.Check(t.Context())))
		qt.Assert(t, qt.HasLen(s.Warnings(), 1))
	}
	s := open(t, miniotest.Start(t).URL(t), nil)
	qt.Assert(t, qt.IsNil(s.Check(t.Context())))
	qt.Assert(t, qt.HasLen(s.Warnings(), 0))

	// A server that ignores the conditions of writes.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
	}))
	defer server.Close()
	s = open(t, "s3://name?region=us-east-1&anonymous=true&use_path_style=true&endpoint="+server.URL, nil)
	qt.Assert(t, qt.ErrorMatches(s.Check(t.Context()), ".*conditions.*"))
}
