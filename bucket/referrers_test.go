// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// changingBucket returns one of two versions of a manifest, and keeps the keys of the
// entries of referrers that are written.
type changingBucket struct {
	objects.Bucket
	versions [][]byte
	entries  []string
}

func (b *changingBucket) Get(ctx context.Context, key string, offset, n int64) (*objects.Reader, error) {
	if len(b.versions) < 2 || !strings.Contains(key, "/_manifests/") {
		return b.Bucket.Get(ctx, key, offset, n)
	}
	data := b.versions[rand.IntN(2)]
	return &objects.Reader{ReadCloser: io.NopCloser(bytes.NewReader(data)), Object: objects.Object{Size: int64(len(data))}}, nil
}

func (b *changingBucket) Put(ctx context.Context, key string, data []byte, c objects.Condition) (string, error) {
	if strings.Contains(key, "/_referrers/") {
		b.entries = append(b.entries, key)
	}
	return b.Bucket.Put(ctx, key, data, c)
}

// TestReferrerPushedAgain lists referrers while one is deleted and pushed again. It has two
// entries, each of which is true when it is read, but must be listed once.
func TestReferrerPushedAgain(t *testing.T) {
	ctx := t.Context()
	b := &changingBucket{Bucket: openObjects(t)}
	s := bucket.NewOn(b, nil)
	defer s.Close()
	m := manifest("signature")
	m.Subject = digest.FromString("subject")
	m.Referrer = registry.Referrer{Digest: m.Digest, ArtifactType: "x/y", Descriptor: []byte("{}")}
	var versions [][]byte
	for range 2 {
		qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", m, nil, nil)))
		r, err := b.Get(ctx, bucket.ManifestKey("a", m.Digest), 0, -1)
		qt.Assert(t, qt.IsNil(err))
		data, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		r.Close()
		versions = append(versions, data)
		if len(versions) == 1 {
			qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest)))
		}
	}
	qt.Assert(t, qt.HasLen(b.entries, 2))
	_, err := b.Put(ctx, b.entries[0], nil, objects.Condition{}) // it is deleted after the manifest
	qt.Assert(t, qt.IsNil(err))
	b.versions = versions
	most := 0
	for range 100 {
		n := 0
		for r, err := range s.Referrers(ctx, "a", m.Subject, "") {
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(r.Digest, m.Digest))
			n++
		}
		most = max(most, n)
	}
	qt.Check(t, qt.Equals(most, 1))
}
