// SPDX-License-Identifier: Apache-2.0

// Races: concurrent requests for the same content, and checks that must hold
// whichever request wins.

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

// races lists the races. run runs one round, in a repository of its own.
var races = []struct {
	name   string
	rounds int // of all stores together, by default
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
	{"tag_moved_by_50_writers", 2, tagMoved},
	{"tag_created_by_one_of_many", 100, tagCreated},
	{"tag_incremented_with_If-Match", 10, tagIncremented},
	{"tag_against_delete_of_its_manifest", 100, tagAgainstDelete},
	{"referrers_pushed_concurrently", 1, referrersPushed},
	{"tags_listed_while_they_change", 1, listChangingTags},
	{"catalog_listed_while_it_changes", 1, listChangingCatalog},
}

// TestRaces runs each race on each store, in process and over loopback. With -races
// each combination runs for an equal share of that time.
func TestRaces(t *testing.T) {
	share := *racesTime / time.Duration(len(races)*len(stores)*len(transports))
	for _, race := range races {
		t.Run(race.name, func(t *testing.T) {
			eachRegistry(t, func(t *testing.T, c *client) {
				end := time.Now().Add(share)
				round := 0
				for ; !t.Failed() && (share == 0 && round*len(stores) < race.rounds || share > 0 && time.Now().Before(end)); round++ {
					if round%20 == 0 {
						c.reset()
					}
					race.run(t, c, round, fmt.Sprintf("round/%d", round))
				}
				t.Logf("%d rounds, %d requests, outcomes %v", round, c.count.Load(), c.outcomes)
			})
		})
	}
}

// random returns n random bytes. They are unique unless n is small.
func random(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('A' + rand.IntN(58))
	}
	return string(b)
}

// chunk returns the header of a chunk of n bytes at an offset.
func chunk(from, n int) map[string]string {
	return map[string]string{"Content-Range": fmt.Sprintf("%d-%d", from, from+n-1)}
}

// checkUploadSize checks the number of bytes in a session.
func (c *client) checkUploadSize(t *testing.T, location string, size int) {
	t.Helper()
	a := c.get(t, location)
	if want := fmt.Sprintf("0-%d", max(size-1, 0)); a.hasStatus(t, 204) && a.header.Get("Range") != want {
		t.Errorf("%s: Range %s, want %s", location, a.header.Get("Range"), want)
	}
}

// startUploadWith opens a session, and sends base to it.
func (c *client) startUploadWith(t *testing.T, repo, base string) (location string) {
	t.Helper()
	location = c.startUpload(t, repo)
	c.do(t, request{method: "PATCH", url: location, header: chunk(0, len(base)), body: base}).hasStatus(t, 202)
	return location
}

// checkUploadEnded checks that a session no longer exists.
func (c *client) checkUploadEnded(t *testing.T, location string) {
	t.Helper()
	c.get(t, location).hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
	c.do(t, request{method: "PATCH", url: location, body: "x"}).hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

// patchAgainstClose races a PATCH with the closing PUT. The digest of the PUT is
// that of the bytes either before or after the PATCH.
func patchAgainstClose(t *testing.T, c *client, round int, repo string) {
	base, more := random(10+rand.IntN(10_000)), random(10+rand.IntN(60_000))
	published, afterPatch := base, round%2 == 0
	if afterPatch {
		published += more
	}
	location := c.startUploadWith(t, repo, base)
	var patch, put response
	concurrently(func() {
		patch = c.do(t, request{method: "PATCH", url: location, header: chunk(len(base), len(more)), body: more, slow: true})
	}, func() {
		put = c.do(t, request{method: "PUT", url: closeURL(location, sha(published))})
	})
	c.countOutcome(patch, put)
	switch {
	case patch.status == 202 && put.status == 201:
		if !afterPatch {
			t.Errorf("a chunk was acknowledged, but the blob lacks it")
		}
	case put.status == 201:
		patch.hasStatus(t, 404, 416)
		if afterPatch {
			t.Errorf("published without the chunk: %v", patch)
		}
	case patch.status == 202:
		put.hasStatus(t, 400, 416)
		c.checkNoBlob(t, repo, sha(base))
		c.checkUploadSize(t, location, len(base)+len(more))
		published = base + more
		c.do(t, request{method: "PUT", url: closeURL(location, sha(published))}).hasStatus(t, 201)
	default:
		// The PUT had the lease while it found that bytes were missing.
		if !afterPatch || patch.status != 416 || put.status != 400 {
			t.Errorf("both were rejected: %v, %v", patch, put)
		}
		c.checkNoBlob(t, repo, sha(published))
		c.checkUploadSize(t, location, len(base))
		c.do(t, request{method: "PUT", url: closeURL(location, sha(published)), header: chunk(len(base), len(more)), body: more}).hasStatus(t, 201)
	}
	c.checkBlob(t, repo, published)
	c.checkUploadEnded(t, location)
}

// twoPatches races two chunks for the same range.
func twoPatches(t *testing.T, c *client, _ int, repo string) {
	base := random(10 + rand.IntN(10_000))
	n := 10 + rand.IntN(60_000)
	chunks := []string{random(n), random(n)}
	location := c.startUploadWith(t, repo, base)
	var patches [2]response
	patch := func(i int) func() {
		return func() {
			patches[i] = c.do(t, request{method: "PATCH", url: location, header: chunk(len(base), n), body: chunks[i], slow: true})
		}
	}
	concurrently(patch(0), patch(1))
	c.countOutcome(patches[:]...)
	winner := slices.IndexFunc(patches[:], func(a response) bool { return a.status == 202 })
	if winner < 0 {
		t.Errorf("both were rejected: %v", patches)
		return
	}
	if loser := patches[1-winner]; loser.hasError(t, 416, "BLOB_UPLOAD_INVALID") && loser.header.Get("Range") == "" {
		t.Errorf("rejected without a Range header: %v", loser)
	}
	c.checkUploadSize(t, location, len(base)+n)
	c.do(t, request{method: "PUT", url: closeURL(location, sha(base+chunks[1-winner]))}).hasError(t, 400, "DIGEST_INVALID")
	c.do(t, request{method: "PUT", url: closeURL(location, sha(base+chunks[winner]))}).hasStatus(t, 201)
	c.checkBlob(t, repo, base+chunks[winner])
	c.checkUploadEnded(t, location)
}

// twoStreams races two PATCHes without Content-Range: each is either appended in
// full or rejected.
func twoStreams(t *testing.T, c *client, _ int, repo string) {
	base := random(10 + rand.IntN(10_000))
	streams := []string{random(10 + rand.IntN(60_000)), random(10 + rand.IntN(60_000))}
	location := c.startUploadWith(t, repo, base)
	var patches [2]response
	patch := func(i int) func() {
		return func() {
			patches[i] = c.do(t, request{method: "PATCH", url: location, body: streams[i], slow: true})
		}
	}
	concurrently(patch(0), patch(1))
	c.countOutcome(patches[:]...)
	size := len(base)
	candidates := []string{base}
	for i, a := range patches {
		if a.hasStatus(t, 202, 416) && a.status == 202 {
			size += len(streams[i])
			candidates = append(candidates, base+streams[i])
		}
	}
	switch len(candidates) {
	case 1:
		t.Errorf("both were rejected")
	case 3:
		candidates = []string{base + streams[0] + streams[1], base + streams[1] + streams[0]}
	}
	c.checkUploadSize(t, location, size)
	for _, data := range candidates {
		if c.do(t, request{method: "PUT", url: closeURL(location, sha(data))}).status == 201 {
			c.checkBlob(t, repo, data)
			c.checkUploadEnded(t, location)
			return
		}
	}
	t.Errorf("the session has unexpected content: %v", patches)
}

// closeAgainstCancel races the closing PUT with a cancel: exactly one succeeds.
func closeAgainstCancel(t *testing.T, c *client, round int, repo string) {
	base, more := random(10+rand.IntN(10_000)), ""
	header := map[string]string(nil)
	if round%2 == 0 {
		more = random(10 + rand.IntN(30_000))
		header = chunk(len(base), len(more))
	}
	location := c.startUploadWith(t, repo, base)
	var put, cancel response
	concurrently(func() {
		put = c.do(t, request{method: "PUT", url: closeURL(location, sha(base+more)), header: header, body: more, slow: true})
	}, func() {
		cancel = c.delete(t, location)
	})
	c.countOutcome(put, cancel)
	if put.status == 201 {
		cancel.hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
		c.checkBlob(t, repo, base+more)
	} else {
		put.hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
		cancel.hasStatus(t, 204)
		c.checkNoBlob(t, repo, sha(base+more))
	}
	c.checkUploadEnded(t, location)
}

// twoCloses races two closing PUTs, with the same last chunk or with different ones.
func twoCloses(t *testing.T, c *client, round int, repo string) {
	base := random(10 + rand.IntN(10_000))
	n := 10 + rand.IntN(30_000)
	last := []string{random(n), random(n)}
	if round%2 == 0 {
		last[1] = last[0]
	}
	location := c.startUploadWith(t, repo, base)
	var puts [2]response
	put := func(i int) func() {
		return func() {
			puts[i] = c.do(t, request{method: "PUT", url: closeURL(location, sha(base+last[i])), header: chunk(len(base), n), body: last[i], slow: true})
		}
	}
	concurrently(put(0), put(1))
	c.countOutcome(puts[:]...)
	winner := slices.IndexFunc(puts[:], func(a response) bool { return a.status == 201 })
	if winner < 0 {
		t.Errorf("both were rejected: %v", puts)
		return
	}
	puts[1-winner].hasStatus(t, 404, 416)
	c.checkBlob(t, repo, base+last[winner])
	if last[0] != last[1] {
		c.checkNoBlob(t, repo, sha(base+last[1-winner]))
	}
	c.checkUploadEnded(t, location)
}

// deleteAgainstDownload deletes a blob, the only content of its repository, while
// it is being downloaded.
func deleteAgainstDownload(t *testing.T, c *client, round int, repo string) {
	data := random(1<<20 + rand.IntN(1<<20)) // more than the buffers in between hold
	c.pushBlob(t, repo, data).hasStatus(t, 201)
	url := blobURL(repo, sha(data))
	if round%2 == 0 { // both at the same time
		var get, del response
		concurrently(func() { get = c.get(t, url) }, func() { del = c.delete(t, url) })
		c.countOutcome(get, del)
		get.hasStatus(t, 200, 404)
		if get.status == 200 && get.body != data {
			t.Errorf("the blob is incomplete")
		}
		del.hasStatus(t, 202)
		c.checkNoBlob(t, repo, sha(data))
		return
	}
	resp, err := c.send(request{method: "GET", url: url})
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
	c.delete(t, url).hasStatus(t, 202)
	c.checkNoBlob(t, repo, sha(data))
	// A blob that may take the place of the deleted bytes.
	other := random(len(data))
	c.pushBlob(t, repo, other).hasStatus(t, 201)
	rest, err := io.Copy(hash, resp.Body)
	if got := digest.NewDigest(digest.SHA256, hash); err != nil || n+rest != int64(len(data)) || got.String() != sha(data) {
		t.Errorf("%d of %d bytes, %s, %v; want %s", n+rest, len(data), got, err, sha(data))
	}
	c.checkBlob(t, repo, other)
}

// deleteAgainstMount deletes a blob while another repository mounts it, with or
// without the from parameter.
func deleteAgainstMount(t *testing.T, c *client, round int, repo string) {
	data := random(10 + rand.IntN(10_000))
	target := repo + "/target"
	c.pushBlob(t, repo, data).hasStatus(t, 201)
	from := "&from=" + repo
	if round%2 == 0 {
		from = ""
	}
	var mount, del response
	concurrently(func() {
		mount = c.do(t, request{method: "POST", url: "/v2/" + target + "/blobs/uploads/?mount=" + sha(data) + from})
	}, func() {
		del = c.delete(t, blobURL(repo, sha(data)))
	})
	c.countOutcome(mount, del)
	del.hasStatus(t, 202)
	c.checkNoBlob(t, repo, sha(data))
	if mount.status == 201 {
		c.checkBlob(t, target, data)
		return
	}
	mount.hasStatus(t, 202)
	c.checkNoBlob(t, target, sha(data))
	// The mount has opened an upload session instead, which must work.
	location := mount.header.Get("Location")
	c.do(t, request{method: "PUT", url: closeURL(location, sha(data)), body: data}).hasStatus(t, 201)
	c.checkBlob(t, target, data)
	c.checkNoBlob(t, repo, sha(data))
}

// mountAgainstPush mounts a blob while it is pushed to the source or the target of
// the mount.
func mountAgainstPush(t *testing.T, c *client, round int, repo string) {
	data := random(10 + rand.IntN(30_000))
	source, target := repo+"/source", repo
	push, exists := source, false
	if round%2 == 0 {
		c.pushBlob(t, source, data).hasStatus(t, 201)
		push, exists = target, true
	}
	location := c.startUpload(t, push)
	var mount, put response
	concurrently(func() {
		mount = c.do(t, request{method: "POST", url: "/v2/" + target + "/blobs/uploads/?mount=" + sha(data) + "&from=" + source})
	}, func() {
		put = c.do(t, request{method: "PUT", url: closeURL(location, sha(data)), body: data, slow: true})
	})
	c.countOutcome(mount, put)
	put.hasStatus(t, 201)
	c.checkBlob(t, push, data)
	switch {
	case mount.status == 201:
		c.checkBlob(t, target, data)
		// A single delete removes it, although it was added twice.
		c.delete(t, blobURL(target, sha(data))).hasStatus(t, 202)
		c.checkNoBlob(t, target, sha(data))
		c.checkBlob(t, source, data)
	case exists:
		t.Errorf("not mounted, although the source has it: %v", mount)
	default:
		mount.hasStatus(t, 202)
		c.checkNoBlob(t, target, sha(data))
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

// tagMoved runs many writers that move a tag, and readers that must never find it
// torn.
func tagMoved(t *testing.T, c *client, _ int, repo string) {
	contents, mediaTypes, digests := manifests(50)
	c.pushManifest(t, repo, "tag", mediaTypes[digests[0]], contents[digests[0]]).hasStatus(t, 201)

	var writing atomic.Int32
	var last sync.Map // the last digest of each writer
	var functions []func()
	for i := range digests {
		writing.Add(1)
		functions = append(functions, func() {
			defer writing.Add(-1)
			for j := range 4 {
				d := digests[(i+j*7)%len(digests)]
				c.pushManifest(t, repo, "tag", mediaTypes[d], contents[d]).hasStatus(t, 201)
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
				a := c.do(t, request{method: method, url: manifestURL(repo, "tag")})
				if !a.hasStatus(t, 200) {
					return
				}
				// do has checked that the body has the digest.
				d := a.header.Get("Docker-Content-Digest")
				if contents[d] == "" || a.header.Get("Content-Type") != mediaTypes[d] || a.header.Get("Content-Length") != fmt.Sprint(len(contents[d])) {
					t.Errorf("torn: %v, want %s and %d bytes", a.header, mediaTypes[d], len(contents[d]))
				}
			}
		})
	}
	concurrently(functions...)
	// The tag points at the last manifest of some writer; each manifest still
	// exists.
	d := c.get(t, manifestURL(repo, "tag")).header.Get("Docker-Content-Digest")
	written := false
	last.Range(func(_, v any) bool {
		written = v == d
		return !written
	})
	if !written {
		t.Errorf("at the end the tag is %s, not the last one of any writer", d)
	}
	for _, d := range digests {
		c.get(t, manifestURL(repo, d)).hasStatus(t, 200)
	}
	if tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags"); !slices.Equal(tags, []string{"tag"}) {
		t.Errorf("tags: %q", tags)
	}
}

// tagCreated runs many writers that create a tag with If-None-Match: exactly one
// succeeds.
func tagCreated(t *testing.T, c *client, _ int, repo string) {
	contents, mediaTypes, digests := manifests(8)
	var created atomic.Int32
	var winner atomic.Value
	var functions []func()
	for _, d := range digests {
		functions = append(functions, func() {
			a := c.do(t, request{method: "PUT", url: manifestURL(repo, "tag"), body: contents[d],
				header: map[string]string{"Content-Type": mediaTypes[d], "If-None-Match": "*"}})
			if a.hasStatus(t, 201, 412) && a.status == 201 {
				created.Add(1)
				winner.Store(d)
			}
		})
	}
	concurrently(functions...)
	if created.Load() != 1 {
		t.Errorf("%d writers created the tag", created.Load())
		return
	}
	for _, d := range digests {
		// All or nothing: a rejected push leaves no manifest either.
		want := 404
		if d == winner.Load() {
			want = 200
		}
		c.get(t, manifestURL(repo, d)).hasStatus(t, want)
	}
	if d := c.get(t, manifestURL(repo, "tag")).header.Get("Docker-Content-Digest"); d != winner.Load() {
		t.Errorf("the tag is %s, want the acknowledged %s", d, winner.Load())
	}
}

// tagIncremented runs many writers that increment the number that a tag points at,
// with If-Match: no increment is lost.
func tagIncremented(t *testing.T, c *client, _ int, repo string) {
	const workers, each = 8, 5
	c.pushManifest(t, repo, "tag", "text/plain", "0").hasStatus(t, 201)
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
				put := c.do(t, request{method: "PUT", url: manifestURL(repo, "tag"), body: fmt.Sprint(n + 1),
					header: map[string]string{"Content-Type": "text/plain", "If-Match": a.header.Get("Etag")}})
				if put.hasStatus(t, 201, 412) && put.status == 201 {
					done++
				}
			}
		})
	}
	concurrently(functions...)
	if a := c.get(t, manifestURL(repo, "tag")); a.body != fmt.Sprint(workers*each) {
		t.Errorf("the tag is at %s, want %d", a.body, workers*each)
	}
}

// tagAgainstDelete tags a manifest while it is deleted: either both the tag and the
// manifest exist afterwards, or neither.
func tagAgainstDelete(t *testing.T, c *client, _ int, repo string) {
	const content = "content"
	url := manifestURL(repo, sha(content))
	c.pushManifest(t, repo, "old", "text/plain", content).hasStatus(t, 201)
	c.pushManifest(t, repo, "other", "text/plain", "other").hasStatus(t, 201)
	concurrently(func() {
		c.pushManifest(t, repo, "new", "text/plain", content).hasStatus(t, 201)
	}, func() {
		c.delete(t, url).hasStatus(t, 202)
	}, func() {
		for range 5 {
			tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags")
			if !slices.Contains(tags, "other") {
				t.Errorf("the tag of another manifest is missing: %q", tags)
			}
			c.get(t, manifestURL(repo, "new")).hasStatus(t, 200, 404)
		}
	})
	want := []string{"other"}
	a := c.get(t, url)
	c.countOutcome(a)
	if a.hasStatus(t, 200, 404) && a.status == 200 {
		want = []string{"new", "other"}
	}
	if tags, _ := c.walk(t, "/v2/"+repo+"/tags/list", "tags"); !slices.Equal(tags, want) {
		t.Errorf("tags: %q, want %q", tags, want)
	}
	for _, tag := range want {
		c.get(t, manifestURL(repo, tag)).hasStatus(t, 200)
	}
	c.get(t, manifestURL(repo, "old")).hasStatus(t, 404)
}

// referrersPushed pushes 200 referrers concurrently, while readers list them: a
// list has all referrers that were acknowledged before it was requested.
func referrersPushed(t *testing.T, c *client, _ int, repo string) {
	const writers, each = 20, 10
	const subject = `{"schemaVersion":2,"manifests":[]}`
	c.pushBlob(t, repo, "{}").hasStatus(t, 201)
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
			if err := json.Unmarshal([]byte(a.body), &index); !a.hasStatus(t, 200) || err != nil {
				t.Errorf("%s: %v", url, err)
				return got
			}
			for _, d := range index.Manifests {
				if d.Digest.String() <= last {
					t.Errorf("%s: %s after %s", url, d.Digest, last)
					return got // the list may be endless
				}
				last = d.Digest.String()
				got[last] = d.Annotations["n"]
				var i int
				fmt.Sscan(got[last], &i)
				if want[last] != got[last] || d.Size != int64(len(content(i))) || d.ArtifactType != fmt.Sprintf("application/vnd.example.%d", i%3) {
					t.Errorf("%s: %v", url, d)
				}
			}
			url = nextPage(t, a)
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
				if a.hasStatus(t, 201) && a.header.Get("OCI-Subject") != sha(subject) {
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
						t.Errorf("the list lacks the acknowledged %s", d)
					}
				}
			}
		})
	}
	concurrently(functions...)
	for _, query := range []string{"", "?n=17"} {
		if got := list(query); len(got) != len(want) {
			t.Errorf("%d of %d referrers with %q", len(got), len(want), query)
		}
	}
}

// listWhileChanging reads a list repeatedly while names are added and removed.
func listWhileChanging(t *testing.T, c *client, url, field string, add func(name string) response, remove func(name string)) {
	var permanent []string
	known := make(map[string]bool)
	for i := range 60 {
		name := fmt.Sprintf("k%03d", i)
		add(name).hasStatus(t, 201)
		permanent = append(permanent, name)
		known[name], known[name+"x"] = true, true
	}
	var walking atomic.Int32
	var functions []func()
	for i := range 3 { // each changes a third of the names
		functions = append(functions, func() {
			rng := rand.New(rand.NewPCG(uint64(i), rand.Uint64()))
			present := make(map[string]bool)
			for ; walking.Load() > 0 && !t.Failed(); pause() {
				name := permanent[rng.IntN(len(permanent)/3)*3+i] + "x"
				if present[name] = !present[name]; present[name] {
					add(name).hasStatus(t, 201)
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
				names, pages := c.walk(t, url, field) // checks that they are in order, without duplicates
				if last := pages[len(pages)-1]; !last.hasStatus(t, 200) {
					return
				}
				for _, name := range names {
					if !known[name] {
						t.Errorf("%q was never added", name)
					}
				}
				names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, "x") })
				if !slices.Equal(names, permanent) {
					t.Errorf("of the names that are always present, only %q are listed", names)
				}
			}
		})
	}
	concurrently(functions...)
}

func listChangingTags(t *testing.T, c *client, round int, repo string) {
	listWhileChanging(t, c, "/v2/"+repo+"/tags/list?n=7", "tags", func(tag string) response {
		return c.pushManifest(t, repo, tag, "text/plain", tag)
	}, func(tag string) {
		ref := tag
		if rand.IntN(2) == 0 {
			ref = sha(tag) // this deletes the tag too
		}
		c.delete(t, manifestURL(repo, ref)).hasStatus(t, 202)
	})
}

func listChangingCatalog(t *testing.T, c *client, _ int, _ string) {
	c.reset() // the catalog must not have the repositories of other rounds
	// Some repositories hold a blob, others a manifest.
	holdsBlob := func(repo string) bool { return repo[3]%2 == 0 }
	listWhileChanging(t, c, "/v2/_catalog?n=7", "repositories", func(repo string) response {
		if holdsBlob(repo) {
			return c.pushBlob(t, repo, "{}")
		}
		return c.pushManifest(t, repo, "tag", "text/plain", "m")
	}, func(repo string) {
		if holdsBlob(repo) {
			c.delete(t, blobURL(repo, sha("{}"))).hasStatus(t, 202)
			return
		}
		c.delete(t, manifestURL(repo, sha("m"))).hasStatus(t, 202)
	})
}
