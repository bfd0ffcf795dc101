// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/ocidir"
)

// FuzzIndex serves layouts with arbitrary index.json files and content. Whatever
// the index says, served content must match its digest.
func FuzzIndex(f *testing.F) {
	const manifest = `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]}`
	d := digest.FromString(manifest).String()
	for _, index := range []string{
		`{}`,
		`{"manifests":[{}]}`,
		`{"manifests":[{"digest":"sha256:x"},{"digest":"` + d + `","annotations":{"org.opencontainers.image.ref.name":"a:tag"}}]}`,
		`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + d + `","size":1},{"digest":"` + d + `","annotations":{"org.opencontainers.image.ref.name":"tag"}}]}`,
		`{"manifests":[{"digest":"` + d + `","annotations":{"io.github.berth-oci.referrers":"` + d + `"}},{"digest":"` + d + `","annotations":{"io.github.berth-oci.blob":"true"}}]}`,
		`{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + d + `","annotations":{"org.opencontainers.image.ref.name":"sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}]}`,
		`[]`,
	} {
		f.Add(index, manifest)
	}
	f.Fuzz(func(t *testing.T, index, content string) {
		d := digest.FromString(content)
		s := ocidir.FS(fstest.MapFS{
			"a/index.json":                  {Data: []byte(index)},
			"a/blobs/sha256/" + d.Encoded(): {Data: []byte(content)},
			"a/blobs/sha256/44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a": {Data: []byte("{}")},
		})
		ctx := context.Background()
		for tag, err := range s.Tags(ctx, "a", "") {
			if err != nil {
				return
			}
			m, err := s.GetTag(ctx, "a", tag)
			signed := strings.Contains(m.MediaType, "prettyjws") // its digest is that of the payload
			if err != nil || !signed && digest.FromBytes(m.Content) != m.Digest {
				t.Fatalf("%s: %s, %v", tag, m.Digest, err)
			}
		}
		if m, err := s.GetManifest(ctx, "a", d); err == nil && string(m.Content) != content {
			t.Fatalf("%s is %q", d, m.Content)
		}
		for _, err := range s.Referrers(ctx, "a", d, "") {
			if err != nil {
				t.Fatal(err)
			}
		}
		isBlob := false
		if r, err := s.OpenBlob(ctx, "a", d); err == nil {
			isBlob = true
			r.Close()
		}
		for info, err := range s.Blobs(ctx, "a", "") {
			if err != nil || info.Digest == d && !isBlob {
				t.Fatalf("Blobs: %v, %v", info, err)
			}
		}
		for info, err := range s.Manifests(ctx, "a", "") {
			if err != nil {
				t.Fatalf("Manifests: %v, %v", info, err)
			}
		}
	})
}
