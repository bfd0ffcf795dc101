// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestAccess opens the page as users who may do different things.
func TestAccess(t *testing.T) {
	asAlice := crane.WithAuth(authn.FromConfig(authn.AuthConfig{Username: "alice", Password: "secret"}))
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	qt.Assert(t, qt.IsNil(os.WriteFile(rules, []byte(`
rules:
- users: [alice]
  repositories: ["**"]
  actions: ["*"]
- users: [bob]
  repositories: [team/app]
  actions: [pull]
`), 0o600)))
	run(t, []journey{
		{
			name:  "with --no-delete, nothing can be deleted",
			flags: []string{"--no-delete"},
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				v.open("manifest?repo=app&ref=v1")
				v.see("Layers", "Pull")
				v.until("document.querySelector('pre')")
				qt.Check(t, qt.Equals(v.count(".danger"), 0))
			},
		},
		{
			name: "with --read-only, nothing can be deleted",
			run: func(t *testing.T, v *visit) {
				dir := "dir:" + t.TempDir()
				before := berth.Serve(t, "--store="+dir)
				push(t, before.Addr+"/app:v1", smallImage(t, 1))
				before.Kill()
				v.Server = berth.Serve(t, "--store="+dir, "--read-only")
				v.open("manifest?repo=app&ref=v1")
				v.until("document.querySelector('pre')")
				qt.Check(t, qt.Equals(v.count(".danger"), 0))
				v.visit("about:blank") // before the server ends
			},
		},
		{
			name:  "with users, the browser asks for a name and a password",
			flags: []string{"--user=alice:secret"},
			run: func(t *testing.T, v *visit) {
				qt.Assert(t, qt.IsNil(crane.Push(smallImage(t, 1), v.Addr+"/app:v1", asAlice)))
				v.logIn("alice:secret")
				v.open("timeline")
				v.see("live", "push app:v1", "alice")
				v.press("Content")
				v.press("app")
				v.press("v1")
				v.see("Remove the tag")
				v.press("Remove the tag")
				v.click("#confirm")
				v.see("The tag is removed", "This repository has no tags.")
				v.open("timeline?op=manifest-delete")
				v.see("browser delete app:v1", "alice")
				qt.Check(t, qt.Equals(v.timesAsked(), 1))
			},
		},
		{
			name:  "after a wrong password, the browser asks again; who cancels sees only that",
			flags: []string{"--user=alice:secret"},
			run: func(t *testing.T, v *visit) {
				v.allow(failedWith + "401")
				v.logIn("alice:wrong", "mallory:secret", "alice:secret")
				v.open("timeline")
				v.see("live")
				qt.Check(t, qt.Equals(v.timesAsked(), 3))
				other := &visit{browser: newBrowser(t), Server: v.Server}
				other.allow(failedWith + "401")
				other.logIn()
				other.visit("http://" + v.Addr + "/inspect/")
				other.see("log in with the name and password of a user of this registry")
				qt.Check(t, qt.Equals(other.count("main"), 0))
			},
		},
		{
			name:  "a user who may pull from one repository sees nothing of others, and can't delete",
			flags: []string{"--user=alice:secret", "--user=bob:hunter2", "--rules=" + rules},
			run: func(t *testing.T, v *visit) {
				for _, ref := range []string{"/team/app:v1", "/team/secret:v1"} {
					qt.Assert(t, qt.IsNil(crane.Push(smallImage(t, 1), v.Addr+ref, asAlice)))
				}
				v.logIn("bob:hunter2")
				v.open("timeline")
				v.see("push team/app:v1")
				v.gone("secret")
				qt.Check(t, qt.DeepEquals(v.groups(), []string{"go-containerregistry push team/app:v1"}))
				v.open("repositories")
				v.see("team/app")
				v.gone("secret")
				v.open("manifest?repo=team/app&ref=v1")
				v.until("document.querySelector('pre')")
				qt.Check(t, qt.Equals(v.count(".danger"), 0))
				v.allow(failedWith + "403")
				v.allow(failedWith + "404")
				v.open("manifest?repo=team/secret&ref=v1")
				v.until("document.querySelector('.notice.bad')")
				v.gone("Layers")
				v.open("pictures")
				v.until("document.querySelectorAll('.notice.bad').length === 1")
				// Not by a request of their own making, either.
				qt.Check(t, qt.Equals(eval[int](v.browser, `fetch("api/manifest?repo=team/app&ref=v1", { method: "DELETE" }).then(r => r.status)`), 403))
				_, err := crane.Head(v.Addr+"/team/app:v1", asAlice)
				qt.Check(t, qt.IsNil(err))
			},
		},
		{
			name:  "a name and a password in the URL of the page",
			flags: []string{"--user=alice:secret"},
			run: func(t *testing.T, v *visit) {
				v.visit("http://alice:secret@" + v.Addr + "/inspect/")
				v.see("live", "No requests yet")
				v.press("Content")
				v.see("Nothing has been pushed yet.")
			},
		},
		{
			name: "the rates of a mirror",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 2))
				mirror := berth.Serve(t, "--mirror=registry.example=http://"+v.Addr, "--mirror-ttl=1h")
				for range 3 {
					image, err := crane.Pull(mirror.Addr + "/registry.example/app:v1")
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.IsNil(crane.SaveOCI(image, t.TempDir())))
				}
				upstream := v.Addr
				v.Server = mirror
				v.open("pictures")
				v.see("Mirrors", "registry.example", "Hit rate", " %")
				rate := eval[string](v.browser, "[...document.querySelectorAll('[aria-label=Mirrors] td')].at(-1).innerText.trim()")
				// Each part was fetched once, and found twice.
				qt.Check(t, qt.Matches(rate, "(6[0-9]|7[0-9]) %"))
				v.open("repositories")
				v.see("registry.example/app")
				v.open("timeline")
				v.see("go-containerregistry pull registry.example/app:v1")
				v.Addr = upstream
				v.open("timeline")
				v.see("pull app:v1")
				v.visit("about:blank") // before the servers end
			},
		},
		{
			name: "pictures of requests, growth and shared layers",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("pictures")
				v.see("requests, a bar for each minute", "of content pushed", "Shared between repositories", "team/worker", "Shared blobs")
				qt.Check(t, qt.IsTrue(v.count("svg.chart rect.a") > 0))
				v.clickOn("document.querySelector('[aria-label=\"Repositories by size\"] a')")
				v.see("Tags")
			},
		},
	})
}
