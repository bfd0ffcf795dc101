// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"flag"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

var installFlag = flag.Bool("install", false, "install the published modules; this downloads all their dependencies")

// repository returns the root of the checkout.
func repository(t *testing.T) string {
	t.Helper()
	repo, err := findRepository()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("not in a git checkout: %v", err)
	}
	return repo
}

// TestProxy checks the zip files of the modules that users install.
func TestProxy(t *testing.T) {
	proxy := t.TempDir()
	version, err := writeProxy(repository(t), proxy)
	qt.Assert(t, qt.IsNil(err))
	for _, folder := range published {
		m := path.Join(rootModule, folder)
		z, err := zip.OpenReader(filepath.Join(proxy, filepath.FromSlash(m), "@v", version+".zip"))
		qt.Assert(t, qt.IsNil(err))
		defer z.Close()
		var names []string
		for _, f := range z.File {
			name, ok := strings.CutPrefix(f.Name, m+"@"+version+"/")
			qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s", f.Name))
			names = append(names, name)
		}
		qt.Check(t, qt.SliceContains(names, "LICENSE"), qt.Commentf("%s", m))
		qt.Check(t, qt.SliceContains(names, "go.mod"), qt.Commentf("%s", m))
		for _, name := range names {
			if folder == "" && (strings.HasPrefix(name, "bucket/") || strings.HasPrefix(name, "tokens/") || strings.HasPrefix(name, "observe/") || strings.HasPrefix(name, "mirror/") || strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "interop/")) {
				t.Errorf("%s has %s, which belongs to another module", m, name)
			}
		}
	}
}

// TestCheckModule checks that modules that can't be installed are rejected.
func TestCheckModule(t *testing.T) {
	const (
		head    = "module github.com/berth-oci/registry/bucket\n\n"
		require = "require github.com/berth-oci/registry v0.3.0\n"
	)
	version, err := checkModule("bucket", []byte(head+require), "")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(version, "v0.3.0"))

	_, err = checkModule("bucket", []byte(head+require), "v0.2.0")
	qt.Check(t, qt.ErrorMatches(err, ".*requires github.com/berth-oci/registry@v0.3.0, but another module is required at v0.2.0"))
	_, err = checkModule("bucket", []byte(head+require+"replace github.com/berth-oci/registry => ..\n"), "")
	qt.Check(t, qt.ErrorMatches(err, ".*replace.*"))
	_, err = checkModule("cmd/berth", []byte(head), "")
	qt.Check(t, qt.ErrorMatches(err, ".*want github.com/berth-oci/registry/cmd/berth"))
}

// TestInstall installs the command and gets the libraries like a user after a
// release: with an empty module cache, in an empty folder.
func TestInstall(t *testing.T) {
	if !*installFlag {
		t.Skip("not run without -install: it downloads and compiles all dependencies of the modules")
	}
	repo := repository(t)
	proxy := t.TempDir()
	version, err := writeProxy(repo, proxy)
	qt.Assert(t, qt.IsNil(err))
	g, err := newGoCommand(t.TempDir(), proxy, false)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(g.clean())) })

	t.Run("command", func(t *testing.T) {
		start := time.Now()
		berth, err := g.install(version, runtime.GOOS, runtime.GOARCH)
		qt.Assert(t, qt.IsNil(err))
		t.Logf("go install took %.0f s", time.Since(start).Seconds())
		out, err := exec.Command(berth, "version").Output()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(out), "berth "+version+" "+goVersion(t)+"\n"))
		serve(t, exec.Command(berth, "serve"), t.TempDir(), "")
	})
	t.Run("library", func(t *testing.T) {
		start := time.Now()
		dir := t.TempDir()
		program, err := os.ReadFile("testdata/user/main.go")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "main.go"), program, 0o644)))
		for _, args := range [][]string{
			{"mod", "init", "example.com/user"},
			{"get", rootModule + "@" + version, rootModule + "/bucket@" + version, rootModule + "/tokens@" + version, rootModule + "/observe@" + version, rootModule + "/mirror@" + version},
		} {
			_, err := g.run(dir, args...)
			qt.Assert(t, qt.IsNil(err))
		}
		out, err := g.run(dir, "run", "-trimpath", ".")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(out, "201 Created\n"))
		t.Logf("go get and go run took %.0f s", time.Since(start).Seconds())
	})
}

// goVersion returns the release of the go command.
func goVersion(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOVERSION").Output()
	qt.Assert(t, qt.IsNil(err))
	return strings.TrimSpace(string(out))
}

// serve starts cmd, which is berth serve, on a free port until the test ends, and
// checks that it serves a request. The command's own path for the folder dir is
// seen.
func serve(t *testing.T, cmd *exec.Cmd, dir, seen string) {
	t.Helper()
	if seen == "" {
		seen = dir
	}
	cmd.Args = append(cmd.Args, "--addr=127.0.0.1:0", "--addr-file="+path.Join(filepath.ToSlash(seen), "addr"))
	var log strings.Builder
	cmd.Stderr = &log
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		addr, err := os.ReadFile(filepath.Join(dir, "addr"))
		if err == nil {
			resp, err := http.Get("http://" + strings.TrimSpace(string(addr)) + "/v2/")
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Check(t, qt.Equals(resp.StatusCode, http.StatusOK))
			return
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("berth serve did not start: %s", &log)
		}
	}
}
