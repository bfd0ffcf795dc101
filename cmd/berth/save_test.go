// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// TestSaveDockerForeign checks that an image whose layers are elsewhere is not saved for
// docker load, which would reject it.
func TestSaveDockerForeign(t *testing.T) {
	s := new(registry.MemStore)
	conf := pushBlob(t, s, "app", `{"os":"windows","architecture":"amd64"}`)
	foreign := digest.FromString("elsewhere")
	content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":39},"layers":[{"mediaType":%q,"digest":%q,"size":9,"urls":["https://example.com"]}]}`,
		typeDockerManifest, typeDockerConfig, conf, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", foreign)
	pushManifest(t, s, "app", typeDockerManifest, content, "", "v1")
	for _, docker := range []bool{false, true} {
		saver := &saver{from: s, docker: docker, contents: make(map[digest.Digest]saved)}
		err := saver.add(t.Context(), ref{repo: "app", tag: "v1"})
		if err == nil {
			err = saver.prepare(t.Context())
		}
		if want := "app: the blob " + foreign.String() + " does not exist"; docker && (err == nil || err.Error() != want) || !docker && err != nil {
			t.Errorf("docker %v: %v", docker, err)
		}
	}
}
