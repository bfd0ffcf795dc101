// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

const noReferrers = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

func TestReferrers(t *testing.T) {
	h := registry.New()
	subject := `"subject":` + descriptor(typeImage, "the subject")
	config := `"config":` + descriptor("application/vnd.example.config", "{}")
	url := "/v2/a/referrers/" + sha("the subject")
	referrers := []struct {
		mediaType, body, artifactType string
	}{
		{typeImage, `{"artifactType":"application/vnd.example.sbom",` + config + `,"layers":[],` + subject + `,"annotations":{"k":"v","html":"<&>"}}`, "application/vnd.example.sbom"},
		{typeImage, `{` + config + `,"layers":[],` + subject + `}`, "application/vnd.example.config"},
		{typeImage, `{"artifactType":"",` + config + `,"layers":null,` + subject + `,"annotations":{}}`, "application/vnd.example.config"},
		{typeIndex, `{"artifactType":"application/vnd.example.set","manifests":[],` + subject + `,"annotations":{"k":"v"}}`, "application/vnd.example.set"},
		{typeIndex, `{"manifests":[],` + subject + `}`, ""},
		// Tools set a subject in Docker's types too, with mutate.Subject of
		// go-containerregistry for example.
		{typeDocker, `{"mediaType":"` + typeDocker + `",` + config + `,"layers":[],` + subject + `}`, "application/vnd.example.config"},
		{typeDockerList, `{"manifests":[],` + subject + `,"annotations":{"k":"v"}}`, ""},
	}
	run(t, h, []call{
		{name: "unknown repository", url: url, status: 200, wantBody: noReferrers, wantHeader: map[string]string{"Content-Type": typeIndex}},
		pushBlob("a", "{}"),
		{name: "unknown subject", url: url, status: 200, wantBody: noReferrers},
		{url: "/v2/a/referrers/sha256:x", status: 400, wantCode: "DIGEST_INVALID"},
	})
	want := make(map[string]ocispec.Descriptor)
	for _, r := range referrers {
		call{method: "PUT", url: "/v2/a/manifests/" + sha(r.body), header: map[string]string{"Content-Type": r.mediaType}, body: r.body, status: 201, wantHeader: map[string]string{"OCI-Subject": sha("the subject")}}.do(t, h)
		var doc struct{ Annotations map[string]string }
		json.Unmarshal([]byte(r.body), &doc)
		if len(doc.Annotations) == 0 {
			doc.Annotations = nil
		}
		d := ocispec.Descriptor{MediaType: r.mediaType, Size: int64(len(r.body)), ArtifactType: r.artifactType, Annotations: doc.Annotations}
		want[sha(r.body)] = d
	}
	list := func(query, filters string) map[string]ocispec.Descriptor {
		w := call{url: url + query, status: 200, wantHeader: map[string]string{"Content-Type": typeIndex, "OCI-Filters-Applied": filters}}.do(t, h)
		var index ocispec.Index
		qt.Assert(t, qt.IsNil(json.Unmarshal(w.Body.Bytes(), &index)))
		got := make(map[string]ocispec.Descriptor)
		for _, d := range index.Manifests {
			name := d.Digest.String()
			d.Digest = ""
			got[name] = d
		}
		return got
	}
	filtered := func(artifactTypes ...string) map[string]ocispec.Descriptor {
		m := make(map[string]ocispec.Descriptor)
		for k, d := range want {
			if slices.Contains(artifactTypes, d.ArtifactType) {
				m[k] = d
			}
		}
		return m
	}
	qt.Check(t, qt.DeepEquals(list("", ""), want))
	for _, artifactType := range []string{"application/vnd.example.sbom", "application/vnd.example.config", "", "none/such"} {
		qt.Check(t, qt.DeepEquals(list("?artifactType="+artifactType, "artifactType"), filtered(artifactType)))
	}
	qt.Check(t, qt.DeepEquals(list("?artifactType=application/vnd.example.sbom&artifactType=application/vnd.example.set", "artifactType"),
		filtered("application/vnd.example.sbom", "application/vnd.example.set")))

	// Other repositories list none of them, and deleted referrers are not listed.
	call{url: "/v2/b/referrers/" + sha("the subject"), status: 200, wantBody: noReferrers}.do(t, h)
	for _, r := range referrers {
		call{method: "DELETE", url: "/v2/a/manifests/" + sha(r.body), status: 202}.do(t, h)
	}
	call{url: url, status: 200, wantBody: noReferrers}.do(t, h)
}

func TestReferrersOff(t *testing.T) {
	h := registry.New(registry.WithReferrersSupport(false))
	body := `{"manifests":[],"subject":` + descriptor(typeImage, "x") + `}`
	run(t, h, []call{
		{method: "PUT", url: "/v2/a/manifests/tag", header: map[string]string{"Content-Type": typeIndex}, body: body, status: 201, wantHeader: map[string]string{"OCI-Subject": ""}},
		{url: "/v2/a/referrers/" + sha("x"), status: 404, wantCode: "UNSUPPORTED"},
	})
}

// TestReferrersTagSchema acts like a client of a registry without the API: it pushes
// the list under a tag.
func TestReferrersTagSchema(t *testing.T) {
	h := registry.New()
	tag := strings.Replace(sha("x"), ":", "-", 1)
	run(t, h, []call{
		pushManifest("a", tag, typeIndex, noReferrers),
		{url: "/v2/a/manifests/" + tag, status: 200, wantBody: noReferrers},
		{url: "/v2/a/tags/list", status: 200, wantBody: `{"name":"a","tags":["` + tag + `"]}`},
	})
}

func TestReferrersPages(t *testing.T) {
	const limit = 1000
	h := registry.New(registry.WithLimits(registry.Limits{ReferrersBytes: limit}))
	var want, even []string
	for i := range 25 {
		artifactType := fmt.Sprintf("application/vnd.example.%d", i%2)
		body := fmt.Sprintf(`{"manifests":[],"artifactType":%q,"subject":%s,"annotations":{"i":"%d"}}`, artifactType, descriptor(typeImage, "x"), i)
		want = append(want, sha(body))
		if i%2 == 0 {
			even = append(even, sha(body))
		}
		pushManifest("a", sha(body), typeIndex, body).do(t, h)
	}
	slices.Sort(want)
	slices.Sort(even)
	url := "/v2/a/referrers/" + sha("x")
	pages := 0
	got := follow(t, h, url, func([]string) { pages++ })
	qt.Check(t, qt.DeepEquals(got, want))
	qt.Check(t, qt.IsTrue(pages > 5), qt.Commentf("%d pages", pages))
	qt.Check(t, qt.DeepEquals(follow(t, h, url+"?artifactType=application/vnd.example.0", nil), even))
	qt.Check(t, qt.DeepEquals(follow(t, h, url+"?n=4", nil), want))
	call{url: url + "?n=0", status: 200, wantBody: noReferrers, wantHeader: map[string]string{"Link": ""}}.do(t, h)

	for next := url; next != ""; {
		w := call{url: next, status: 200}.do(t, h)
		qt.Check(t, qt.IsTrue(w.Body.Len() <= limit), qt.Commentf("%d bytes", w.Body.Len()))
		next = ""
		if m := nextLink.FindStringSubmatch(w.Header().Get("Link")); m != nil {
			next = m[1]
		}
	}

	// A single entry that exceeds the limit is still sent.
	big := fmt.Sprintf(`{"manifests":[],"subject":%s,"annotations":{"k":%q}}`, descriptor(typeImage, "y"), strings.Repeat("v", 2*limit))
	pushManifest("a", "big", typeIndex, big).do(t, h)
	qt.Check(t, qt.DeepEquals(follow(t, h, "/v2/a/referrers/"+sha("y"), nil), []string{sha(big)}))
}
