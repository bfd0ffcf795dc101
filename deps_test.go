// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestDependencies checks that this module depends on the standard library,
// go-digest and image-spec, and nothing else. Code that needs more belongs in a
// nested module.
func TestDependencies(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command")
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(goTool, args...)
		cmd.Env = append(cmd.Environ(), "GOWORK=off")
		out, err := cmd.Output()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("go %v", args))
		return string(out)
	}

	modules := []string{"github.com/berth-oci/registry", "github.com/opencontainers/go-digest", "github.com/opencontainers/image-spec"}
	for _, pkg := range strings.Fields(run("list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./...")) {
		if !slices.ContainsFunc(modules, func(m string) bool { return pkg == m || strings.HasPrefix(pkg, m+"/") }) {
			t.Errorf("the root module must not depend on %s: users of the library would have to, too", pkg)
		}
	}
	for _, pkg := range strings.Fields(run("list", "-deps", ".")) {
		if pkg == "net/http/httptest" || pkg == "testing" {
			t.Errorf("the root package must not import %s: it adds flags to each program that links it", pkg)
		}
	}

	var mod struct {
		Go      string
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(run("mod", "edit", "-json")), &mod)))
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	qt.Check(t, qt.ContentEquals(direct, append(modules[1:], "github.com/go-quicktest/qt")))
	qt.Check(t, qt.Equals(mod.Go, "1.24"))
}
