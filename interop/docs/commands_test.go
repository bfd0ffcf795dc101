// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/internal/freeaddr"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/registrytest"
)

// prelude precedes each block. A reader has a second terminal, so berth serve runs in
// the background, and replaces the one before it.
const prelude = `set -euo pipefail
berth() {
	if [ "$1" != serve ]; then
		command berth "$@"
		return
	fi
	if [ -e pids ]; then
		kill "$(tail -n 1 pids)" && while kill -0 "$(tail -n 1 pids)" 2>/dev/null; do sleep 0.02; done
	fi
	rm -f addr
	case " $* " in
	*' --addr'* | *' --config'*) ;;
	*) set -- "$@" --addr "127.0.0.1:$PORT" ;;
	esac
	command berth "$@" --addr-file addr >serve.log 2>&1 &
	echo $! >>pids
	while [ ! -e addr ]; do
		kill -0 $! 2>/dev/null || { cat serve.log; return 1; }
		sleep 0.02
	done
}
`

// TestCommands runs the commands of each page, block after block, in a folder of their
// own and against one berth serve, which a page may replace by its own. They see other
// ports instead of 5000 and 5001, the folder instead of / in /etc/berth and /var/lib/berth, and
// small random images instead of those of Docker Hub.
func TestCommands(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no bash")
	}
	for _, program := range []string{"bash", "curl", "skopeo"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("%s is not installed: apt-get install bash curl skopeo", program)
		}
	}
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	hub := dockerHub(t)
	for _, page := range pages(t) {
		t.Run(filepath.Base(page), func(t *testing.T) {
			var sh *shell
			for _, b := range blocks(t, page) {
				file, isFile := strings.CutPrefix(b.comment, "file: ")
				if b.info != "sh" && !isFile {
					continue
				}
				if sh == nil {
					sh = newShell(t, binary, hub)
					sh.run(t, "berth serve --store dir:"+filepath.Join(sh.dir, "first"))
				}
				if isFile {
					writeFile(t, filepath.Join(sh.dir, file), sh.replacer.Replace(b.code))
					continue
				}
				t.Log(b)
				sh.run(t, b.code)
			}
		})
	}
}

// dockerHub starts a registry with images of the names that the pages use, and returns
// its host.
func dockerHub(t *testing.T) string {
	t.Helper()
	s := registrytest.NewServer(t)
	for i, name := range []string{"alpine", "busybox"} {
		_, err := registrytest.PushRandomImage(t.Context(), s.Store, "library/"+name, "latest", uint64(i), 2, 1000)
		qt.Assert(t, qt.IsNil(err))
	}
	return s.Host
}

// shell runs the blocks of a page.
type shell struct {
	dir      string
	env      []string
	replacer *strings.Replacer
}

func newShell(t *testing.T, binary, hub string) *shell {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	writeFile(t, filepath.Join(dir, ".config/containers/registries.conf"), fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = %q\ninsecure = true\n", hub))
	writeFile(t, filepath.Join(dir, ".config/containers/policy.json"), `{"default": [{"type": "insecureAcceptAnything"}]}`)
	t.Cleanup(func() {
		pids, _ := os.ReadFile(filepath.Join(dir, "pids")) // missing if no server has started
		for line := range strings.Lines(string(pids)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
				if p, err := os.FindProcess(pid); err == nil {
					p.Kill() // may have exited
				}
			}
		}
	})
	return &shell{
		dir: dir,
		env: append(os.Environ(),
			"PATH="+filepath.Dir(binary)+string(filepath.ListSeparator)+os.Getenv("PATH"),
			"HOME="+dir,
			"PORT="+port,
			"XDG_CONFIG_HOME="+filepath.Join(dir, ".config"),
		),
		replacer: strings.NewReplacer(
			":5000", ":"+port,
			":5001", ":"+freePort(t),
			"/etc/berth", filepath.Join(dir, "etc/berth"),
			"/var/lib/berth", filepath.Join(dir, "var/lib/berth"),
		),
	}
}

// run runs a block. The test fails at the first command that fails.
func (s *shell) run(t *testing.T, code string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", prelude+s.replacer.Replace(code))
	cmd.Dir, cmd.Env = s.dir, s.env
	// A server that the block starts keeps a pipe open, so this is a file.
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	qt.Assert(t, qt.IsNil(err))
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		output, _ := os.ReadFile(out.Name())
		t.Fatalf("%v:\n%s\nprinted:\n%s", err, code, output)
	}
}

// freePort returns a port that is free.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(freeaddr.New(t))
	qt.Assert(t, qt.IsNil(err))
	return port
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(name), 0o755)))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(content), 0o644)))
}
