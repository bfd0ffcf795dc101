// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// wantUnavailable checks that each operation fails with 503, without any detail of
// the bucket. lease and content were opened while the bucket was available.
func wantUnavailable(t *testing.T, s *bucket.Store, lease registry.Upload, content io.Reader) {
	t.Helper()
	ctx := t.Context()
	d := digest.FromString("data")
	m := manifest("m")
	ops := []struct {
		name string
		do   func() error
	}{
		{"StatBlob", func() error { _, err := s.StatBlob(ctx, "a", d); return err }},
		{"OpenBlob", func() error { _, err := s.OpenBlob(ctx, "a", d); return err }},
		{"Read", func() error { _, err := content.Read(make([]byte, 10)); return err }},
		{"Blobs", func() error { _, err := collect(s.Blobs(ctx, "a", "")); return err }},
		{"MountBlob", func() error { return s.MountBlob(ctx, "b", "a", d) }},
		{"FindBlob", func() error { _, err := collect(s.FindBlob(ctx, d)); return err }},
		{"DeleteBlob", func() error { return s.DeleteBlob(ctx, "a", d) }},
		{"PushBlob", func() error { return registry.PushBlob(ctx, s, "a", d, strings.NewReader("data")) }},
		{"PushBlob_large", func() error {
			large := strings.Repeat("x", 40<<20)
			return registry.PushBlob(ctx, s, "a", digest.FromString(large), strings.NewReader(large))
		}},
		{"ResumeUpload", func() error { _, err := s.ResumeUpload(ctx, "a", "id"); return err }},
		{"UploadSize", func() error { _, err := s.UploadSize(ctx, "a", "id"); return err }},
		{"CancelUpload", func() error { return s.CancelUpload(ctx, "a", "id") }},
		{"Commit", func() error { return lease.Commit(ctx, d) }},
		{"GetManifest", func() error { _, err := s.GetManifest(ctx, "a", m.Digest); return err }},
		{"GetTag", func() error { _, err := s.GetTag(ctx, "a", "tag"); return err }},
		{"PutManifest", func() error { return s.PutManifest(ctx, "a", m, []string{"tag"}, nil) }},
		{"DeleteManifest", func() error { return s.DeleteManifest(ctx, "a", m.Digest) }},
		{"DeleteTag", func() error { return s.DeleteTag(ctx, "a", "tag", nil) }},
		{"Manifests", func() error { _, err := collect(s.Manifests(ctx, "a", "")); return err }},
		{"Tags", func() error { _, err := collect(s.Tags(ctx, "a", "")); return err }},
		{"Referrers", func() error { _, err := collect(s.Referrers(ctx, "a", d, "")); return err }},
		{"Repositories", func() error { _, err := collect(s.Repositories(ctx, "")); return err }},
		{"GC", func() error { _, err := s.GC(ctx, bucket.GCOptions{}); return err }},
	}
	concurrently(len(ops), func(i int) {
		op := ops[i]
		began := time.Now()
		err := op.do()
		t.Logf("%s: %v", op.name, time.Since(began).Round(time.Millisecond))
		if e := (*registry.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %v", op.name, err)
			return
		}
		if strings.Contains(err.Error(), "127.") || strings.Contains(err.Error(), "blobs/") {
			t.Errorf("%s reveals details of the bucket: %v", op.name, err)
		}
	})
	err := lease.Close()
	if !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Close: %v", err)
	}
}

// openAll returns an upload with data and a reader of a blob.
func openAll(t *testing.T, s *bucket.Store) (registry.Upload, io.Reader) {
	t.Helper()
	d := push(t, s, "a", "data")
	content, err := s.OpenBlob(t.Context(), "a", d)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { content.Close() })
	lease, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = lease.ReadFrom(strings.NewReader("data"))
	qt.Assert(t, qt.IsNil(err))
	return lease, content
}

// TestDeadBucket kills the server of the bucket.
func TestDeadBucket(t *testing.T) {
	t.Parallel()
	server := miniotest.Start(t)
	var reported atomic.Int64
	s := open(t, server.URL(t), &bucket.Options{OnError: func(error) { reported.Add(1) }})
	lease, content := openAll(t, s)
	server.Kill(0)
	wantUnavailable(t, s, lease, content)
	qt.Assert(t, qt.IsTrue(reported.Load() > 0))
}

// TestHangingBucket uses a bucket that accepts connections and never responds.
func TestHangingBucket(t *testing.T) {
	t.Parallel()
	s, p := withProxy(t, &bucket.Options{Timeout: time.Second})
	lease, content := openAll(t, s)
	hang := make(chan struct{})
	defer close(hang)
	p.to.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
		return nil, errors.New("no response")
	})
	wantUnavailable(t, s, lease, content)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestPortsOfS3 connects to a closed port whose number contains 301: the Go CDK
// reports that error as "not found".
func TestPortsOfS3(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:30199")
	if err != nil {
		t.Skip("the port is in use")
	}
	l.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	s := open(t, "s3://name?region=us-east-1&use_path_style=true&endpoint=http://127.0.0.1:30199", nil)
	_, err = s.GetManifest(t.Context(), "a", digest.FromString("m"))
	qt.Assert(t, qt.ErrorIs(err, error(registry.ErrUnavailable)))
}

// TestNoBucket uses a bucket that does not exist, which must not look like an
// empty registry.
func TestNoBucket(t *testing.T) {
	server := miniotest.Start(t)
	s := open(t, server.URLAt("no-such-bucket", server.Address(0)), nil)
	_, err := s.GetManifest(t.Context(), "a", digest.FromString("m"))
	qt.Assert(t, qt.ErrorMatches(err, ".*NoSuchBucket.*"))
	_, err = collect(s.Repositories(t.Context(), ""))
	qt.Assert(t, qt.ErrorMatches(err, ".*NoSuchBucket.*"))
	err = s.PutManifest(t.Context(), "a", manifest("m"), []string{"tag"}, nil)
	qt.Assert(t, qt.ErrorMatches(err, ".*NoSuchBucket.*"))
	qt.Assert(t, qt.ErrorMatches(s.Check(t.Context()), "the bucket no-such-bucket does not exist"))
}

// fullBucket is a bucket on a full disk.
type fullBucket struct{ objects.Bucket }

var errFull = fmt.Errorf("%w: write /secret: no space left on device", objects.ErrFull)

func (fullBucket) Put(context.Context, string, []byte, objects.Condition) (string, error) {
	return "", errFull
}

func (fullBucket) NewWriter(context.Context, string) objects.Writer { return fullWriter{} }

type fullWriter struct{}

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }
func (fullWriter) Close() error              { return errFull }
func (fullWriter) Abort()                    {}

// TestFullBucket pushes to a bucket on a full disk: clients get 413, since the same
// push won't succeed soon, and the operator gets the cause.
func TestFullBucket(t *testing.T) {
	b := openObjects(t)
	var reported atomic.Int64
	s := bucket.NewOn(fullBucket{b}, &bucket.Options{OnError: func(err error) {
		qt.Check(t, qt.ErrorIs(err, objects.ErrFull))
		reported.Add(1)
	}})
	defer s.Close()
	large := strings.Repeat("x", 20<<20)
	for _, err := range []error{
		registry.PushBlob(t.Context(), s, "a", digest.FromString("data"), strings.NewReader("data")),
		registry.PushBlob(t.Context(), s, "a", digest.FromString(large), strings.NewReader(large)),
		s.PutManifest(t.Context(), "a", manifest("m"), []string{"tag"}, nil),
	} {
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrTooLarge)))
		qt.Check(t, qt.ErrorMatches(err, ".*: the bucket's disk is full"))
	}
	qt.Check(t, qt.IsTrue(reported.Load() >= 3))
}

// TestLostResponses loses the response to each write once: the SDK writes again,
// and the condition of the write no longer holds.
func TestLostResponses(t *testing.T) {
	t.Parallel()
	s, p := withProxy(t, nil)
	var seen sync.Map
	p.setFaults(func(r *http.Request) fault {
		if r.Method != http.MethodPut {
			return none
		}
		if _, again := seen.LoadOrStore(r.URL.Path, true); again {
			return none
		}
		return lostResponse
	})
	create := func(tag string, current digest.Digest) error {
		if current != "" {
			return registry.ErrDenied
		}
		return nil
	}
	qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", manifest("m"), []string{"one", "two"}, create)))
	seen.Clear()
	qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", manifest("n"), []string{"one", "two"}, func(string, digest.Digest) error { return nil })))
	m, err := s.GetTag(t.Context(), "a", "two")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(m.Digest, manifest("n").Digest))

	seen.Clear()
	u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{ID: "mine"})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))
	for _, chunk := range []string{"one ", "two "} {
		seen.Clear()
		u, err = s.ResumeUpload(t.Context(), "a", "mine")
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(strings.NewReader(chunk))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(u.Close()))
	}
	seen.Clear()
	u, err = s.ResumeUpload(t.Context(), "a", "mine")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Commit(t.Context(), digest.FromString("one two "))))
	qt.Assert(t, qt.IsNil(u.Close()))
	wantBlob(t, s, "a", digest.FromString("one two "))
}

// TestDownloadResumes breaks the connection of a download several times.
func TestDownloadResumes(t *testing.T) {
	s, p := withProxy(t, nil)
	d := push(t, s, "a", strings.Repeat("0123456789abcde", 200_000))
	var cuts atomic.Int64
	p.setFaults(func(r *http.Request) fault {
		if !strings.Contains(r.URL.Path, "/data/") || cuts.Add(1) > 5 {
			return none
		}
		return cutResponse
	})
	wantBlob(t, s, "a", d)
	qt.Assert(t, qt.Equals(cuts.Load(), 6))
}

// TestUploadSurvives makes the bucket fail while chunks arrive and while the upload
// is committed: the session stays unchanged and can be resumed.
func TestUploadSurvives(t *testing.T) {
	t.Parallel()
	s, p := withProxy(t, nil)
	u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("one "))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))

	failWrites := func(in string) {
		p.setFaults(func(r *http.Request) fault {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, in) {
				return overloaded
			}
			return none
		})
	}
	for _, in := range []string{"/part-", "/state"} {
		u, err = s.ResumeUpload(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(strings.NewReader("two"))
		qt.Assert(t, qt.IsNil(err))
		failWrites(in)
		qt.Assert(t, qt.ErrorIs(u.Close(), error(registry.ErrUnavailable)))
		p.setFaults(nil)
		size, err := s.UploadSize(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(size, 4))
	}
	d := digest.FromString("one two")
	for _, in := range []string{"/state", "/data/", "/links/", "/_blobs/"} {
		u, err = s.ResumeUpload(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(strings.NewReader("two"))
		qt.Assert(t, qt.IsNil(err))
		failWrites(in)
		qt.Assert(t, qt.ErrorIs(u.Commit(t.Context(), d), error(registry.ErrUnavailable)), qt.Commentf("%s", in))
		p.setFaults(nil)
		qt.Assert(t, qt.IsNil(u.Rollback()))
		qt.Assert(t, qt.IsNil(u.Close()))
		size, err := s.UploadSize(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(size, 4))
	}
	u, err = s.ResumeUpload(t.Context(), "a", u.ID())
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("two"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Commit(t.Context(), d)))
	qt.Assert(t, qt.IsNil(u.Close()))
	wantBlob(t, s, "a", d)
}

// TestCluster runs two replicas on different nodes of an erasure-coded cluster,
// and kills a third node.
func TestCluster(t *testing.T) {
	t.Parallel()
	server := miniotest.StartCluster(t, 4)
	first := server.URL(t)
	name := strings.TrimPrefix(first[:strings.Index(first, "?")], "s3://")
	s, other := open(t, first, nil), open(t, server.URLAt(name, server.Address(1)), nil)
	one := push(t, s, "a", "one")
	wantBlob(t, other, "a", one)
	qt.Assert(t, qt.IsNil(other.PutManifest(t.Context(), "a", manifest("m"), []string{"tag"}, nil)))
	server.Kill(3)
	two := push(t, other, "a", strings.Repeat("two", 1<<20))
	for _, s := range []*bucket.Store{s, other} {
		wantBlob(t, s, "a", one)
		wantBlob(t, s, "a", two)
		m, err := s.GetTag(t.Context(), "a", "tag")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(m.Digest, manifest("m").Digest))
	}
}

// TestCancelledRequest cancels a request, which does not count as a failure of the
// bucket.
func TestCancelledRequest(t *testing.T) {
	var reported atomic.Int64
	s := open(t, miniotest.Start(t).URL(t), &bucket.Options{OnError: func(error) { reported.Add(1) }})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.GetManifest(ctx, "a", digest.FromString("m"))
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
	qt.Assert(t, qt.Equals(reported.Load(), 0))
}

// TestHangingReadBeforeReplace deletes a manifest. The response to the first write is
// lost, and another replica pushes the manifest meanwhile. So the second write needs
// the version of the first, and the bucket hangs when it is read.
func TestHangingReadBeforeReplace(t *testing.T) {
	t.Parallel()
	slow, p := withProxy(t, &bucket.Options{Timeout: time.Second})
	s := open(t, p.direct, nil)
	m := manifest("m")
	push := func() { qt.Check(t, qt.IsNil(s.PutManifest(t.Context(), "a", m, nil, nil))) }
	push()
	var writes, reads atomic.Int32
	p.setFaults(func(r *http.Request) fault {
		if !strings.Contains(r.URL.Path, "/_manifests/") {
			return none
		}
		switch {
		case r.Method == http.MethodPut && writes.Add(1) == 1:
			p.to.ServeHTTP(httptest.NewRecorder(), r)
			push()
			return overloaded
		case r.Method == http.MethodGet && writes.Load() > 0 && reads.Add(1) > 1:
			<-r.Context().Done()
		}
		return none
	})
	qt.Assert(t, qt.ErrorIs(slow.DeleteManifest(t.Context(), "a", m.Digest), error(registry.ErrUnavailable)))
	qt.Assert(t, qt.Equals(writes.Load(), 1))
}
