// SPDX-License-Identifier: Apache-2.0

//go:build linux

// The rows of the table.

package compare

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// row is a kind of work.
type row struct {
	name  string
	goal  float64  // the target rate, relative to raw's
	conns int      // the number of concurrent connections
	ops   int      // the operations of all connections together, per round
	bytes int64    // the bytes that an operation transfers; 0 if they are not significant
	kinds []string // the servers that support it; nil for all

	// prepare seeds a server, and returns op, which runs the i-th operation
	// on a connection. cleanup, unless nil, runs after each round and is not
	// measured.
	prepare func(t testing.TB, c *conn) (op func(c *conn, i int) error, cleanup func(c *conn))
}

const (
	mib   = 1 << 20
	large = 256 * mib
	repo  = "bench/repo"
)

// randomData returns size random bytes.
func randomData(seed byte, size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{seed, 9}).Read(data)
	return data
}

// largeData is set by TestMain, but not in servers.
var largeData []byte

// pull returns an operation that sends the same request each time. It checks the
// digest of the first response, and the status and size of all.
func pull(t testing.TB, c *conn, method, target string, status int, size int64, d digest.Digest, header ...string) func(*conn, int) error {
	t.Helper()
	if method == "GET" {
		a, err := c.want(status, method, target, nil, header...)
		if err != nil {
			t.Fatal(err)
		}
		if size >= 0 && a.size != size || d != "" && digest.FromBytes(a.body) != d {
			t.Fatalf("%s: %s %s: %d bytes, %s", c.s.kind, method, target, a.size, digest.FromBytes(a.body))
		}
		size = a.size
	}
	head := request(method, target, 0, header...)
	return func(c *conn, _ int) error {
		a, err := c.do(head, nil, method == "HEAD", false)
		if err == nil && (a.status != status || method == "GET" && a.size != size) {
			err = fmt.Errorf("%s: %s %s: %d, %d bytes", c.s.kind, method, target, a.status, a.size)
		}
		return err
	}
}

// manifestOf returns an image manifest whose config is the first blob.
func manifestOf(blobs ...digest.Digest) []byte {
	var layers []string
	for _, d := range blobs {
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":1}`, d))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":1},"layers":[%s]}`, imageType, blobs[0], strings.Join(layers, ","))
}

// largePush pushes the large blob, and deletes it after each round.
func largePush(patches int) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
		d := digest.FromBytes(largeData)
		return func(c *conn, _ int) error { return c.push(repo, largeData, d, patches) },
			func(c *conn) { c.want(202, "DELETE", "/v2/"+repo+"/blobs/"+d.String(), nil) }
	}
}

// pullBlob pulls a blob.
func pullBlob(size int) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		data := largeData[:size]
		d := c.seedBlob(t, repo, data)
		return pull(t, c, "GET", "/v2/"+repo+"/blobs/"+d.String(), 200, int64(size), d), nil
	}
}

// getManifest requests a manifest by tag or by digest.
func getManifest(method string, byDigest bool) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		blob := c.seedBlob(t, repo, largeData[:100])
		ref, d := "tag", c.seedManifest(t, repo, "tag", imageType, manifestOf(blob, blob, blob))
		if byDigest {
			ref = d.String()
		}
		want := digest.Digest("")
		if method == "GET" {
			want = d
		}
		return pull(t, c, method, "/v2/"+repo+"/manifests/"+ref, 200, -1, want, "Accept: "+imageType), nil
	}
}

// image returns an image: five layers of 64 KiB and a config.
func image(seed int) (blobs [][]byte, digests []digest.Digest, manifest []byte) {
	for i := range 6 {
		size := 64 << 10
		if i == 0 {
			size = 1000
		}
		offset := (seed*6 + i) * 70_001 % (large - 100_000)
		data := largeData[offset : offset+size]
		blobs, digests = append(blobs, data), append(digests, digest.FromBytes(data))
	}
	return blobs, digests, manifestOf(digests...)
}

// pushImage pushes an image as clients do: it checks for each blob, pushes the
// missing ones, and then the manifest. Raw has only the blobs that were seeded.
func pushImage(c *conn, repo string, blobs [][]byte, digests []digest.Digest, manifest []byte) error {
	for i, d := range digests {
		a, err := c.do(request("HEAD", "/v2/"+repo+"/blobs/"+d.String(), 0), nil, true, false)
		if err == nil && a.status == 404 {
			err = c.push(repo, blobs[i], d, 0)
		}
		if err != nil {
			return err
		}
	}
	_, err := c.want(201, "PUT", "/v2/"+repo+"/manifests/tag", manifest, "Content-Type: "+imageType)
	return err
}

// pushTags tags one manifest n times.
func pushTags(t testing.TB, c *conn, repo string, n int) {
	t.Helper()
	blob := c.seedBlob(t, repo, largeData[:100])
	m := manifestOf(blob)
	for i := range n {
		if _, err := c.want(201, "PUT", fmt.Sprintf("/v2/%s/manifests/t%06d", repo, i), m, "Content-Type: "+imageType); err != nil {
			t.Fatal(err)
		}
	}
}

// page requests 100 names in the middle of a list. Raw serves a fixed page of the
// same form.
func page(target, key string, names func(i int) string, n int, seed func(testing.TB, *conn)) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		target := fmt.Sprintf("%s?n=100&last=%s", target, names(n/2))
		if c.s.kind == "raw" {
			var list []string
			for i := range 100 {
				list = append(list, `"`+names(n/2+1+i)+`"`)
			}
			if err := c.serve(target, "application/json", []byte(`{"name":"`+repo+`","`+key+`":[`+strings.Join(list, ",")+`]}`)); err != nil {
				t.Fatal(err)
			}
		} else {
			seed(t, c)
		}
		a, err := c.want(200, "GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if first := names(n/2 + 1); strings.Count(string(a.body), `"`) != 202+2*b2i(key == "tags")+2*b2i(key == "tags") && strings.Count(string(a.body), `"`) < 202 || !strings.Contains(string(a.body), first) {
			t.Fatalf("%s: %.300s", c.s.kind, a.body)
		}
		return pull(t, c, "GET", target, 200, -1, ""), nil
	}
}

// tagPage requests a page of n tags.
func tagPage(n int) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return page("/v2/"+repo+"/tags/list", "tags", func(i int) string { return fmt.Sprintf("t%06d", i) }, n, func(t testing.TB, c *conn) { pushTags(t, c, repo, n) })
}

// catalogPage requests a page of n repositories.
func catalogPage(n int) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return page("/v2/_catalog", "repositories", func(i int) string { return fmt.Sprintf("r%06d", i) }, n, func(t testing.TB, c *conn) {
		for i := range n {
			pushTags(t, c, fmt.Sprintf("r%06d", i), 1)
		}
	})
}

// referrers requests the n referrers of an image, in a repository with other
// manifests.
func referrers(n, others int) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		blob := digest.FromBytes(largeData[:100])
		subject := digest.FromBytes(manifestOf(blob))
		target := "/v2/" + repo + "/referrers/" + subject.String()
		if c.s.kind == "raw" {
			var list []string
			for i := range n {
				list = append(list, fmt.Sprintf(`{"mediaType":"%s","digest":"%s","size":%d,"artifactType":"application/vnd.example.%d","annotations":{"i":"%d"}}`, imageType, subject, 500, i, i))
			}
			if err := c.serve(target, indexType, []byte(`{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":[`+strings.Join(list, ",")+`]}`)); err != nil {
				t.Fatal(err)
			}
		} else {
			c.seedBlob(t, repo, largeData[:100])
			c.seedManifest(t, repo, "subject", imageType, manifestOf(blob))
			for i := range n {
				pushReferrer(t, c, subject, i)
			}
			for i := range others {
				c.seedManifest(t, repo, fmt.Sprint("other", i), imageType, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"x/y","digest":"%s","size":100},"layers":[],"annotations":{"n":"%d"}}`, imageType, blob, i))
			}
		}
		a, err := c.want(200, "GET", target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(a.body), `"digest"`); got != n {
			t.Fatalf("%s: %d referrers, want %d", c.s.kind, got, n)
		}
		return pull(t, c, "GET", target, 200, -1, ""), nil
	}
}

// pushReferrer pushes the i-th referrer of subject.
func pushReferrer(t testing.TB, c *conn, subject digest.Digest, i int) {
	blob := digest.FromBytes(largeData[:100])
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","artifactType":"application/vnd.example.%d","config":{"mediaType":"x/y","digest":"%s","size":100},"layers":[],"subject":{"mediaType":"%s","digest":"%s","size":1},"annotations":{"i":"%d"}}`, imageType, i, blob, imageType, subject, i)
	if _, err := c.want(201, "PUT", "/v2/"+repo+"/manifests/"+digest.FromBytes(m).String(), m, "Content-Type: "+imageType); err != nil {
		t.Fatal(err)
	}
}

// during pulls small blobs while another client stalls: it does not finish sending a
// body, or does not read a response.
func during(slow func(c *conn, large digest.Digest) []byte) func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
	return func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		op, _ := pullBlob(4<<10)(t, c)
		d := c.seedBlob(t, repo, largeData[:16*mib])
		stalled, err := net.Dial("tcp", c.s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stalled.Close() })
		if _, err := stalled.Write(slow(c, d)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		return op, nil
	}
}

var noDistribution = []string{"raw", "berth", "ggcr", "cuelabs"}

var rows = []row{
	// distribution's in-memory driver takes more than a minute for one of these,
	// and copies an entire blob for a range of it.
	{name: "push 256 MiB, one PUT", goal: 1.2, conns: 1, ops: 1, bytes: large, kinds: noDistribution, prepare: largePush(0)},
	{name: "push 256 MiB in 16 MiB PATCHes", goal: 1.2, conns: 1, ops: 1, bytes: large, prepare: largePush(16 * mib)},
	{name: "pull 256 MiB, 1 connection", goal: 0.98, conns: 1, ops: 4, bytes: large, kinds: noDistribution, prepare: pullBlob(large)},
	{name: "pull 256 MiB, 8 connections", goal: 0.98, conns: 8, ops: 8, bytes: large, kinds: noDistribution, prepare: pullBlob(large)},
	{name: "ranges of 64 KiB, 8 connections", goal: 0.9, conns: 8, ops: 4000, bytes: 64 << 10, kinds: noDistribution, prepare: func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		d := c.seedBlob(t, repo, largeData[:16*mib])
		return pull(t, c, "GET", "/v2/"+repo+"/blobs/"+d.String(), 206, 64<<10, digest.FromBytes(largeData[10*mib:10*mib+64<<10]), fmt.Sprintf("Range: bytes=%d-%d", 10*mib, 10*mib+64<<10-1)), nil
	}},
	{name: "pull 4 KiB blobs, 8 connections", goal: 0.95, conns: 8, ops: 16_000, bytes: 4 << 10, prepare: pullBlob(4 << 10)},
	{name: "manifest HEAD by tag, 8 connections", goal: 0.95, conns: 8, ops: 16_000, prepare: getManifest("HEAD", false)},
	{name: "manifest HEAD by tag, 64 connections", goal: 0.95, conns: 64, ops: 16_000, prepare: getManifest("HEAD", false)},
	{name: "manifest GET by tag, 8 connections", goal: 0.95, conns: 8, ops: 16_000, prepare: getManifest("GET", false)},
	{name: "manifest GET by tag, 64 connections", goal: 0.95, conns: 64, ops: 16_000, prepare: getManifest("GET", false)},
	{name: "manifest GET by digest, 8 connections", goal: 0.95, conns: 8, ops: 16_000, prepare: getManifest("GET", true)},
	{name: "push 4 KiB blobs, POST and PUT", goal: 0.95, conns: 8, ops: 8000, bytes: 4 << 10, prepare: func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
		return func(c *conn, i int) error {
			data := largeData[i*4096 : i*4096+4096]
			return c.push(repo, data, digest.FromBytes(data), 0)
		}, nil
	}},
	{name: "push 4 KiB blobs, single POST", goal: 0.95, conns: 8, ops: 8000, bytes: 4 << 10, kinds: []string{"raw", "berth", "ggcr", "cuelabs"}, prepare: func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
		return func(c *conn, i int) error {
			data := largeData[i*4096 : i*4096+4096]
			_, err := c.want(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(data).String(), data, octets)
			return err
		}, nil
	}},
	{name: "push an image of five 64 KiB layers", goal: 0.95, conns: 4, ops: 1000, bytes: 5 * 64 << 10, prepare: func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
		return func(c *conn, i int) error {
			blobs, digests, manifest := image(i)
			return pushImage(c, fmt.Sprint("bench/image", i), blobs, digests, manifest)
		}, nil
	}},
	{name: "push the same image again", goal: 1.1, conns: 4, ops: 2000, prepare: func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		blobs, digests, manifest := image(0)
		for _, data := range blobs {
			c.seedBlob(t, repo, data)
		}
		return func(c *conn, _ int) error { return pushImage(c, repo, blobs, digests, manifest) }, nil
	}},
	{name: "mount an image", goal: 0.9, conns: 4, ops: 1500, kinds: []string{"raw", "berth", "cuelabs", "distribution"}, prepare: func(t testing.TB, c *conn) (func(*conn, int) error, func(*conn)) {
		blobs, digests, manifest := image(0)
		for _, data := range blobs {
			c.seedBlob(t, repo, data)
		}
		return func(c *conn, i int) error {
			to := fmt.Sprint("bench/mount", i)
			for _, d := range digests {
				if _, err := c.want(201, "POST", "/v2/"+to+"/blobs/uploads/?mount="+d.String()+"&from="+repo, nil); err != nil {
					return err
				}
			}
			_, err := c.want(201, "PUT", "/v2/"+to+"/manifests/tag", manifest, "Content-Type: "+imageType)
			return err
		}, nil
	}},
	{name: "a page of 100 tags in 10,000", goal: 0.8, conns: 8, ops: 8000, prepare: tagPage(10_000)},
	{name: "a page of 100 tags in 100,000", goal: 0.8, conns: 8, ops: 8000, kinds: []string{"raw", "berth"}, prepare: tagPage(100_000)},
	// go-containerregistry's catalog is unordered, so it has no pages.
	{name: "a page of 100 of 10,000 repositories", goal: 0.8, conns: 8, ops: 8000, kinds: []string{"raw", "berth", "cuelabs"}, prepare: catalogPage(10_000)},
	{name: "10 referrers among 10,000 manifests", goal: 0.8, conns: 8, ops: 8000, kinds: []string{"raw", "berth", "ggcr", "cuelabs"}, prepare: referrers(10, 10_000)},
	{name: "1,000 referrers", goal: 0.5, conns: 8, ops: 800, kinds: []string{"raw", "berth", "ggcr", "cuelabs"}, prepare: referrers(1000, 0)},
	{name: "pull 4 KiB blobs during a stalled push", goal: 0.95, conns: 7, ops: 8000, bytes: 4 << 10, kinds: []string{"raw", "berth", "cuelabs", "distribution"}, prepare: during(func(c *conn, _ digest.Digest) []byte {
		a, err := c.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
		if err != nil {
			panic(err)
		}
		return append(request("PUT", withDigest(a.location, digest.FromString("x")), 10*mib, octets), largeData[:mib]...)
	})},
	{name: "pull 4 KiB blobs during a stalled pull", goal: 0.95, conns: 7, ops: 8000, bytes: 4 << 10, prepare: during(func(c *conn, d digest.Digest) []byte {
		return request("GET", "/v2/"+repo+"/blobs/"+d.String(), 0)
	})},
	{name: "push and delete 1 MiB blobs", goal: 0.83, conns: 4, ops: 400, bytes: mib, prepare: func(testing.TB, *conn) (func(*conn, int) error, func(*conn)) {
		return func(c *conn, i int) error {
			offset := i * 4096
			data := largeData[offset : offset+mib]
			d := digest.FromBytes(data)
			err := c.push(repo, data, d, 0)
			if err == nil {
				_, err = c.want(http.StatusAccepted, "DELETE", "/v2/"+repo+"/blobs/"+d.String(), nil)
			}
			return err
		}, nil
	}},
}

// supportedBy reports whether a kind of server supports r.
func (r row) supportedBy(kind string) bool {
	return r.kinds == nil || slices.Contains(r.kinds, strings.TrimSuffix(kind, " serve"))
}
