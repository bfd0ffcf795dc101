// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestSeedDoesNotLinkTesting checks that programs can use the package: package
// testing would add its flags to theirs.
func TestSeedDoesNotLinkTesting(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the program go is missing")
	}
	out, err := exec.Command(goTool, "list", "-deps", ".").Output()
	qt.Assert(t, qt.IsNil(err))
	deps := strings.Fields(string(out))
	qt.Assert(t, qt.IsTrue(slices.Contains(deps, "github.com/berth-oci/registry")))
	for _, pkg := range []string{"testing", "net/http/httptest", "flag"} {
		qt.Check(t, qt.IsFalse(slices.Contains(deps, pkg)), qt.Commentf("%s", pkg))
	}
}
