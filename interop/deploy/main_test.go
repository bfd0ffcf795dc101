// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// files is the folder of the files.
const files = "../../deploy"

// program returns the path of a program, and skips the test if it is not installed.
func program(t *testing.T, name, install string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed: %s", name, install)
	}
	return path
}

// serves starts the registry as a container with args does, except that it has a folder
// instead of the volume, and checks that it is ready and requires users if it shall.
func serves(t *testing.T, args []string, users bool) {
	t.Helper()
	dir := t.TempDir()
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "users"), []byte("alice:$2y$04$7KJpvLPiyzlJWPnjgBJaKO5tM7FJgjjjwTtNSHsb5y2GzTOWtUOKm\n"), 0o600)))
	qt.Assert(t, qt.Equals(args[0], "serve"))
	qt.Assert(t, qt.SliceContains(args, "--addr=0.0.0.0:5000")) // replaced by a free port
	args = slices.DeleteFunc(slices.Clone(args[1:]), func(arg string) bool { return arg == "--addr=0.0.0.0:5000" })
	replacer := strings.NewReplacer("dir:/data", "dir:"+dir+"/data", "/etc/berth", dir, "$(STORE)", "file://"+dir+"/bucket?create_dir=true")
	for i, arg := range args {
		args[i] = replacer.Replace(arg)
	}
	s := berth.Serve(t, args...)
	ping := 200
	if users {
		ping = 401
	}
	for path, want := range map[string]int{"/readyz": 200, "/healthz": 200, "/v2/": ping} {
		resp, err := http.Get(fmt.Sprintf("http://%s%s", s.Addr, path))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, want), qt.Commentf("%s", path))
	}
}
