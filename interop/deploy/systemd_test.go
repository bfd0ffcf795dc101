// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestSystemd lets systemd verify the units, and rate how exposed the service is: from
// 0.0 to 10.0. It may be 1.5.
func TestSystemd(t *testing.T) {
	analyze := program(t, "systemd-analyze", "apt-get install systemd")
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	dir := t.TempDir()
	for _, name := range []string{"berth.service", "berth.socket"} {
		unit, err := os.ReadFile(filepath.Join(files, "systemd", name))
		qt.Assert(t, qt.IsNil(err))
		if name == "berth.service" {
			qt.Assert(t, qt.StringContains(string(unit), "ExecStart=/usr/local/bin/berth serve "))
		}
		text := strings.ReplaceAll(string(unit), "/usr/local/bin/berth", binary) // it must exist
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)))
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(analyze, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":") // : for systemd's own
		out, err := cmd.CombinedOutput()
		qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
		t.Logf("%s", out)
	}
	run("verify", "--man=no", "./berth.service", "./berth.socket")
	run("security", "--offline=yes", "--no-pager", "--threshold=15", "./berth.service")
}
