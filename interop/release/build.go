// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// platforms lists the platforms of a release's binaries.
var platforms = []string{
	"linux/amd64", "linux/arm64",
	"darwin/amd64", "darwin/arm64",
	"windows/amd64", "windows/arm64",
}

// build writes the berth command for the given platforms, or for all, to dir as
// berth-GOOS-GOARCH, and their checksums as SHA256SUMS.
//
// It builds them with go install from a module proxy, not in the checkout, whose
// workspace selects other versions of dependencies. So anyone can build the same
// bytes with the same Go release:
//
//	CGO_ENABLED=0 go install -trimpath github.com/berth-oci/registry/cmd/berth@VERSION
func build(repo, dir string, targets []string) error {
	if len(targets) == 0 {
		targets = platforms
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "berth-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	proxy := filepath.Join(tmp, "proxy")
	version, err := writeProxy(repo, proxy)
	if err != nil {
		return err
	}
	g, err := newGoCommand(tmp, proxy, true)
	if err != nil {
		return err
	}
	defer g.clean()
	for _, target := range targets {
		goos, goarch, _ := strings.Cut(target, "/")
		installed, err := g.install(version, goos, goarch)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		name := "berth-" + goos + "-" + goarch + filepath.Ext(installed)
		if err := copyFile(filepath.Join(dir, name), installed); err != nil {
			return err
		}
		fmt.Println(name)
	}
	return writeSums(dir)
}

// copyFile copies a program.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// writeSums writes the checksums of the binaries in dir, as sha256sum -c reads
// them.
func writeSums(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "berth-*"))
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, name := range slices.Sorted(slices.Values(names)) {
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), filepath.Base(name))
	}
	return os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// goCommand runs the go command like a user without a checkout: with its own
// module cache, and outside any workspace.
type goCommand struct {
	gopath string
	env    []string
}

// newGoCommand returns a go command that keeps its module cache in the folder dir,
// since Berth's modules, which change with each commit, must never get into the
// user's. It downloads Berth's modules from proxy, and all others from the user's
// own proxy. If reuse is set, it also uses modules in the user's module cache.
//
// Like the binaries of a release, it does not use cgo, so that little is compiled
// twice.
func newGoCommand(dir, proxy string, reuse bool) (*goCommand, error) {
	out, err := output(exec.Command("go", "env", "GOPROXY", "GOCACHE", "GOMODCACHE", "GOSUMDB"))
	if err != nil {
		return nil, err
	}
	user := strings.Split(strings.ReplaceAll(string(out), "\r\n", "\n"), "\n")
	proxies := fileURL(proxy)
	if reuse {
		proxies += "," + fileURL(filepath.Join(user[2], "cache", "download"))
	}
	g := &goCommand{gopath: filepath.Join(dir, "gopath")}
	g.env = append(os.Environ(),
		"GOPATH="+g.gopath,
		"GOMODCACHE="+filepath.Join(g.gopath, "pkg", "mod"),
		"GOPROXY="+proxies+","+user[0],
		"GOCACHE="+user[1],
		"GOSUMDB="+user[3],
		"GONOSUMDB="+rootModule+","+rootModule+"/*", // the checksum database knows only released versions
		"GOPRIVATE=", "GONOPROXY=", "GOINSECURE=",
		"GOBIN=", "GOENV=off", "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0",
	)
	return g, nil
}

func fileURL(dir string) string {
	dir = filepath.ToSlash(dir)
	if !strings.HasPrefix(dir, "/") {
		dir = "/" + dir // a Windows drive
	}
	return "file://" + dir
}

// run runs the go command in dir, and returns its standard output.
func (g *goCommand) run(dir string, args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = dir, g.env
	out, err := output(cmd)
	return string(out), err
}

// install installs the berth command and returns its path.
//
// With -trimpath, the build cache identifies packages by their version, not by the
// folder of their source, so that builds with other module caches can share them.
func (g *goCommand) install(version, goos, goarch string) (string, error) {
	if err := os.MkdirAll(g.gopath, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "install", "-trimpath", rootModule+"/cmd/berth@"+version)
	cmd.Dir = g.gopath
	cmd.Env = append(slices.Clone(g.env), "GOOS="+goos, "GOARCH="+goarch)
	if _, err := output(cmd); err != nil {
		return "", err
	}
	bin := filepath.Join(g.gopath, "bin")
	if goos != runtime.GOOS || goarch != runtime.GOARCH {
		bin = filepath.Join(bin, goos+"_"+goarch)
	}
	if goos == "windows" {
		return filepath.Join(bin, "berth.exe"), nil
	}
	return filepath.Join(bin, "berth"), nil
}

// clean removes the module cache, which is read-only.
func (g *goCommand) clean() error {
	_, err := g.run(g.gopath, "clean", "-modcache")
	return err
}
