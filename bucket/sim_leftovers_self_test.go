// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"maps"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestLeftovers checks the check of the objects that remain.
func TestLeftovers(t *testing.T) {
	const (
		uuid    = "01234567-89ab-4def-8123-456789abcdef"
		live    = "a b c d e f g h i j k l m n o p\n"
		deleted = "a b c d e f g h\n"
	)
	valid := map[string][]byte{
		"names/b.c":                                  []byte(live + "stays"),
		"repos/b/c/_blobs/sha256/01":                 []byte(live + `{"id":"i","data":"d","size":1}`),
		"blobs/sha256/01/data/d":                     []byte("x"),
		"blobs/sha256/01/links/d/i/b/c":              nil,
		"repos/b/c/_manifests/sha256/02":             []byte(live + "{\"incarnation\":\"n\"}\n{\"subject\":{\"digest\":\"sha256:03\"}}"),
		"repos/b/c/_referrers/sha256/03/sha256/02/n": nil,
		"repos/b/c/_packs/sha256/03/p":               nil,
		"repos/b/c/_tags/latest":                     []byte(live + "sha256:02 n w"),
		"repos/b/c/_tagged/sha256/02/n/w/latest":     nil,
	}
	qt.Assert(t, qt.HasLen(checkLeftovers(valid, true), 0))
	for key := range valid {
		if key == "repos/b/c/_packs/sha256/03/p" {
			continue
		}
		without := maps.Clone(valid)
		delete(without, key)
		qt.Check(t, qt.Not(qt.HasLen(checkLeftovers(without, true), 0)), qt.Commentf("without %s", key))
	}
	for key, data := range map[string]string{
		"names/other":                                live + "stays",
		"uploads/b.c/_i/state":                       "{}",
		"check/" + uuid:                              "",
		"blobs/sha256/01/condemned/e":                "",
		"blobs/sha256/01/data/e":                     "x",
		"blobs/sha256/01/links/d/j/b/c":              "",
		"repos/b/c/_blobs/sha256/04":                 deleted,
		"repos/b/c/_tags/old":                        live + "sha256:02 m v",
		"repos/b/c/_tagged/sha256/02/n/v/old":        "",
		"repos/b/c/_referrers/sha256/03/sha256/02/m": "",
		"repos/b/c/_packs/sha256/04/p":               "",
		"other":                                      "",
	} {
		with := maps.Clone(valid)
		with[key] = []byte(data)
		qt.Check(t, qt.Not(qt.HasLen(checkLeftovers(with, true), 0)), qt.Commentf("with %s", key))
	}
	valid["repos/b/c/_blobs/sha256/04"] = []byte(deleted)
	qt.Assert(t, qt.HasLen(checkLeftovers(valid, false), 0))
}
