// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// TestRemoveRepeated deletes what the command line names in several ways, and checks
// that a dry run says the same.
func TestRemoveRepeated(t *testing.T) {
	for _, names := range []string{"app:v1 app:v1", "app@DIGEST app:v1", "app:v1 app@DIGEST", "app@DIGEST app@DIGEST"} {
		s := new(registry.MemStore)
		d := pushManifest(t, s, "app", "text/plain", "x", "", "v1")
		var refs []ref
		for _, name := range strings.Fields(strings.ReplaceAll(names, "DIGEST", d.String())) {
			r, err := parseRef(name)
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, r)
		}
		var would, did bytes.Buffer
		dry := &remover{store: s, w: &would, dryRun: true}
		if err := dry.removeAll(t.Context(), refs); err != nil {
			t.Fatal(err)
		}
		m := &remover{store: s, w: &did}
		if err := m.removeAll(t.Context(), refs); err != nil {
			t.Errorf("%s: %v", names, err)
		}
		if want := strings.ReplaceAll(would.String(), "would delete", "deleted"); did.String() != want {
			t.Errorf("%s:\n%swant\n%s", names, &did, want)
		}
	}
}
