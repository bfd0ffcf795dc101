// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/retention"
)

// TestCollectDamaged collects a repository in which the file of a tagged manifest is damaged:
// its blobs must be there when it is pushed again.
func TestCollectDamaged(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	open := func() *ocidir.Store {
		s, err := ocidir.Open(dir, nil)
		qt.Assert(t, qt.IsNil(err))
		return s
	}
	s := open()
	config := digest.FromString("config")
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", config, strings.NewReader("config"))))
	push := registry.ManifestPush{
		MediaType: ocispec.MediaTypeImageManifest,
		Content:   fmt.Appendf(nil, `{"config":{"mediaType":"x/y","digest":%q,"size":6},"layers":[]}`, config),
		Tags:      []string{"t"},
	}
	m, err := registry.PushManifest(ctx, s, "a", push)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.Close())) // writes what is in the journal to its files

	file := func(d digest.Digest) string { return filepath.Join(dir, "a", "blobs", "sha256", d.Encoded()) }
	qt.Assert(t, qt.IsNil(os.Truncate(file(m.Digest), 10)))
	old := time.Now().Add(-time.Hour)
	qt.Assert(t, qt.IsNil(os.Chtimes(file(config), old, old)))
	s = open()
	defer s.Close()
	report, err := retention.Collect(ctx, s, retention.Options{Grace: -1})
	qt.Check(t, qt.ErrorMatches(err, `repository a: manifest sha256:\w+ is damaged: .*`))
	qt.Check(t, qt.Equals(report.Blobs, 0))

	_, err = registry.PushManifest(ctx, s, "a", push)
	qt.Assert(t, qt.IsNil(err))
	report, err = retention.Collect(ctx, s, retention.Options{Grace: -1})
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report.Blobs, 0))
}
