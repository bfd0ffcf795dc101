// SPDX-License-Identifier: Apache-2.0

// The actions of clients that read.

package mirrors

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// pickMethod draws GET or HEAD.
func pickMethod(t *rapid.T) string { return pick(t, "method", http.MethodGet, http.MethodHead) }

func (m *machine) Tag(t *rapid.T) {
	m.getTag(t, pick(t, "naming", namings...), pick(t, "tag", tagPool...), pickMethod(t))
}

// getTag asks for a tag.
func (m *machine) getTag(t *rapid.T, n naming, tag, method string) response {
	allowed, calls := m.expectTag(n, tag, method == http.MethodHead)
	r := m.send(t, method, n.url("manifests/"+tag), "", "")
	expect(t, r, calls, allowed...)
	m.noteTag(t, n, tag, r)
	return r
}

// Pull pulls an image as a client does: the manifest, and what it names.
func (m *machine) Pull(t *rapid.T) {
	n := pick(t, "naming", namings...)
	r := m.getTag(t, n, pick(t, "tag", tagPool...), http.MethodGet)
	img := imageOf(digest.Digest(r.header.Get("Docker-Content-Digest")))
	if r.status != http.StatusOK || img == nil {
		return
	}
	for _, i := range img.blobs {
		m.getBlob(t, n, blobPool[i], http.MethodGet)
	}
}

func (m *machine) Manifest(t *rapid.T) {
	n, img := pick(t, "naming", namings...), pick(t, "image", images...)
	method := pickMethod(t)
	allowed, calls := m.expectManifest(n, img.digest, method == http.MethodHead)
	r := m.send(t, method, n.url("manifests/"+string(img.digest)), "", "")
	m.noteTime(n, r)
	o, _ := m.origin(n)
	_, err := o.store.GetManifest(ctx, n.name, img.digest)
	m.noteUnknown(n, access{kind: "manifests", digest: true}, "/manifests/"+string(img.digest), err == nil, r)
	m.noteFetched(n, r)
	expect(t, r, calls, allowed...)
}

func (m *machine) Blob(t *rapid.T) {
	m.getBlob(t, pick(t, "naming", namings...), pick(t, "blob", blobPool...), pickMethod(t))
}

// getBlob gets a blob, or asks for it. Afterwards the mirror must have what it has sent.
func (m *machine) getBlob(t *rapid.T, n naming, b blob, method string) {
	allowed, calls := m.expectBlob(n, b, method == http.MethodHead)
	r := m.send(t, method, n.url("blobs/"+string(b.digest)), "", "")
	m.noteBlob(n, b, r)
	expect(t, r, calls, allowed...)
	switch has := m.hasBlob(n, b.digest); {
	case r.status != http.StatusOK:
	case method == http.MethodHead:
		if r.header.Get("Content-Length") != fmt.Sprint(len(b.data)) {
			t.Fatalf("%s: the length %s of %d bytes", r.request, r.header.Get("Content-Length"), len(b.data))
		}
	case r.err != nil:
		if !strings.HasPrefix(b.data, r.body) && len(r.body) > len(b.data)-heldBack {
			t.Fatalf("%s: %d bytes of %d are not held back", r.request, len(r.body), len(b.data))
		}
	case !has && m.opts.MaxBytes == 0:
		t.Fatalf("%s: the blob is not stored", r.request)
	}
}

func (m *machine) Range(t *rapid.T) {
	m.readRange(t, pick(t, "naming", namings...), pick(t, "blob", blobPool[2:]...))
}

// readRange reads a range of a blob.
func (m *machine) readRange(t *rapid.T, n naming, b blob) {
	first := pick(t, "first", 0, 1, len(b.data)/2, len(b.data)-1)
	last := min(len(b.data)-1, first+pick(t, "length", 0, 99, 70_000, len(b.data)))
	allowed, calls := m.expectBlob(n, b, false)
	r := m.send(t, http.MethodGet, n.url("blobs/"+string(b.digest)), fmt.Sprintf("Range: bytes=%d-%d", first, last), "")
	m.noteBlob(n, b, r)
	want := b.data[first : last+1]
	if r.status == http.StatusPartialContent && r.err == nil {
		// What a range of its own brings can't be verified, nor the first bytes.
		o, _ := m.origin(n)
		if f, _ := o.current(); r.body != want && (f.name != "corrupt" || len(r.body) != len(want)) {
			t.Fatalf("%s: not the content", r.request)
		}
		// The range may be sent although the rest of the blob does not come.
		allowed = append(allowed, "broken off")
		r.status, r.err = 0, errors.New("range")
	} else if r.err == nil && r.status == http.StatusOK {
		t.Fatalf("%s: %v", r.request, r)
	}
	expect(t, r, calls+2, allowed...)
	if len(r.calls) > 0 {
		m.settle() // so that what follows can be predicted; Crowd has all at once
	}
}

// settle waits until all fetches have ended, whether clients wait for them or not.
func (m *machine) settle() {
	time.Sleep(6 * timeout)
	synctest.Wait()
}

func (m *machine) Tags(t *rapid.T) { m.getTags(t, pick(t, "naming", namings...)) }

// getTags gets the list of tags.
func (m *machine) getTags(t *rapid.T, n naming) {
	o, _ := m.origin(n)
	var current, pushed, fetched []string
	exists := true
	for tag, err := range o.store.Tags(ctx, n.name, "") {
		if exists = err == nil; exists {
			current = append(current, tag)
		}
	}
	for repo, list := range map[string]*[]string{n.local: &pushed, n.cache: &fetched} {
		for tag, err := range m.store.Tags(ctx, repo, "") {
			if err == nil {
				*list = append(*list, tag)
			}
		}
	}
	known := m.exists(n.local) || m.exists(n.cache)
	allowed, calls := m.expectList(n, "tags", current, exists, pushed, fetched, known, false)
	r := m.send(t, http.MethodGet, n.url("tags/list"), "", "")
	var doc struct{ Tags []string }
	m.expectListed(t, r, &doc, func() []string { return doc.Tags }, calls, allowed)
	m.noteList(n, "tags", current, exists, false, r)
	if f, _ := o.current(); f.name == "none" && r.status == http.StatusOK && !r.warned() {
		m.expectPages(t, n, doc.Tags)
	}
}

// expectPages fails the test unless the pages of the list of tags have what all of it has.
func (m *machine) expectPages(t *rapid.T, n naming, want []string) {
	var all []string
	size := rapid.IntRange(1, 3).Draw(t, "page")
	for url := n.url(fmt.Sprint("tags/list?n=", size)); url != ""; {
		r := m.send(t, http.MethodGet, url, "", "")
		var doc struct{ Tags []string }
		if err := json.Unmarshal([]byte(r.body), &doc); err != nil || r.status != http.StatusOK || len(doc.Tags) > size {
			t.Fatalf("%s: %v %v: %s", r.request, r, err, r.body)
		}
		all = append(all, doc.Tags...)
		url, _, _ = strings.Cut(strings.TrimPrefix(r.header.Get("Link"), "<"), ">")
	}
	if !slices.Equal(all, want) {
		t.Fatalf("%v: the pages have %q, want %q", n, all, want)
	}
}

// exists reports whether the store has a repository.
func (m *machine) exists(repo string) bool {
	for _, err := range m.store.Tags(ctx, repo, "") {
		return err == nil
	}
	for _, err := range m.store.Blobs(ctx, repo, "") {
		return err == nil
	}
	for _, err := range m.store.Manifests(ctx, repo, "") {
		return err == nil
	}
	return false
}

func (m *machine) Referrers(t *rapid.T) { m.getReferrers(t, pick(t, "naming", namings...)) }

// getReferrers gets the list of what refers to the first image.
func (m *machine) getReferrers(t *rapid.T, n naming) {
	o, _ := m.origin(n)
	subject := images[0].digest
	var current, pushed, fetched []string
	for r, err := range o.store.Referrers(ctx, n.name, subject, "") {
		if err == nil {
			current = append(current, string(r.Digest))
		}
	}
	for repo, list := range map[string]*[]string{n.local: &pushed, n.cache: &fetched} {
		for r, err := range m.store.Referrers(ctx, repo, subject, "") {
			if err == nil {
				*list = append(*list, string(r.Digest))
			}
		}
	}
	exists := !o.noReferrers || len(current) > 0
	allowed, calls := m.expectList(n, "referrers", current, exists, pushed, fetched, true, true)
	r := m.send(t, http.MethodGet, n.url("referrers/"+string(subject)), "", "")
	var doc struct{ Manifests []struct{ Digest string } }
	m.expectListed(t, r, &doc, func() (all []string) {
		for _, d := range doc.Manifests {
			all = append(all, d.Digest)
		}
		return all
	}, calls, allowed)
	m.noteList(n, "referrers", current, exists, true, r)
}

// expectListed fails the test unless a response has one of the allowed lists.
func (m *machine) expectListed(t *rapid.T, r response, doc any, items func() []string, calls int, allowed []string) {
	got := fmt.Sprint(r.status)
	if r.status == http.StatusOK {
		if err := json.Unmarshal([]byte(r.body), doc); err != nil {
			t.Fatalf("%s: %v", r.request, err)
		}
		if got = listed("200", items()); r.warned() {
			got = listed("stale", items())
		}
		if !slices.IsSorted(items()) {
			t.Fatalf("%s: %s is not sorted", r.request, got)
		}
	}
	if !slices.Contains(allowed, got) {
		t.Fatalf("%s: %s, want %q", r.request, got, allowed)
	}
	if len(r.calls) > calls {
		t.Fatalf("%s: %d calls, want at most %d: %q", r.request, len(r.calls), calls, r.calls)
	}
}

// NoCall sends requests that need no upstream.
func (m *machine) NoCall(t *rapid.T) {
	d := string(images[0].digest)
	for _, test := range []struct {
		url    string
		status int
	}{
		{"/v2/", 200},
		{"/v2/?ns=docker.io", 200},
		{"/v2/_catalog", 200},
		{"/v2/library/app/manifests/1?ns=evil.test", 404},
		{"/v2/library/app/blobs/" + d + "?ns=127.0.0.1:80", 404},
		{"/v2/library/app/tags/list?ns=http://evil.test", 404},
		{"/v2/mirror.cache/docker.io/library/app/manifests/1", 404},
		{"/v2/mirror.cache/docker.io/library/app/manifests/" + d, 404},
		{"/v2/mirror.cache/docker.io/library/app/blobs/" + string(blobPool[0].digest), 404},
	} {
		r := m.send(t, http.MethodGet, test.url, "", "")
		if r.status != test.status || len(r.calls) > 0 || strings.Contains(r.body, "mirror.cache") {
			t.Fatalf("%s: %v, want %d; calls %q; %s", r.request, r, test.status, r.calls, r.body)
		}
	}
}

// Time lets time pass.
func (m *machine) Time(t *rapid.T) {
	time.Sleep(pick(t, "time", time.Second, 2*time.Second, 4*time.Second, 6*time.Second, 30*time.Second, 61*time.Second, 3*time.Minute))
}
