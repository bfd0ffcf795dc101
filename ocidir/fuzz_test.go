// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"context"
	"fmt"
	"hash/crc32"
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

// FuzzJournal serves a layout with an arbitrary journal, whose lines have the right
// checksums. Whatever it says, served content must match its digest.
func FuzzJournal(f *testing.F) {
	const content = "content"
	d := digest.FromString(content)
	base := digest.FromString(`{}`)
	for _, changes := range []string{
		``,
		`{"op":"push","digest":"` + d.String() + `","mediaType":"text/plain","size":7,"content":"Y29udGVudA==","tags":["tag"]}`,
		`{"op":"push","digest":"` + d.String() + `","tags":["tag"]},{"op":"untag","tags":["tag"]},{"op":"delete","digest":"` + d.String() + `"}`,
		`{"op":"keepBlob","digest":"` + d.String() + `"},{"op":"deleteBlob","digest":"` + d.String() + `"},{"op":"list","digest":"` + d.String() + `"}`,
		`{"op":"push","digest":"sha256:x"}`,
		`{"op":"other"}`,
	} {
		f.Add(`{"journal":1,"base":"`+base.String()+`"}`, `{"changes":[`+changes+`]}`, `{"fold":{"index":"`+base.String()+`","batches":1}}`)
	}
	f.Fuzz(func(t *testing.T, header, first, second string) {
		var journal []byte
		for _, data := range []string{header, first, second} {
			journal = fmt.Appendf(journal, "%08x %s\n", crc32.Checksum([]byte(data), crc32.MakeTable(crc32.Castagnoli)), data)
		}
		s := ocidir.FS(fstest.MapFS{
			"a/index.json":                  {Data: []byte(`{}`)},
			"a/.index.journal":              {Data: journal},
			"a/blobs/sha256/" + d.Encoded(): {Data: []byte(content)},
		})
		ctx := context.Background()
		for info, err := range s.Manifests(ctx, "a", "") {
			if err != nil {
				return
			}
			m, err := s.GetManifest(ctx, "a", info.Digest)
			signed := strings.Contains(m.MediaType, "prettyjws")
			if err == nil && !signed && info.Digest.Algorithm().FromBytes(m.Content) != info.Digest {
				t.Fatalf("%s is %q", info.Digest, m.Content)
			}
		}
		for tag, err := range s.Tags(ctx, "a", "") {
			if err != nil {
				t.Fatal(tag, err)
			}
		}
		for _, err := range s.Blobs(ctx, "a", "") {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}
