// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// TestPlainEntries compares entries of an index.json with those of package json.
func TestPlainEntries(t *testing.T) {
	d := digest.FromString("x")
	for _, mediaType := range []string{"text/plain", "application/vnd.oci.image.manifest.v1+json", "a/b; c='<&>'"} {
		for _, tag := range []string{"", "tag", "v1.0-x_y", "sha256-" + strings.Repeat("a", 64)} {
			for _, isBlob := range []bool{false, true} {
				got := appendEntry(nil, mediaType, d, 123, tag, isBlob)
				// A media type that differs in JSON goes another way.
				want := appendEntry(nil, "\t", d, 123, tag, isBlob)
				qt.Check(t, qt.Equals(string(got), strings.Replace(string(want), `"\t"`, `"`+mediaType+`"`, 1)))
			}
		}
	}
}
