// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/compression"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestManifest shows images and what they consist of.
func TestManifest(t *testing.T) {
	run(t, []journey{
		{
			name: "from an index to a platform, a layer and the content of a file",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("repositories")
				v.press("team/app")
				v.press("v1")
				v.see("team/app:v1", "Kind image index", "Platforms", "linux/amd64", "linux/arm64")
				v.press("linux/arm64")
				v.see("Made by", "COPY server config.yaml /app/ # buildkit")
				v.clickOn("[...document.querySelectorAll('tr')].find(e => e.innerText.includes('COPY server')).querySelector('a')")
				v.see("Layer sha256:", "app/server", "200 kB")
				v.enter("input[type=search]", "config")
				v.gone("app/server")
				v.press("app/config.yaml")
				v.seeIn("dialog", "-rw-r--r--, 24 B", "listen: :8080 log: info")
				v.press("Close")
				v.gone("listen: :8080")
				v.back()
				v.see("COPY server config.yaml /app/ # buildkit")
			},
		},
		{
			name: "a layer shows what it deletes, and links",
			run: func(t *testing.T, v *visit) {
				image, err := mutate.AppendLayers(empty.Image, layer(t, "tmp/", "", "tmp/.wh.cache", "", "var/.wh..wh..opq", "", "lib", "-> usr/lib"))
				qt.Assert(t, qt.IsNil(err))
				push(t, v.Addr+"/app:v1", image)
				v.open("manifest?repo=app&ref=v1")
				v.click("td a")
				v.see("deletes tmp/cache", "deletes var/*", "lib → usr/lib", "drwxr-xr-x")
				v.gone(".wh.")
			},
		},
		{
			name: "a layer compressed with zstd is shown like any other",
			run: func(t *testing.T, v *visit) {
				image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{
					Layer:     layerWith(t, compression.ZStd, "etc/motd", "Welcome\n"),
					MediaType: types.OCILayerZStd,
				})
				qt.Assert(t, qt.IsNil(err))
				push(t, v.Addr+"/app:v1", image)
				v.open("manifest?repo=app&ref=v1")
				v.see("application/vnd.oci.image.layer.v1.tar+zstd")
				v.click("td a")
				v.press("etc/motd")
				v.seeIn("dialog", "Welcome")
			},
		},
		{
			name: "a layer that is no archive is an error that can be read",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("manifest?repo=team/app&ref=v1")
				v.clickOn("document.querySelector('.tree a')")
				v.see("Kind SBOM (SPDX)")
				v.until("document.querySelector('td a')")
				v.click("td a")
				v.see("The list ends here")
			},
		},
		{
			name: "an image shows its config, and the history beside the layers",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", appImage(t, "amd64"))
				v.open("manifest?repo=app&ref=v1")
				v.see(
					"1 /bin/sh -c #(nop) ADD file:0fb3b0… in / sha256:", "2 ENV PATH=/usr/local/bin:/usr/bin:/bin no layer", "5 ENTRYPOINT [\"/app/server\"] no layer",
					"Platform linux/amd64", "Entrypoint /app/server", "Command --config /app/config.yaml", "Working directory /app", "User 65532", "Ports 8080/tcp",
					"Environment PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8", "org.opencontainers.image.source=https://git.example/app",
				)
				qt.Check(t, qt.Equals(v.count("tbody tr"), 5))
				v.press("The config as JSON")
				v.see(`"architecture": "amd64"`)
			},
		},
		{
			name: "signatures and SBOMs are a tree, whose leaves can be opened",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("manifest?repo=team/app&ref=v1")
				v.see("Referrers")
				// The SBOM has a signature of its own.
				v.until("document.querySelectorAll('.tree').length === 2 && document.querySelectorAll('.tree li').length === 3")
				v.seeIn(".tree .tree", "signature")
				v.clickOn("document.querySelector('.tree .tree a')")
				v.see("Kind signature", "Refers to sha256:")
				v.clickOn("[...document.querySelectorAll('dt')].find(e => e.innerText === 'Refers to').nextSibling.querySelector('a')")
				v.see("Kind SBOM (SPDX)")
			},
		},
		{
			name:  "parts that are missing are marked",
			flags: []string{"--allow-sparse"},
			run: func(t *testing.T, v *visit) {
				index := appIndex(t)
				manifest, err := index.RawManifest()
				qt.Assert(t, qt.IsNil(err))
				resp := send(t, http.MethodPut, "http://"+v.Addr+"/v2/app/manifests/v1", string(manifest), "Content-Type", string(types.OCIImageIndex))
				qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusCreated))
				v.open("manifest?repo=app&ref=v1")
				v.see("2 parts are missing in this repository.", "linux/amd64 missing", "linux/arm64 missing")
				v.allow(failedWith + "404")
				v.press("linux/amd64")
				v.until("document.querySelector('.notice.bad')")
			},
		},
		{
			name: "a command to pull is copied",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/team/app:v1", smallImage(t, 1))
				v.allowClipboard()
				v.open("manifest?repo=team/app&ref=v1")
				v.see("Pull", "docker pull "+v.Addr+"/team/app:v1")
				v.click("[aria-label='Copy docker command']")
				qt.Check(t, qt.Equals(v.copied(), "docker pull "+v.Addr+"/team/app:v1"))
				v.click("[aria-label='Copy skopeo command']")
				v.until("navigator.clipboard.readText().then(s => s.startsWith('skopeo'))")
				program(t, "skopeo")
				command := strings.Replace(v.copied(), "skopeo ", "skopeo --insecure-policy ", 1)
				program(t, "sh")("-c", "cd "+t.TempDir()+" && "+command)
			},
		},
		{
			name: "a tag is removed",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 1))
				push(t, v.Addr+"/app:stable", smallImage(t, 1))
				v.open("manifest?repo=app&ref=v1")
				v.press("Remove the tag")
				v.seeIn("dialog", "Remove the tag?", "The tag v1", "The manifest stays, with the tags stable")
				v.press("Cancel")
				v.until("!document.querySelector('dialog').open")
				v.press("Remove the tag")
				v.click("#confirm")
				v.see("The tag is removed", "stable")
				tags, err := crane.ListTags(v.Addr + "/app")
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.DeepEquals(tags, []string{"stable"}))
				v.open("timeline?q=delete")
				v.see("delete a manifest", "202")
			},
		},
		{
			name: "a manifest is deleted, after the page has said what goes with it",
			run: func(t *testing.T, v *visit) {
				seed(t, v.Addr)
				v.open("manifest?repo=team/app&ref=v1")
				v.press("Delete the manifest")
				v.seeIn("dialog", "Delete the manifest?", "Its tag: v1", "2 referrers lose their subject", "Its blobs stay until garbage is collected")
				v.click("#confirm")
				v.see("The manifest is deleted", "latest")
				_, err := crane.Head(v.Addr + "/team/app:v1")
				qt.Check(t, qt.IsNotNil(err))
				v.open("timeline?op=manifest-delete")
				v.see("delete team/app@sha256:")
			},
		},
		{
			name: "the names and texts of hostile content stay text",
			run: func(t *testing.T, v *visit) {
				const evil = `<img src=x onerror=alert(1)>`
				image, err := mutate.AppendLayers(appImage(t, "amd64"), layer(t, "a"+evil, "<script>alert(2)</script>", "x\u202egnp.exe", "text"))
				qt.Assert(t, qt.IsNil(err))
				config, err := image.ConfigFile()
				qt.Assert(t, qt.IsNil(err))
				config = config.DeepCopy()
				config.Config.Labels = map[string]string{evil: evil}
				config.Config.Env = []string{"X=\u202e" + evil}
				config.History = append(config.History[:5], config.History[0])
				config.History[5].CreatedBy = "RUN " + evil
				image, err = mutate.ConfigFile(image, config)
				qt.Assert(t, qt.IsNil(err))
				push(t, v.Addr+"/app:v1", image)
				v.open("manifest?repo=app&ref=v1")
				v.see("RUN "+evil, evil+"="+evil, "⟨U+202E⟩")
				v.clickOn("[...document.querySelectorAll('td a')].at(-1)")
				v.see("x⟨U+202E⟩gnp.exe")
				v.press("a" + evil)
				v.seeIn("dialog", "<script>alert(2)</script>")
			},
		},
	})
}
