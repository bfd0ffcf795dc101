// SPDX-License-Identifier: Apache-2.0

package replicas

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/interop/internal/berth"
)

var duration = flag.Duration("duration", 3*time.Second, "how long TestReplicas writes")

// TestReplicas has 16 writers push images to 100 tags of three replicas on a
// cluster of four nodes of MinIO, each request to the next replica: also those
// of one chunked upload. On the way a node and a replica are killed, and gc
// runs. Nothing that was acknowledged is lost, each tag is at a push that
// nobody overtook, and no reader finds a tag without its content.
func TestReplicas(t *testing.T) {
	const replicas, writers, tags = 3, 16, 100
	cluster := miniotest.StartCluster(t, 4)
	bucket, _, _ := strings.Cut(strings.TrimPrefix(cluster.URL(t), "s3://"), "?")
	b := &balancer{client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * writers}}}
	var servers []*berth.Server
	for i := range replicas {
		s := berth.Start(t, "--store="+cluster.URLAt(bucket, cluster.Address(i)))
		servers = append(servers, s)
		b.addrs = append(b.addrs, s.Addr)
	}
	defer func() {
		if t.Failed() {
			for _, s := range servers {
				s.Kill()
				log := s.Log.String()
				t.Logf("a replica's log ends:\n%s", log[max(0, len(log)-4000):])
			}
		}
	}()

	end := time.Now().Add(*duration)
	h := &history{writes: make(map[string][]*write)}
	var wg sync.WaitGroup
	for i := range writers {
		w := writer{t: t, b: b, h: h, id: i, random: rand.New(rand.NewPCG(uint64(i), 2))}
		wg.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				w.push(fmt.Sprint("tag-", w.random.IntN(tags)))
			}
		})
	}
	for range 2 { // readers
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, 1))
			for time.Now().Before(end) && !t.Failed() {
				b.checkTag(t, fmt.Sprint("tag-", random.IntN(tags)))
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	collections := 0
	wg.Go(func() {
		for time.Now().Before(end) && !t.Failed() {
			out, err := exec.Command(binary, "gc", "--grace=30m", "--store="+cluster.URLAt(bucket, cluster.Address(0))).CombinedOutput()
			if err != nil {
				t.Errorf("gc: %v: %s", err, out)
			}
			collections++
			time.Sleep(time.Second)
		}
	})
	time.Sleep(*duration / 3)
	cluster.Kill(replicas) // one that no replica talks to: its drive is what is lost
	time.Sleep(*duration / 3)
	servers[replicas-1].Kill()
	wg.Wait()

	h.check(t, b)
	t.Logf("%d images pushed, %d requests, of which %d were repeated at another replica; %d collections", h.acknowledged, b.requests.Load(), b.repeated.Load(), collections)
}

// balancer sends each request to the next replica.
type balancer struct {
	client             *http.Client
	addrs              []string
	next               atomic.Int64
	requests, repeated atomic.Int64
}

// once sends a request to one replica.
func (b *balancer) once(method, path, contentType string, body []byte) (int, http.Header, []byte, error) {
	b.requests.Add(1)
	addr := b.addrs[int(b.next.Add(1))%len(b.addrs)]
	req, err := http.NewRequest(method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := b.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusServiceUnavailable {
		err = errors.New("503")
	}
	return resp.StatusCode, resp.Header, answer, err
}

// send sends a request that may be repeated until a replica answers it.
func (b *balancer) send(t *testing.T, method, path, contentType string, body []byte, want ...int) (int, http.Header, []byte) {
	status, header, answer, _ := b.tries(t, method, path, contentType, body, want...)
	return status, header, answer
}

// tries is send, and returns how often the request was sent.
func (b *balancer) tries(t *testing.T, method, path, contentType string, body []byte, want ...int) (int, http.Header, []byte, int) {
	var last error
	for n := range 100 {
		status, header, answer, err := b.once(method, path, contentType, body)
		if err == nil {
			if !slices.Contains(want, status) {
				t.Errorf("%s %s: %d %s", method, path, status, answer)
			}
			return status, header, answer, n + 1
		}
		last = err
		b.repeated.Add(1)
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s %s: %v", method, path, last)
	return 0, nil, nil, 100
}

const (
	repo   = "shared/repository"
	octets = "application/octet-stream"
)

// checkTag checks that a tag, if there is one, has all its content.
func (b *balancer) checkTag(t *testing.T, tag string) {
	status, header, content := b.send(t, "GET", "/v2/"+repo+"/manifests/"+tag, "", nil, 200, 404)
	if status != 200 {
		return
	}
	if d := digest.FromBytes(content).String(); d != header.Get("Docker-Content-Digest") {
		t.Errorf("%s is torn: %s, not %s", tag, d, header.Get("Docker-Content-Digest"))
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		t.Errorf("%s: %v", tag, err)
	}
	for _, d := range append(m.Layers, m.Config) {
		b.send(t, "HEAD", "/v2/"+repo+"/blobs/"+d.Digest.String(), "", nil, 200)
	}
}

// history is what writers did.
type history struct {
	mu           sync.Mutex // guards what follows
	writes       map[string][]*write
	acknowledged int
}

// write is a push to a tag.
type write struct {
	manifest   digest.Digest
	layer      []byte
	begun, end time.Time // end is zero where it was never acknowledged
	repeated   bool      // what was sent first may still have its effect later
}

// writer pushes images.
type writer struct {
	t      *testing.T
	b      *balancer
	h      *history
	id, n  int
	random *rand.Rand
}

// push pushes an image with a layer that comes in three chunks.
func (w *writer) push(tag string) {
	w.n++
	layer := make([]byte, 30_000)
	for i := range layer {
		layer[i] = byte(w.random.Uint32())
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"author":"%d-%d"}`, w.id, w.n%10)
	if !w.chunked(layer) || !w.whole(config) {
		return
	}
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
		Subject:   &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 1},
	}
	m.SchemaVersion = 2
	content, err := json.Marshal(m)
	if err != nil {
		w.t.Error(err)
		return
	}
	this := &write{manifest: digest.FromBytes(content), layer: layer, begun: time.Now()}
	w.h.mu.Lock()
	w.h.writes[tag] = append(w.h.writes[tag], this)
	w.h.mu.Unlock()
	status, _, _, tries := w.b.tries(w.t, "PUT", "/v2/"+repo+"/manifests/"+tag, m.MediaType, content, 201)
	if status != 201 {
		return
	}
	w.h.mu.Lock()
	this.repeated = tries > 1
	this.end = time.Now()
	w.h.acknowledged++
	w.h.mu.Unlock()
}

// subject is what all images refer to.
var subject = digest.FromString("subject")

// whole pushes a blob in one request.
func (w *writer) whole(data []byte) bool {
	status, _, _ := w.b.send(w.t, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(data).String(), octets, data, 201)
	return status == 201
}

// chunked pushes a blob in chunks, each at another replica. Where one gave no
// answer, the next is asked how far the upload is.
func (w *writer) chunked(data []byte) bool {
	_, header, _ := w.b.send(w.t, "POST", "/v2/"+repo+"/blobs/uploads/", octets, nil, 202)
	if header == nil {
		return false
	}
	location := header.Get("Location")
	const chunk = 10_000
	for sent, tries := 0, 0; sent < len(data); tries++ {
		if tries == 100 {
			w.t.Errorf("an upload does not go on at byte %d", sent)
			return false
		}
		status, _, answer, err := w.b.once("PATCH", location, octets, data[sent:min(sent+chunk, len(data))])
		if err == nil && status == 202 {
			sent += chunk
			continue
		}
		if err == nil && status != 416 {
			w.t.Errorf("PATCH: %d %s", status, answer)
			return false
		}
		time.Sleep(100 * time.Millisecond)
		w.b.repeated.Add(1)
		_, header, _ := w.b.send(w.t, "GET", location, "", nil, 204)
		if header == nil {
			return false
		}
		var last int
		fmt.Sscanf(header.Get("Range"), "0-%d", &last)
		if sent = 0; last > 0 {
			sent = last + 1
		}
	}
	d := digest.FromBytes(data).String()
	for range 100 {
		status, _, answer, err := w.b.once("PUT", location+"?digest="+d, octets, nil)
		switch {
		case err == nil && status == 201:
			return true
		case err == nil && status != 404:
			w.t.Errorf("PUT: %d %s", status, answer)
			return false
		}
		time.Sleep(100 * time.Millisecond)
		w.b.repeated.Add(1)
		// It may have been done though nobody said so; or it is to be begun
		// anew, as after any answer that is lost.
		if status, _, _ := w.b.send(w.t, "HEAD", "/v2/"+repo+"/blobs/"+d, "", nil, 200, 404); status == 200 {
			return true
		}
		if err == nil { // the session is gone
			return w.whole(data)
		}
	}
	w.t.Error("an upload is not published")
	return false
}

// check checks what the replicas have at the end.
func (h *history) check(t *testing.T, b *balancer) {
	_, _, list := b.send(t, "GET", "/v2/"+repo+"/tags/list", "", nil, 200)
	var tags struct{ Tags []string }
	qt.Assert(t, qt.IsNil(json.Unmarshal(list, &tags)))
	referrers := h.referrers(t, b)
	for tag, writes := range h.writes {
		if t.Failed() {
			return
		}
		b.checkTag(t, tag)
		_, header, _ := b.send(t, "HEAD", "/v2/"+repo+"/manifests/"+tag, "", nil, 200, 404)
		now := header.Get("Docker-Content-Digest")
		var winner *write
		acknowledged := 0
		for _, w := range writes {
			if string(w.manifest) == now {
				winner = w
			}
			if w.end.IsZero() {
				continue
			}
			acknowledged++
			if !referrers[w.manifest] {
				t.Errorf("%s: %s was acknowledged, and is not among the referrers", tag, w.manifest)
			}
			_, _, data := b.send(t, "GET", "/v2/"+repo+"/blobs/"+digest.FromBytes(w.layer).String(), "", nil, 200)
			qt.Check(t, qt.IsTrue(bytes.Equal(data, w.layer)))
			b.send(t, "HEAD", "/v2/"+repo+"/manifests/"+w.manifest.String(), "", nil, 200)
		}
		if acknowledged == 0 {
			continue
		}
		qt.Check(t, qt.IsTrue(slices.Contains(tags.Tags, tag)), qt.Commentf("%s is not in the list", tag))
		if winner == nil {
			t.Errorf("%s is at %s, which nobody pushed", tag, now)
			continue
		}
		for _, w := range writes {
			if !winner.end.IsZero() && !winner.repeated && !w.end.IsZero() && w.begun.After(winner.end) {
				t.Errorf("%s is at %s, but %s was pushed after it", tag, winner.manifest, w.manifest)
			}
		}
	}
}

// referrers returns the digests in the subject's list, all pages of it.
func (h *history) referrers(t *testing.T, b *balancer) map[digest.Digest]bool {
	all := make(map[digest.Digest]bool)
	for path := "/v2/" + repo + "/referrers/" + subject.String(); path != ""; {
		_, header, list := b.send(t, "GET", path, "", nil, 200)
		var index ocispec.Index
		qt.Assert(t, qt.IsNil(json.Unmarshal(list, &index)))
		for _, d := range index.Manifests {
			all[d.Digest] = true
		}
		path = ""
		if link := header.Get("Link"); link != "" {
			path = link[1:strings.IndexByte(link, '>')]
		}
	}
	return all
}
