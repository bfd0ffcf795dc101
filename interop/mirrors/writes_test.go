// SPDX-License-Identifier: Apache-2.0

// The actions of clients that write, of upstreams, and of operators.

package mirrors

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berth-oci/registry"
)

// Push pushes an image, with its blobs or without.
func (m *machine) Push(t *rapid.T) {
	n, img := pick(t, "naming", namings...), pick(t, "image", images...)
	ref := pick(t, "reference", tagPool[0], tagPool[1], tagPool[2], string(img.digest))
	p := m.pushed[n.local]
	if rapid.Bool().Draw(t, "blobs") {
		for _, i := range img.blobs {
			b := blobPool[i]
			r := m.send(t, http.MethodPost, n.url("blobs/uploads/?digest="+string(b.digest)), "", b.data)
			expect(t, r, 0, "201")
			p.blobs[b.digest] = true
		}
	}
	allowed, calls := m.expectPush(n, img)
	r := m.send(t, http.MethodPut, n.url("manifests/"+ref), "Content-Type: "+ocispec.MediaTypeImageManifest, string(img.content))
	for _, i := range img.blobs {
		m.noteBlob(n, blobPool[i], r)
	}
	expect(t, r, calls, allowed...)
	if r.status != http.StatusCreated {
		return
	}
	for _, i := range img.blobs {
		p.blobs[blobPool[i].digest] = true
	}
	p.manifests[img.digest] = true
	if ref != string(img.digest) {
		p.tags[ref] = img.digest
	}
}

// expectPush returns the responses to a push of a manifest, and the number of calls. The
// mirror fetches the blobs that only the upstream has.
func (m *machine) expectPush(n naming, img image) (allowed []string, calls int) {
	o, _ := m.origin(n)
	f, _ := o.current()
	mayFail, mustFail := false, false
	for _, i := range img.blobs {
		responses, more := m.expectBlob(n, blobPool[i], false)
		mayFail = mayFail || len(responses) > 1 || f.turns && more > 0 && calls > 0 // they are fetched at once
		calls += more
		mustFail = mustFail || !slices.Contains(responses, "200 "+string(blobPool[i].digest))
	}
	switch {
	case mustFail:
		return []string{"404"}, calls
	case mayFail:
		return []string{"201", "404"}, calls
	}
	return []string{"201"}, calls
}

// DeleteTag deletes a tag that was pushed, or else one that was fetched.
func (m *machine) DeleteTag(t *rapid.T) {
	n, tag := pick(t, "naming", namings...), pick(t, "tag", tagPool...)
	_, isPushed := m.pushed[n.local].tags[tag]
	want := "404"
	if _, err := m.store.GetTag(ctx, n.cache, tag); err == nil || isPushed {
		want = "202"
	}
	expect(t, m.send(t, http.MethodDelete, n.url("manifests/"+tag), "", ""), 0, want)
	delete(m.pushed[n.local].tags, tag)
}

// DeleteManifest deletes a manifest with its tags.
func (m *machine) DeleteManifest(t *rapid.T) {
	n, d := pick(t, "naming", namings...), pick(t, "image", images...).digest
	want := "404"
	for _, repo := range []string{n.local, n.cache} {
		if _, err := m.store.GetManifest(ctx, repo, d); err == nil {
			want = "202"
		}
	}
	expect(t, m.send(t, http.MethodDelete, n.url("manifests/"+string(d)), "", ""), 0, want)
	p := m.pushed[n.local]
	delete(p.manifests, d)
	for tag, of := range p.tags {
		if of == d {
			delete(p.tags, tag)
		}
	}
}

func (m *machine) DeleteBlob(t *rapid.T) {
	n, b := pick(t, "naming", namings...), pick(t, "blob", blobPool...)
	want := "404"
	if m.hasBlob(n, b.digest) {
		want = "202"
	}
	expect(t, m.send(t, http.MethodDelete, n.url("blobs/"+string(b.digest)), "", ""), 0, want)
	delete(m.pushed[n.local].blobs, b.digest)
}

// Restart closes the mirror, and makes another one over the same store.
func (m *machine) Restart(t *rapid.T) {
	m.close()
	m.start(t)
}

// pickOrigin draws an upstream.
func (m *machine) pickOrigin(t *rapid.T) *origin { return pick(t, "upstream", m.w.origins...) }

// pickName draws the name of a repository that an upstream has.
func pickName(t *rapid.T) string { return pick(t, "repository", "library/app", "team/app") }

// UpstreamPush pushes an image to an upstream: a new tag, or one that moves.
func (m *machine) UpstreamPush(t *rapid.T) {
	o, repo := m.pickOrigin(t), pickName(t)
	pushUpstream(o.store, repo, rapid.IntRange(0, len(images)-1).Draw(t, "image"), pick(t, "tag", tagPool...))
	o.listReferrers(repo)
}

func (m *machine) UpstreamDelete(t *rapid.T) {
	o, repo := m.pickOrigin(t), pickName(t)
	switch pick(t, "what", "tag", "tag", "manifest", "blob") {
	case "tag":
		o.store.DeleteTag(ctx, repo, pick(t, "tag", tagPool...), nil)
	case "manifest":
		o.store.DeleteManifest(ctx, repo, pick(t, "image", images...).digest)
	case "blob":
		o.store.DeleteBlob(ctx, repo, pick(t, "blob", blobPool...).digest)
	}
	o.listReferrers(repo)
}

// pushUpstream pushes an image to the store of an upstream.
func pushUpstream(s *registry.MemStore, repo string, i int, tags ...string) {
	for _, b := range images[i].blobs {
		if err := registry.PushBlob(ctx, s, repo, blobPool[b].digest, strings.NewReader(blobPool[b].data)); err != nil {
			panic(err)
		}
	}
	if _, err := registry.PushManifest(ctx, s, repo, registry.ManifestPush{Content: images[i].content, Tags: tags}); err != nil {
		panic(err)
	}
}

// listReferrers updates the tag that lists referrers, if the upstream has no API for that.
func (o *origin) listReferrers(repo string) {
	if !o.noReferrers {
		return
	}
	subject := images[0].digest
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for r, err := range o.store.Referrers(ctx, repo, subject, "") {
		if err == nil {
			index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: r.Digest, Size: int64(len(imageOf(r.Digest).content)), ArtifactType: r.ArtifactType})
		}
	}
	tag := strings.ReplaceAll(string(subject), ":", "-")
	if index.Manifests == nil {
		o.store.DeleteTag(ctx, repo, tag, nil)
		return
	}
	content, err := json.Marshal(index)
	if err == nil {
		_, err = registry.PushManifest(ctx, o.store, repo, registry.ManifestPush{Content: content, Tags: []string{tag}})
	}
	if err != nil {
		panic(err)
	}
}

// Fault switches a fault on.
func (m *machine) Fault(t *rapid.T) {
	o := m.pickOrigin(t)
	f := pick(t, "fault", faults...)
	t.Logf("%s: the fault %q", o.name, f.name)
	o.set(f)
}

// Forget deletes fetched content behind the mirror's back, as an operator may.
func (m *machine) Forget(t *rapid.T) {
	n := pick(t, "naming", namings...)
	switch pick(t, "what", "blobs", "blobs", "tag", "manifests") {
	case "blobs":
		for _, b := range blobPool {
			m.store.DeleteBlob(ctx, n.cache, b.digest)
		}
	case "tag":
		m.store.DeleteTag(ctx, n.cache, pick(t, "tag", tagPool...), nil)
	case "manifests":
		for _, img := range images {
			m.store.DeleteManifest(ctx, n.cache, img.digest)
		}
	}
}

// NoFault switches all faults off.
func (m *machine) NoFault(t *rapid.T) {
	for _, o := range m.w.origins {
		o.set(faults[0])
	}
}
