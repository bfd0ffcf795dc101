// SPDX-License-Identifier: Apache-2.0

// Logging in to berth serve --token with the clients that people use.

package interop

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// login is a user of a server.
type login struct{ host, user, password string }

// loginClients push an image as a user, and pull it or inspect it.
var loginClients = map[string]func(t *testing.T, l login, repo string, c *content) error{
	"crane": func(t *testing.T, l login, repo string, c *content) error {
		path, err := layout.FromPath(c.writeLayout(t))
		qt.Assert(t, qt.IsNil(err))
		image, err := path.Image(ggcrHash(t, c.root.Digest))
		qt.Assert(t, qt.IsNil(err))
		ref, err := name.ParseReference(l.host + "/" + repo + ":" + c.name)
		qt.Assert(t, qt.IsNil(err))
		credentials := remote.WithAuth(&authn.Basic{Username: l.user, Password: l.password})
		if err := remote.Write(ref, image, credentials); err != nil {
			return err
		}
		_, err = remote.Image(ref, credentials)
		return err
	},
	"containerd": func(t *testing.T, l login, repo string, c *content) error {
		ref := l.host + "/" + repo + ":" + c.name
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
			docker.WithPlainHTTP(docker.MatchAllHosts),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) { return l.user, l.password, nil }))),
		)})
		pusher, err := resolver.Pusher(t.Context(), ref)
		qt.Assert(t, qt.IsNil(err))
		if err := pushInTurn(t, pusher, c); err != nil {
			return err
		}
		_, _, err = resolver.Resolve(t.Context(), ref)
		return err
	},
	"oras": func(t *testing.T, l login, repo string, c *content) error {
		from, err := oci.NewFromFS(t.Context(), os.DirFS(c.writeLayout(t)))
		qt.Assert(t, qt.IsNil(err))
		to := orasRepo(t, l.host, repo)
		to.Client = &auth.Client{Credential: auth.StaticCredential(l.host, auth.Credential{Username: l.user, Password: l.password})}
		if _, err := oras.Copy(t.Context(), from, c.name, to, c.name, oras.DefaultCopyOptions); err != nil {
			return err
		}
		_, err = to.Resolve(t.Context(), c.name)
		return err
	},
	"skopeo": func(t *testing.T, l login, repo string, c *content) error {
		auth := filepath.Join(t.TempDir(), "auth.json")
		ref := "docker://" + l.host + "/" + repo + ":" + c.name
		return inTurn(t,
			[]string{"skopeo", "login", "--authfile", auth, "--tls-verify=false", "-u", l.user, "-p", l.password, l.host},
			[]string{"skopeo", "--insecure-policy", "copy", "--authfile", auth, "--dest-tls-verify=false", "oci:" + c.writeLayout(t) + ":" + c.name, ref},
			[]string{"skopeo", "inspect", "--authfile", auth, "--tls-verify=false", ref},
		)
	},
	"podman": func(t *testing.T, l login, repo string, c *content) error {
		dir := t.TempDir()
		auth := filepath.Join(dir, "auth.json")
		ref := l.host + "/" + repo + ":" + c.name
		podman := []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}
		return inTurn(t,
			append(podman[:7:7], "login", "--authfile", auth, "--tls-verify=false", "-u", l.user, "-p", l.password, l.host),
			[]string{"skopeo", "--insecure-policy", "copy", "oci:" + c.writeLayout(t) + ":" + c.name, "docker-archive:" + dir + "/image.tar:localhost/image:tag"},
			append(podman[:7:7], "load", "-i", dir+"/image.tar"),
			append(podman[:7:7], "push", "--authfile", auth, "--tls-verify=false", "localhost/image:tag", ref),
			append(podman[:7:7], "pull", "--authfile", auth, "--tls-verify=false", ref),
		)
	},
	// helm pushes a chart instead of the image.
	"helm": func(t *testing.T, l login, repo string, _ *content) error {
		dir := t.TempDir()
		t.Setenv("HELM_REGISTRY_CONFIG", filepath.Join(dir, "auth.json"))
		qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "chart"), 0o700)))
		chart := "apiVersion: v2\nname: chart\nversion: 1.0.0\n"
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "chart", "Chart.yaml"), []byte(chart), 0o600)))
		to := "oci://" + l.host + "/" + repo
		return inTurn(t,
			[]string{"helm", "package", filepath.Join(dir, "chart"), "-d", dir},
			[]string{"helm", "registry", "login", "--plain-http", "-u", l.user, "-p", l.password, l.host},
			[]string{"helm", "push", "--plain-http", filepath.Join(dir, "chart-1.0.0.tgz"), to},
			[]string{"helm", "pull", "--plain-http", "--version", "1.0.0", "-d", t.TempDir(), to + "/chart"},
		)
	},
	// There is no daemon, so docker logs in, and crane uses its credentials.
	"docker": func(t *testing.T, l login, repo string, c *content) error {
		config := t.TempDir()
		if err := inTurn(t, []string{"docker", "--config", config, "login", "-u", l.user, "-p", l.password, l.host}); err != nil {
			return err
		}
		t.Setenv("DOCKER_CONFIG", config)
		ref, err := name.ParseReference(l.host + "/" + repo + ":" + c.name)
		qt.Assert(t, qt.IsNil(err))
		path, err := layout.FromPath(c.writeLayout(t))
		qt.Assert(t, qt.IsNil(err))
		image, err := path.Image(ggcrHash(t, c.root.Digest))
		qt.Assert(t, qt.IsNil(err))
		return remote.Write(ref, image, remote.WithAuthFromKeychain(authn.DefaultKeychain))
	},
}

// inTurn runs commands until one fails.
func inTurn(t *testing.T, commands ...[]string) error {
	t.Helper()
	for _, args := range commands {
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skip(args[0] + " is not installed")
		}
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// TestLogin lets each client log in by tokens, and removes its user then, while another
// one pushes.
func TestLogin(t *testing.T) {
	entry := func(user string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(user+"-password"), bcrypt.MinCost)
		qt.Assert(t, qt.IsNil(err))
		return user + ":" + string(hash) + "\n"
	}
	dir := t.TempDir()
	users, rules := filepath.Join(dir, "users"), filepath.Join(dir, "rules.yaml")
	both, one := entry("alice")+entry("bob"), entry("bob")
	write := func(name, content string) {
		t.Helper()
		qt.Assert(t, qt.IsNil(os.WriteFile(name+".new", []byte(content), 0o600)))
		qt.Assert(t, qt.IsNil(os.Rename(name+".new", name)))
	}
	write(users, both)
	write(rules, "rules: [{users: [alice, bob], repositories: [team/**], actions: [pull, push]}]\n")
	s := berth.Start(t, "--htpasswd="+users, "--rules="+rules, "--token", "--log-level=error", "--token-lifetime=1h")
	c := contents()["image"]
	statusOfAlice := func() int {
		r, _ := http.NewRequest("GET", "http://"+s.Addr+"/v2/", nil)
		r.SetBasicAuth("alice", "alice-password")
		resp, err := http.DefaultClient.Do(r)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		return resp.StatusCode
	}
	reload := func(content string, want int) {
		t.Helper()
		write(users, content)
		qt.Assert(t, qt.IsNil(s.Cmd.Process.Signal(syscall.SIGHUP)))
		for n := 0; statusOfAlice() != want; n++ {
			qt.Assert(t, qt.IsTrue(n < 500))
			time.Sleep(10 * time.Millisecond)
		}
	}
	for client, push := range loginClients {
		t.Run(client, func(t *testing.T) {
			reload(both, http.StatusOK)
			alice := login{s.Addr, "alice", "alice-password"}
			qt.Assert(t, qt.IsNil(push(t, alice, "team/"+client, c)))
			qt.Check(t, qt.IsNotNil(push(t, alice, "other/"+client, c)))
			qt.Check(t, qt.IsNotNil(push(t, login{s.Addr, "alice", "wrong"}, "team/"+client, c)))
			reload(one, http.StatusUnauthorized)
			qt.Check(t, qt.IsNotNil(push(t, alice, "team/"+client, c)))
			qt.Check(t, qt.IsNil(push(t, login{s.Addr, "bob", "bob-password"}, "team/"+client, c)))
		})
	}
}
