// SPDX-License-Identifier: Apache-2.0

// Clients that pull through berth serve --mirror, and push beside.

package mirror

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-quicktest/qt"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/registrytest"
)

// engine is a client that runs.
type engine struct {
	// pull pulls an image such as docker.io/library/berth-app:v1, all of it: the engine
	// first forgets its own copy.
	pull func(image string) error

	// dockerIO is whether the engine has mirrors of docker.io alone.
	dockerIO bool

	// push pushes an image that has been pulled to a repository of a registry; nil if the
	// engine can't push.
	push func(image, to string) error
}

// clients are the clients, in the order of the table.
var clients = []struct {
	name     string
	names    string // how it names the upstream in requests
	programs []string
	root     bool
	start    func(t *testing.T, m *mirrored) engine
}{
	{"containerd (ctr)", "by ns", []string{"containerd", "ctr"}, true, startCtr},
	{"containerd (CRI)", "by ns", []string{"containerd", "ctr"}, true, startCRI},
	{"dockerd", "not", []string{"dockerd", "docker"}, true, startDocker},
	{"podman", "by path", []string{"podman"}, true, startPodman},
	{"skopeo", "by path", []string{"skopeo"}, false, startSkopeo},
	{"crane", "by path", nil, false, startCrane},
	{"BuildKit", "by ns", []string{"buildkitd", "buildctl", "runc"}, true, startBuildKit},
}

const (
	app   = "docker.io/library/berth-app:v1"
	other = "docker.io/library/berth-other:v1" // which is not pulled while the upstream works

	otherRegistry = "registry.example:5000" // that the upstream plays, too
)

// mirrored is a registry that plays docker.io, with a berth serve that mirrors it.
type mirrored struct {
	upstream *httptest.Server
	limited  atomic.Bool
	journal  registrytest.Journal

	mu     sync.Mutex
	agents map[string]bool // that have sent requests upstream

	host  string            // of berth serve
	files map[string]string // the configurations that berth mirror hosts prints, by file
}

// newMirrored starts a registry with the images berth-app and berth-other, which gives tokens to
// everyone, as docker.io does, and its mirror.
func newMirrored(t *testing.T) *mirrored {
	m := &mirrored{agents: make(map[string]bool)}
	store := &registry.MemStore{}
	for _, name := range []string{"library/berth-app", "library/berth-other"} {
		_, err := registrytest.PushIndex(t.Context(), store, name, "v1", randomIndex(t))
		qt.Assert(t, qt.IsNil(err))
	}
	tokens := &auth.TokenServer{Service: "registry.docker.io", Policy: auth.Rules{{Repo: "library/**", Actions: []auth.Action{auth.Pull}}}.Allow}
	mux := http.NewServeMux()
	m.upstream = newUpstream(t, mux)
	served := auth.Bearer(m.upstream.URL+"/token", tokens.Service, tokens.Verify)(registry.New(registry.WithStore(store)))
	limit := registrytest.RetryAfter(time.Second)(served)
	mux.Handle("/token", tokens)
	mux.Handle("/v2/", m.journal.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.agents[r.UserAgent()] = true
		m.mu.Unlock()
		if m.limited.Load() {
			limit.ServeHTTP(w, r)
			return
		}
		served.ServeHTTP(w, r)
	})))

	flags := []string{"--mirror=docker.io=" + m.upstream.URL, "--mirror=" + otherRegistry + "=" + m.upstream.URL, "--mirror-default=docker.io", "--mirror-ttl=0"}
	m.host = berth.Start(t, flags...).Addr
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	printed, err := exec.Command(binary, append([]string{"mirror", "hosts", "--url=http://" + m.host}, flags...)...).Output()
	qt.Assert(t, qt.IsNil(err))
	m.files = make(map[string]string)
	for _, part := range strings.Split("\n"+string(printed), "\n# ")[1:] {
		title, text, _ := strings.Cut(part, "\n")
		_, file, _ := strings.Cut(title, ": ")
		m.files[file] = text
	}
	return m
}

// write writes a file that berth mirror hosts prints, below a folder, and returns its name.
func (m *mirrored) write(t *testing.T, dir, file string) string {
	t.Helper()
	text, ok := m.files[file]
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("%q", m.files))
	name := filepath.Join(dir, filepath.Base(file))
	qt.Assert(t, qt.IsNil(os.MkdirAll(dir, 0o700)))
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(text), 0o600)))
	return name
}

// since returns the requests upstream since the first n, and whether others than the mirror
// have sent any.
func (m *mirrored) since(n int) (calls []string, bypassed bool) {
	for _, e := range m.journal.Entries()[n:] {
		calls = append(calls, fmt.Sprintf("%s %s %d", e.Method, e.Op, e.Status))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.agents, "berth")
	bypassed = len(m.agents) > 0
	clear(m.agents)
	return calls, bypassed
}

// randomIndex returns an image for this machine and for another platform.
func randomIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, p := range []v1.Platform{{OS: "linux", Architecture: runtime.GOARCH}, {OS: "linux", Architecture: "s390x"}} {
		image, err := random.Image(100_000, 3)
		qt.Assert(t, qt.IsNil(err))
		config, err := image.ConfigFile()
		qt.Assert(t, qt.IsNil(err))
		config = config.DeepCopy()
		config.OS, config.Architecture = p.OS, p.Architecture
		image, err = mutate.ConfigFile(image, config)
		qt.Assert(t, qt.IsNil(err))
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &p}})
	}
	return index
}

// TestClients pulls with each client through a mirror of its own: with nothing there, with
// the image there, while the upstream limits the rate of requests, and after it has
// stopped. Between that it pushes to the mirror. It prints a table.
func TestClients(t *testing.T) {
	rows := make([][]string, len(clients))
	t.Run("clients", func(t *testing.T) {
		for i, c := range clients {
			rows[i] = []string{c.name, c.names, "not run"}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				for _, program := range c.programs {
					if _, err := exec.LookPath(program); err != nil {
						if os.Getenv("CI") != "" && (program == "containerd" || program == "skopeo") {
							t.Fatal(err)
						}
						t.Skipf("%s is not installed", program)
					}
				}
				if c.root && os.Getuid() != 0 {
					t.Skipf("%s needs root", c.name)
				}
				m := newMirrored(t)
				rows[i] = slices.Concat([]string{c.name + version(c.programs), c.names}, try(t, m, c.start(t, m)))
			})
		}
	})
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| client\t| names the upstream\t| cold\t| warm\t| other registry\t| push\t| 429\t| 429, push\t| 429, new image\t| stopped\t| stopped, push\t| stopped, new image\t|")
	fmt.Fprintln(w, strings.Repeat("|---\t", 12)+"|")
	for _, row := range rows {
		fmt.Fprintln(w, "| "+strings.Join(row, "\t| ")+"\t|")
	}
	w.Flush()
	t.Logf("the numbers are requests upstream, without those for tokens\n\n%s", &table)
}

// version returns the version of the first program, after a space, or "".
func version(programs []string) string {
	if len(programs) == 0 {
		return ""
	}
	out, _ := exec.Command(programs[0], "--version").Output()
	return " " + regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`).FindString(string(out))
}

// try pulls and pushes in each situation, and returns the cells of the table.
func try(t *testing.T, m *mirrored, e engine) (cells []string) {
	t.Helper()
	seen := 0
	do := func(situation string, f func() error) (calls []string, bypassed bool, err error) {
		err = f()
		calls, bypassed = m.since(seen)
		seen += len(calls)
		t.Logf("%s: %q %v", situation, calls, err)
		return calls, bypassed, err
	}
	// works does what must succeed, with the upstream's help as allowed: nil allows any.
	works := func(situation string, f func() error, allowed ...string) {
		t.Helper()
		calls, bypassed, err := do(situation, f)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", situation))
		qt.Check(t, qt.IsFalse(bypassed), qt.Commentf("%s: the client has asked the upstream itself", situation))
		for _, call := range calls {
			qt.Check(t, qt.IsTrue(allowed == nil || slices.Contains(allowed, call)), qt.Commentf("%s: %s", situation, call))
		}
		cells = append(cells, fmt.Sprintf("works, %d", len(calls)))
	}
	// fails pulls an image that the mirror does not have and can't get.
	fails := func(situation string) {
		t.Helper()
		_, bypassed, err := do(situation, func() error { return e.pull(other) })
		qt.Assert(t, qt.IsNotNil(err), qt.Commentf("%s", situation))
		cell := "fails"
		if bypassed {
			cell = "asks the upstream, fails"
		}
		cells = append(cells, cell+", "+reason(err))
	}
	pull := func() error { return e.pull(app) }

	works("cold", pull)
	qt.Check(t, qt.IsTrue(seen > 0))
	works("warm", pull, "HEAD manifest-head 200")
	if e.dockerIO {
		cells = append(cells, "can't")
	} else {
		works("other registry", func() error { return e.pull(otherRegistry + "/library/berth-app:v1") })
	}
	push := func(situation, to string, allowed ...string) {
		t.Helper()
		if e.push == nil {
			cells = append(cells, "can't")
			return
		}
		works(situation, func() error { return e.push(app, m.host+"/own/"+to) }, allowed...)
		qt.Check(t, qt.IsNil(craneSave(t, m.host+"/own/"+to)))
	}
	// The mirror looks for the manifests of own/app in its default upstream. To build the
	// image that it pushes, BuildKit asks for the tag of another.
	push("push", "app:v1", "GET manifest-get 401", "HEAD manifest-head 401", "HEAD manifest-head 200")
	m.limited.Store(true)
	works("429", pull, "HEAD manifest-head 429")
	push("429, push", "limited:v1", "GET manifest-get 429", "HEAD manifest-head 429")
	fails("429, new image")
	m.stop(t)
	works("stopped", pull)
	push("stopped, push", "stopped:v1")
	fails("stopped, new image")
	return cells
}

// stop stops the upstream, and waits until the mirror tries to reach it: after a 429 it does
// not before the time that the upstream has said.
func (m *mirrored) stop(t *testing.T) {
	t.Helper()
	m.upstream.Close()
	for {
		resp, err := http.Get("http://" + m.host + "/v2/docker.io/library/none/manifests/v1")
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		if resp.StatusCode == http.StatusBadGateway {
			return
		}
		qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusTooManyRequests))
		time.Sleep(50 * time.Millisecond)
	}
}

// reason returns the part of a client's error that tells why the mirror has failed.
func reason(err error) string {
	for _, part := range []string{"limits the rate of requests", "429 Too Many Requests", "can't be reached", "502 Bad Gateway"} {
		if strings.Contains(err.Error(), part) {
			return fmt.Sprintf("%q", part)
		}
	}
	return "without the mirror's reason"
}

// run runs a command, and returns an error with its output if it fails.
func run(t *testing.T, env []string, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
