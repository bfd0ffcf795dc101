// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/go-quicktest/qt"
)

// TestCompose loads the Compose file, checks it against the schema, and starts berth
// with its arguments.
func TestCompose(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{files + "/compose.yaml"})
	qt.Assert(t, qt.IsNil(err))
	project, err := options.LoadProject(t.Context())
	qt.Assert(t, qt.IsNil(err))
	s, err := project.GetService("berth")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(s.ReadOnly))
	qt.Check(t, qt.Equals(s.User, "65532:65532"))
	qt.Check(t, qt.DeepEquals(s.CapDrop, []string{"ALL"}))
	qt.Check(t, qt.Matches(s.Image, `ghcr\.io/berth-oci/berth:v.+`))
	for _, p := range s.Ports {
		qt.Check(t, qt.Equals(p.HostIP, "127.0.0.1")) // there are no users
	}
	serves(t, s.Command, false)
}
