// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

const rootModule = "github.com/berth-oci/registry"

// published lists the folders of the modules that users install. All have the
// same version.
var published = []string{"", "bucket", "tokens", "observe", "mirror", "cmd/berth"}

// writeProxy writes a file-system module proxy to dir that holds the published
// modules of the last commit of repo. It returns the version at which they require
// each other.
//
// It leaves out uncommitted files, since a release must not depend on them.
func writeProxy(repo, dir string) (version string, err error) {
	mods := make(map[string][]byte)
	for _, folder := range published {
		data, err := git(repo, "show", "HEAD:"+path.Join(folder, "go.mod"))
		if err != nil {
			return "", err
		}
		mods[folder] = data
		if version, err = checkModule(folder, data, version); err != nil {
			return "", err
		}
	}
	if version == "" {
		return "", errors.New("no module requires another, so the version is unknown")
	}
	committed, err := commitTime(repo)
	if err != nil {
		return "", err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{version, committed})
	if err != nil {
		return "", err
	}
	// Package zip rejects git worktrees, and repo may be one.
	tmp, err := os.MkdirTemp("", "berth-clone-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := git(tmp, "clone", "--quiet", "--shared", "--no-checkout", repo, "."); err != nil {
		return "", err
	}
	for _, folder := range published {
		versions := filepath.Join(dir, filepath.FromSlash(path.Join(rootModule, folder)), "@v")
		if err := os.MkdirAll(versions, 0o755); err != nil {
			return "", err
		}
		for name, data := range map[string][]byte{
			"list":            []byte(version + "\n"),
			version + ".info": info,
			version + ".mod":  mods[folder],
		} {
			if err := os.WriteFile(filepath.Join(versions, name), data, 0o644); err != nil {
				return "", err
			}
		}
		if err := writeZip(tmp, folder, version, filepath.Join(versions, version+".zip")); err != nil {
			return "", fmt.Errorf("%s: %w", path.Join(rootModule, folder), err)
		}
	}
	return version, nil
}

// checkModule rejects go.mod files of modules that can't be installed. It returns
// the version at which the file requires the other modules, which must be version
// unless that is empty.
func checkModule(folder string, data []byte, version string) (string, error) {
	name := path.Join(folder, "go.mod")
	f, err := modfile.Parse(name, data, nil)
	if err != nil {
		return "", err
	}
	if want := path.Join(rootModule, folder); f.Module.Mod.Path != want {
		return "", fmt.Errorf("%s: module %s, want %s", name, f.Module.Mod.Path, want)
	}
	if len(f.Replace) > 0 || len(f.Exclude) > 0 {
		return "", fmt.Errorf("%s: go install rejects modules with replace or exclude directives", name)
	}
	for _, r := range f.Require {
		if r.Mod.Path != rootModule && !strings.HasPrefix(r.Mod.Path, rootModule+"/") {
			continue
		}
		if version == "" {
			version = r.Mod.Version
		}
		if r.Mod.Version != version {
			return "", fmt.Errorf("%s: requires %s, but another module is required at %s", name, r.Mod, version)
		}
	}
	return version, nil
}

// writeZip writes the zip file of a module. Public proxies use the same code: it
// leaves out nested modules, and adds the repository's license to a module without
// its own.
func writeZip(repo, folder, version, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	m := module.Version{Path: path.Join(rootModule, folder), Version: version}
	if err := zip.CreateFromVCS(f, m, repo, "HEAD", folder); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// findRepository returns the root of the checkout around the working directory.
func findRepository() (string, error) {
	out, err := git(".", "rev-parse", "--show-toplevel")
	return filepath.FromSlash(strings.TrimSpace(string(out))), err
}

// commitTime returns the time of the last commit.
func commitTime(repo string) (time.Time, error) {
	out, err := git(repo, "log", "-1", "--format=%cI")
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(string(out)))
	return t.UTC(), err
}

func git(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	return output(cmd)
}

// output runs cmd and returns its standard output. The error includes its standard
// error.
func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return out, fmt.Errorf("%s: %w\n%s", cmd, err, exit.Stderr)
	}
	return out, err
}
