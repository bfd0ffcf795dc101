// SPDX-License-Identifier: Apache-2.0

// Races: requests that meet at one thing, and what must hold whoever wins.

package model

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
)

// races are the races: run has one in a repository of its own.
var races = []struct {
	name   string
	rounds int // by default
	run    func(t *testing.T, c *client, round int, repo string)
}{
	{"patch_against_close", 40, patchAgainstClose},
	{"two_patches_of_one_range", 40, twoPatches},
	{"two_streams_into_one_session", 40, twoStreams},
	{"close_against_cancel", 100, closeAgainstCancel},
	{"two_closes", 60, twoCloses},
	{"delete_against_download", 10, deleteAgainstDownload},
	{"delete_against_mount", 100, deleteAgainstMount},
	{"mount_against_push", 100, mountAgainstPush},
	{"a_tag_moved_by_50_writers", 2, tagMoved},
	{"a_tag_created_by_one_of_many", 100, tagCreated},
	{"a_tag_counted_up_by_If-Match", 10, tagCounted},
	{"tag_against_delete_of_its_manifest", 100, tagAgainstDelete},
	{"referrers_pushed_in_parallel", 1, referrersPushed},
	{"tags_walked_while_they_change", 1, tagsWalked},
	{"catalog_walked_while_it_changes", 1, catalogWalked},
}

// TestRaces runs each race on each store, in process and over loopback. With
// -races each of these has an equal share of that time.
func TestRaces(t *testing.T) {
	share := *racesTime / time.Duration(len(races)*len(stores)*len(transports))
	for _, race := range races {
		t.Run(race.name, func(t *testing.T) {
			eachRegistry(t, func(t *testing.T, c *client) {
				end := time.Now().Add(share)
				round := 0
				for ; !t.Failed() && (share == 0 && round*len(stores) < race.rounds || share > 0 && time.Now().Before(end)); round++ {
					if round%20 == 0 {
						c.renew()
					}
					race.run(t, c, round, fmt.Sprintf("round/%d", round))
				}
				t.Logf("%d rounds, %d requests, outcomes %v", round, c.count.Load(), c.outcomes)
			})
		})
	}
}

// random returns n bytes that nobody else has, if n is not small.
func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('A' + rand.IntN(58))
	}
	return string(b)
}

func chunk(from, n int) map[string]string {
	return map[string]string{"Content-Range": fmt.Sprintf("%d-%d", from, from+n-1)}
}

// stands checks how many bytes a session has.
func (c *client) stands(t *testing.T, location string, size int) {
	t.Helper()
	a := c.get(t, location)
	if want := fmt.Sprintf("0-%d", max(size-1, 0)); a.is(t, 204) && a.header.Get("Range") != want {
		t.Errorf("%s: Range %s, want %s", location, a.header.Get("Range"), want)
	}
}

// begun opens a session that has base.
func (c *client) begun(t *testing.T, repo, base string) (location string) {
	t.Helper()
	location = c.start(t, repo)
	c.do(t, call{method: "PATCH", url: location, header: chunk(0, len(base)), body: base}).is(t, 202)
	return location
}

// gone checks that a session is no more.
func (c *client) gone(t *testing.T, location string) {
	t.Helper()
	c.get(t, location).failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
	c.do(t, call{method: "PATCH", url: location, body: "x"}).failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

// patchAgainstClose has a PATCH and the closing PUT at once, where the PUT is
// for what was there before the PATCH, or for what is there after it.
func patchAgainstClose(t *testing.T, c *client, round int, repo string) {
	base, more := random(10+rand.IntN(10_000)), random(10+rand.IntN(60_000))
	published, forBoth := base, round%2 == 0
	if forBoth {
		published += more
	}
	location := c.begun(t, repo, base)
	var patch, put answer
	together(func() {
		patch = c.do(t, call{method: "PATCH", url: location, header: chunk(len(base), len(more)), body: more, drips: true})
	}, func() {
		put = c.do(t, call{method: "PUT", url: closeURL(location, sha(published))})
	})
	c.saw(patch, put)
	switch {
	case patch.status == 202 && put.status == 201:
		if !forBoth {
			t.Errorf("a chunk was acknowledged, and is in no blob")
		}
	case put.status == 201:
		patch.is(t, 404, 416)
		if forBoth {
			t.Errorf("published, without the bytes: %v", patch)
		}
	case patch.status == 202:
		put.is(t, 400, 416)
		c.hasNoBlob(t, repo, sha(base))
		c.stands(t, location, len(base)+len(more))
		published = base + more
		c.do(t, call{method: "PUT", url: closeURL(location, sha(published))}).is(t, 201)
	default:
		// The PUT had the session while it found out that bytes are missing.
		if !forBoth || patch.status != 416 || put.status != 400 {
			t.Errorf("both refused: %v, %v", patch, put)
		}
		c.hasNoBlob(t, repo, sha(published))
		c.stands(t, location, len(base))
		c.do(t, call{method: "PUT", url: closeURL(location, sha(published)), header: chunk(len(base), len(more)), body: more}).is(t, 201)
	}
	c.hasBlob(t, repo, published)
	c.gone(t, location)
}

// twoPatches has two chunks for one range.
func twoPatches(t *testing.T, c *client, _ int, repo string) {
	base := random(10 + rand.IntN(10_000))
	n := 10 + rand.IntN(60_000)
	chunks := []string{random(n), random(n)}
	location := c.begun(t, repo, base)
	var patches [2]answer
	patch := func(i int) func() {
		return func() {
			patches[i] = c.do(t, call{method: "PATCH", url: location, header: chunk(len(base), n), body: chunks[i], drips: true})
		}
	}
	together(patch(0), patch(1))
	c.saw(patches[:]...)
	winner := slices.IndexFunc(patches[:], func(a answer) bool { return a.status == 202 })
	if winner < 0 {
		t.Errorf("both were refused: %v", patches)
		return
	}
	if loser := patches[1-winner]; loser.failed(t, 416, "BLOB_UPLOAD_INVALID") && loser.header.Get("Range") == "" {
		t.Errorf("refused without where the upload stands: %v", loser)
	}
	c.stands(t, location, len(base)+n)
	c.do(t, call{method: "PUT", url: closeURL(location, sha(base+chunks[1-winner]))}).failed(t, 400, "DIGEST_INVALID")
	c.do(t, call{method: "PUT", url: closeURL(location, sha(base+chunks[winner]))}).is(t, 201)
	c.hasBlob(t, repo, base+chunks[winner])
	c.gone(t, location)
}

// twoStreams has two PATCHes that do not say where their bytes belong: each is
// appended whole, or refused.
func twoStreams(t *testing.T, c *client, _ int, repo string) {
	base := random(10 + rand.IntN(10_000))
	streams := []string{random(10 + rand.IntN(60_000)), random(10 + rand.IntN(60_000))}
	location := c.begun(t, repo, base)
	var patches [2]answer
	patch := func(i int) func() {
		return func() {
			patches[i] = c.do(t, call{method: "PATCH", url: location, body: streams[i], drips: true})
		}
	}
	together(patch(0), patch(1))
	c.saw(patches[:]...)
	size := len(base)
	candidates := []string{base}
	for i, a := range patches {
		if a.is(t, 202, 416) && a.status == 202 {
			size += len(streams[i])
			candidates = append(candidates, base+streams[i])
		}
	}
	switch len(candidates) {
	case 1:
		t.Errorf("both were refused")
	case 3:
		candidates = []string{base + streams[0] + streams[1], base + streams[1] + streams[0]}
	}
	c.stands(t, location, size)
	for _, data := range candidates {
		if c.do(t, call{method: "PUT", url: closeURL(location, sha(data))}).status == 201 {
			c.hasBlob(t, repo, data)
			c.gone(t, location)
			return
		}
	}
	t.Errorf("the session has none of what may be in it: %v", patches)
}

// closeAgainstCancel has one of the two win.
func closeAgainstCancel(t *testing.T, c *client, round int, repo string) {
	base, more := random(10+rand.IntN(10_000)), ""
	header := map[string]string(nil)
	if round%2 == 0 {
		more = random(10 + rand.IntN(30_000))
		header = chunk(len(base), len(more))
	}
	location := c.begun(t, repo, base)
	var put, cancel answer
	together(func() {
		put = c.do(t, call{method: "PUT", url: closeURL(location, sha(base+more)), header: header, body: more, drips: true})
	}, func() {
		cancel = c.delete(t, location)
	})
	c.saw(put, cancel)
	if put.status == 201 {
		cancel.failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
		c.hasBlob(t, repo, base+more)
	} else {
		put.failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
		cancel.is(t, 204)
		c.hasNoBlob(t, repo, sha(base+more))
	}
	c.gone(t, location)
}

// twoCloses has two closing PUTs: of the same blob, or with last chunks of
// their own.
func twoCloses(t *testing.T, c *client, round int, repo string) {
	base := random(10 + rand.IntN(10_000))
	n := 10 + rand.IntN(30_000)
	last := []string{random(n), random(n)}
	if round%2 == 0 {
		last[1] = last[0]
	}
	location := c.begun(t, repo, base)
	var puts [2]answer
	put := func(i int) func() {
		return func() {
			puts[i] = c.do(t, call{method: "PUT", url: closeURL(location, sha(base+last[i])), header: chunk(len(base), n), body: last[i], drips: true})
		}
	}
	together(put(0), put(1))
	c.saw(puts[:]...)
	winner := slices.IndexFunc(puts[:], func(a answer) bool { return a.status == 201 })
	if winner < 0 {
		t.Errorf("both were refused: %v", puts)
		return
	}
	puts[1-winner].is(t, 404, 416)
	c.hasBlob(t, repo, base+last[winner])
	if last[0] != last[1] {
		c.hasNoBlob(t, repo, sha(base+last[1-winner]))
	}
	c.gone(t, location)
}

// deleteAgainstDownload deletes a blob, with all that is in its repository,
// while it is on its way.
func deleteAgainstDownload(t *testing.T, c *client, round int, repo string) {
	data := random(1<<20 + rand.IntN(1<<20)) // more than the buffers on the way hold
	c.pushBlob(t, repo, data).is(t, 201)
	url := blobURL(repo, sha(data))
	if round%2 == 0 { // who comes first is left to chance
		var get, del answer
		together(func() { get = c.get(t, url) }, func() { del = c.delete(t, url) })
		c.saw(get, del)
		get.is(t, 200, 404)
		if get.status == 200 && get.body != data {
			t.Errorf("not the whole blob")
		}
		del.is(t, 202)
		c.hasNoBlob(t, repo, sha(data))
		return
	}
	resp, err := c.send(call{method: "GET", url: url})
	if err != nil {
		t.Errorf("GET: %v", err)
		return
	}
	defer resp.Body.Close()
	hash := sha256.New()
	n, err := io.CopyN(hash, resp.Body, int64(1+rand.IntN(100_000)))
	if err != nil {
		t.Errorf("GET: %d, %v", resp.StatusCode, err)
		return
	}
	c.delete(t, url).is(t, 202)
	c.hasNoBlob(t, repo, sha(data))
	// What may take the place of the deleted bytes.
	other := random(len(data))
	c.pushBlob(t, repo, other).is(t, 201)
	rest, err := io.Copy(hash, resp.Body)
	if got := digest.NewDigest(digest.SHA256, hash); err != nil || n+rest != int64(len(data)) || got.String() != sha(data) {
		t.Errorf("%d of %d bytes, %s, %v; want %s", n+rest, len(data), got, err, sha(data))
	}
	c.hasBlob(t, repo, other)
}

// deleteAgainstMount deletes a blob while it is mounted elsewhere, by a mount
// that names where it is, or leaves that to the registry.
func deleteAgainstMount(t *testing.T, c *client, round int, repo string) {
	data := random(10 + rand.IntN(10_000))
	target := repo + "/target"
	c.pushBlob(t, repo, data).is(t, 201)
	from := "&from=" + repo
	if round%2 == 0 {
		from = ""
	}
	var mount, del answer
	together(func() {
		mount = c.do(t, call{method: "POST", url: "/v2/" + target + "/blobs/uploads/?mount=" + sha(data) + from})
	}, func() {
		del = c.delete(t, blobURL(repo, sha(data)))
	})
	c.saw(mount, del)
	del.is(t, 202)
	c.hasNoBlob(t, repo, sha(data))
	if mount.status == 201 {
		c.hasBlob(t, target, data)
		return
	}
	mount.is(t, 202)
	c.hasNoBlob(t, target, sha(data))
	// The session that it got instead is a good one.
	location := mount.header.Get("Location")
	c.do(t, call{method: "PUT", url: closeURL(location, sha(data)), body: data}).is(t, 201)
	c.hasBlob(t, target, data)
	c.hasNoBlob(t, repo, sha(data))
}

// mountAgainstPush mounts a blob while it is pushed: to where it is mounted
// from, or to where it is mounted to.
func mountAgainstPush(t *testing.T, c *client, round int, repo string) {
	data := random(10 + rand.IntN(30_000))
	source, target := repo+"/source", repo
	push, there := source, false
	if round%2 == 0 {
		c.pushBlob(t, source, data).is(t, 201)
		push, there = target, true
	}
	location := c.start(t, push)
	var mount, put answer
	together(func() {
		mount = c.do(t, call{method: "POST", url: "/v2/" + target + "/blobs/uploads/?mount=" + sha(data) + "&from=" + source})
	}, func() {
		put = c.do(t, call{method: "PUT", url: closeURL(location, sha(data)), body: data, drips: true})
	})
	c.saw(mount, put)
	put.is(t, 201)
	c.hasBlob(t, push, data)
	switch {
	case mount.status == 201:
		c.hasBlob(t, target, data)
		// One link, however often it was made.
		c.delete(t, blobURL(target, sha(data))).is(t, 202)
		c.hasNoBlob(t, target, sha(data))
		c.hasBlob(t, source, data)
	case there:
		t.Errorf("not mounted, though it was there: %v", mount)
	default:
		mount.is(t, 202)
		c.hasNoBlob(t, target, sha(data))
	}
}

// manifests returns n manifests of different sizes and media types, by digest.
func manifests(n int) (contents, mediaTypes map[string]string, digests []string) {
	contents, mediaTypes = make(map[string]string), make(map[string]string)
	for i := range n {
		mediaType := fmt.Sprintf("application/vnd.example.%d", i)
		content := fmt.Sprintf(`{"n":%d,"pad":%q}`, i, strings.Repeat("x", i*100))
		if i%5 == 0 {
			mediaType = ocispec.MediaTypeImageIndex
			content = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"n":"%d"}}`, mediaType, i)
		}
		d := sha(content)
		contents[d], mediaTypes[d] = content, mediaType
		digests = append(digests, d)
	}
	return contents, mediaTypes, digests
}

// tagMoved has many writers move a tag, and readers that find it whole.
func tagMoved(t *testing.T, c *client, _ int, repo string) {
	contents, mediaTypes, digests := manifests(50)
	c.pushManifest(t, repo, "tag", mediaTypes[digests[0]], contents[digests[0]]).is(t, 201)

	var writing atomic.Int32
	var last sync.Map // the digest that each writer wrote last
	var functions []func()
	for i := range digests {
		writing.Add(1)
		functions = append(functions, func() {
			defer writing.Add(-1)
			for j := range 4 {
				d := digests[(i+j*7)%len(digests)]
				c.pushManifest(t, repo, "tag", mediaTypes[d], contents[d]).is(t, 201)
				last.Store(i, d)
				pause()
			}
		})
	}
	for range 4 {
		functions = append(functions, func() {
			for ; writing.Load() > 0 && !t.Failed(); pause() {
				method := "GET"
				if rand.IntN(4) == 0 {
					method = "HEAD"
				}
				a := c.do(t, call{method: method, url: manifestURL(repo, "tag")})
				if !a.is(t, 200) {
					return
				}
				// That the body is of the digest was checked.
				d := a.header.Get("Docker-Content-Digest")
				if contents[d] == "" || a.header.Get("Content-Type") != mediaTypes[d] || a.header.Get("Content-Length") != fmt.Sprint(len(contents[d])) {
					t.Errorf("torn: %v, want %s and %d bytes", a.header, mediaTypes[d], len(contents[d]))
				}
			}
		})
	}
	together(functions...)
	// The tag is what some writer wrote last; each manifest is still there.
	d := c.get(t, manifestURL(repo, "tag")).header.Get("Docker-Content-Digest")
	written := false
	last.Range(func(_, v any) bool {
		written = v == d
		return !written
	})
	if !written {
		t.Errorf("at the end the tag is %s, which no writer wrote last", d)
	}
	for _, d := range digests {
		c.get(t, manifestURL(repo, d)).is(t, 200)
	}
	if tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags"); !slices.Equal(tags, []string{"tag"}) {
		t.Errorf("tags: %q", tags)
	}
}

// tagCreated has many create a tag that must not exist: one does.
func tagCreated(t *testing.T, c *client, _ int, repo string) {
	contents, mediaTypes, digests := manifests(8)
	var created atomic.Int32
	var winner atomic.Value
	var functions []func()
	for _, d := range digests {
		functions = append(functions, func() {
			a := c.do(t, call{method: "PUT", url: manifestURL(repo, "tag"), body: contents[d],
				header: map[string]string{"Content-Type": mediaTypes[d], "If-None-Match": "*"}})
			if a.is(t, 201, 412) && a.status == 201 {
				created.Add(1)
				winner.Store(d)
			}
		})
	}
	together(functions...)
	if created.Load() != 1 {
		t.Errorf("%d created the tag", created.Load())
		return
	}
	for _, d := range digests {
		// All or nothing: what was refused left no manifest either.
		want := 404
		if d == winner.Load() {
			want = 200
		}
		c.get(t, manifestURL(repo, d)).is(t, want)
	}
	if d := c.get(t, manifestURL(repo, "tag")).header.Get("Docker-Content-Digest"); d != winner.Load() {
		t.Errorf("the tag is %s; %s was acknowledged", d, winner.Load())
	}
}

// tagCounted has many count up the number that a tag points at, by If-Match: no
// count is lost.
func tagCounted(t *testing.T, c *client, _ int, repo string) {
	const workers, each = 8, 5
	c.pushManifest(t, repo, "tag", "text/plain", "0").is(t, 201)
	var functions []func()
	for range workers {
		functions = append(functions, func() {
			for done := 0; done < each && !t.Failed(); {
				a := c.get(t, manifestURL(repo, "tag"))
				var n int
				if _, err := fmt.Sscan(a.body, &n); err != nil {
					t.Errorf("%v: %v", a, err)
					return
				}
				put := c.do(t, call{method: "PUT", url: manifestURL(repo, "tag"), body: fmt.Sprint(n + 1),
					header: map[string]string{"Content-Type": "text/plain", "If-Match": a.header.Get("Etag")}})
				if put.is(t, 201, 412) && put.status == 201 {
					done++
				}
			}
		})
	}
	together(functions...)
	if a := c.get(t, manifestURL(repo, "tag")); a.body != fmt.Sprint(workers*each) {
		t.Errorf("counted to %s of %d", a.body, workers*each)
	}
}

// tagAgainstDelete tags a manifest while it is deleted: the tag is there with
// the manifest, or neither is.
func tagAgainstDelete(t *testing.T, c *client, _ int, repo string) {
	const content = "content"
	url := manifestURL(repo, sha(content))
	c.pushManifest(t, repo, "old", "text/plain", content).is(t, 201)
	c.pushManifest(t, repo, "other", "text/plain", "other").is(t, 201)
	together(func() {
		c.pushManifest(t, repo, "new", "text/plain", content).is(t, 201)
	}, func() {
		c.delete(t, url).is(t, 202)
	}, func() {
		for range 5 {
			tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags")
			if !slices.Contains(tags, "other") {
				t.Errorf("another manifest's tag is missing: %q", tags)
			}
			c.get(t, manifestURL(repo, "new")).is(t, 200, 404)
		}
	})
	want := []string{"other"}
	a := c.get(t, url)
	c.saw(a)
	if a.is(t, 200, 404) && a.status == 200 {
		want = []string{"new", "other"}
	}
	if tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags"); !slices.Equal(tags, want) {
		t.Errorf("tags: %q, want %q", tags, want)
	}
	for _, tag := range want {
		c.get(t, manifestURL(repo, tag)).is(t, 200)
	}
	c.get(t, manifestURL(repo, "old")).is(t, 404)
}

// referrersPushed has 200 referrers pushed at once, while readers look: what
// was acknowledged before a list was asked for is in it.
func referrersPushed(t *testing.T, c *client, _ int, repo string) {
	const writers, each = 20, 10
	const subject = `{"schemaVersion":2,"manifests":[]}`
	c.pushBlob(t, repo, "{}").is(t, 201)
	content := func(i int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.%d",`+
			`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],`+
			`"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"n":"%d"}}`,
			ocispec.MediaTypeImageManifest, i%3, sha("{}"), ocispec.MediaTypeImageIndex, sha(subject), len(subject), i)
	}
	want := make(map[string]string)
	for i := range writers * each {
		want[sha(content(i))] = fmt.Sprint(i)
	}
	list := func(query string) map[string]string {
		got := make(map[string]string)
		last := ""
		for url := "/v2/" + repo + "/referrers/" + sha(subject) + query; url != ""; {
			a := c.get(t, url)
			var index ocispec.Index
			if err := json.Unmarshal([]byte(a.body), &index); !a.is(t, 200) || err != nil {
				t.Errorf("%s: %v", url, err)
				return got
			}
			for _, d := range index.Manifests {
				if d.Digest.String() <= last {
					t.Errorf("%s: %s after %s", url, d.Digest, last)
					return got // it may go on for ever
				}
				last = d.Digest.String()
				got[last] = d.Annotations["n"]
				var i int
				fmt.Sscan(got[last], &i)
				if want[last] != got[last] || d.Size != int64(len(content(i))) || d.ArtifactType != fmt.Sprintf("application/vnd.example.%d", i%3) {
					t.Errorf("%s: %v", url, d)
				}
			}
			url = next(t, a)
		}
		return got
	}
	var acknowledged sync.Map
	var writing atomic.Int32
	var functions []func()
	for w := range writers {
		writing.Add(1)
		functions = append(functions, func() {
			defer writing.Add(-1)
			for j := range each {
				m := content(w*each + j)
				ref := sha(m)
				if j%2 == 0 {
					ref = fmt.Sprintf("tag-%d-%d", w, j)
				}
				a := c.pushManifest(t, repo, ref, ocispec.MediaTypeImageManifest, m)
				if a.is(t, 201) && a.header.Get("OCI-Subject") != sha(subject) {
					t.Errorf("OCI-Subject: %q", a.header.Get("OCI-Subject"))
				}
				acknowledged.Store(sha(m), true)
				pause()
			}
		})
	}
	for _, query := range []string{"", "?n=17"} {
		functions = append(functions, func() {
			for writing.Load() > 0 && !t.Failed() {
				var before []string
				acknowledged.Range(func(k, _ any) bool {
					before = append(before, k.(string))
					return true
				})
				got := list(query)
				for _, d := range before {
					if _, ok := got[d]; !ok {
						t.Errorf("%s was acknowledged, and is not listed", d)
					}
				}
			}
		})
	}
	together(functions...)
	for _, query := range []string{"", "?n=17"} {
		if got := list(query); len(got) != len(want) {
			t.Errorf("%d of %d referrers with %q", len(got), len(want), query)
		}
	}
}

// walked has a list walked while names come and go.
func walked(t *testing.T, c *client, url, field string, add func(name string) answer, remove func(name string)) {
	var stays []string
	known := make(map[string]bool)
	for i := range 60 {
		name := fmt.Sprintf("k%03d", i)
		add(name).is(t, 201)
		stays = append(stays, name)
		known[name], known[name+"x"] = true, true
	}
	var walking atomic.Int32
	var functions []func()
	for i := range 3 { // each has a third of the names to itself
		functions = append(functions, func() {
			rng := rand.New(rand.NewPCG(uint64(i), rand.Uint64()))
			there := make(map[string]bool)
			for ; walking.Load() > 0 && !t.Failed(); pause() {
				name := stays[rng.IntN(len(stays)/3)*3+i] + "x"
				if there[name] = !there[name]; there[name] {
					add(name).is(t, 201)
				} else {
					remove(name)
				}
			}
		})
	}
	for range 3 {
		walking.Add(1)
		functions = append(functions, func() {
			defer walking.Add(-1)
			for range 6 {
				names, pages := c.walk(t, url, field) // in order, none twice
				if last := pages[len(pages)-1]; !last.is(t, 200) {
					return
				}
				for _, name := range names {
					if !known[name] {
						t.Errorf("%q was never added", name)
					}
				}
				names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "x") })
				if !slices.Equal(names, stays) {
					t.Errorf("of the names that were there throughout, %q are listed", names)
				}
			}
		})
	}
	together(functions...)
}

func tagsWalked(t *testing.T, c *client, round int, repo string) {
	walked(t, c, "/v2/"+repo+"/tags/list?n=7", "tags", func(tag string) answer {
		return c.pushManifest(t, repo, tag, "text/plain", tag)
	}, func(tag string) {
		ref := tag
		if rand.IntN(2) == 0 {
			ref = sha(tag) // the tag goes with its manifest
		}
		c.delete(t, manifestURL(repo, ref)).is(t, 202)
	})
}

func catalogWalked(t *testing.T, c *client, _ int, _ string) {
	c.renew() // other rounds' repositories are in the catalog too
	// Some repositories are there for a blob, others for a manifest.
	blob := func(repo string) bool { return repo[3]%2 == 0 }
	walked(t, c, "/v2/_catalog?n=7", "repositories", func(repo string) answer {
		if blob(repo) {
			return c.pushBlob(t, repo, "{}")
		}
		return c.pushManifest(t, repo, "tag", "text/plain", "m")
	}, func(repo string) {
		if blob(repo) {
			c.delete(t, blobURL(repo, sha("{}"))).is(t, 202)
			return
		}
		c.delete(t, manifestURL(repo, sha("m"))).is(t, 202)
	})
}
