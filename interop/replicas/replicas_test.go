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

// TestReplicas starts three replicas on a MinIO cluster of four nodes, and 16
// writers that push images to 100 tags. Each request goes to the next replica,
// even within a chunked upload. Meanwhile a node and a replica are killed, and gc
// runs. No acknowledged push may be lost, each tag must point at a push that was
// not superseded, and no reader may find a tag without its content.
func TestReplicas(t *testing.T) {
	const replicas, writers, tags = 3, 16, 100
	cluster := miniotest.StartCluster(t, 4)
	bucket, _, _ := strings.Cut(strings.TrimPrefix(cluster.URL(t), "s3://"), "?")
	b := &balancer{client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * writers}}}
	var servers []*berth.Server
	for i := range replicas {
		s := berth.Start(t, "--store="+cluster.URLAt(bucket, startRelay(t, cluster.Address(i))))
		servers = append(servers, s)
		b.addrs = append(b.addrs, s.Addr)
	}
	defer func() {
		if t.Failed() {
			for _, s := range servers {
				s.Kill()
				log := s.Log.String()
				t.Logf("the end of a replica's log:\n%s", log[max(0, len(log)-100_000):])
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
	cluster.Kill(replicas) // no replica is connected to this node, so only its drive is lost
	time.Sleep(*duration / 3)
	servers[replicas-1].Kill()
	wg.Wait()

	h.check(t, b)
	t.Logf("%d images pushed, %d requests, %d of them retried on another replica; %d runs of gc", h.acknowledged, b.requests.Load(), b.retried.Load(), collections)
}

// balancer sends each request to the next replica.
type balancer struct {
	client            *http.Client
	addrs             []string
	next              atomic.Int64
	requests, retried atomic.Int64
}

// sendOnce sends a request to the next replica.
func (b *balancer) sendOnce(method, path, contentType string, body []byte) (int, http.Header, []byte, error) {
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
	response, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusServiceUnavailable {
		err = errors.New("503")
	}
	return resp.StatusCode, resp.Header, response, err
}

// send sends a request, and retries it until a replica responds.
func (b *balancer) send(t *testing.T, method, path, contentType string, body []byte, want ...int) (int, http.Header, []byte) {
	status, header, response, _ := b.sendCounted(t, method, path, contentType, body, want...)
	return status, header, response
}

// sendCounted is send. It also returns how many times the request was sent.
func (b *balancer) sendCounted(t *testing.T, method, path, contentType string, body []byte, want ...int) (int, http.Header, []byte, int) {
	var last error
	for n := range 100 {
		status, header, response, err := b.sendOnce(method, path, contentType, body)
		if err == nil {
			if !slices.Contains(want, status) {
				t.Errorf("%s %s: %d %s", method, path, status, response)
			}
			return status, header, response, n + 1
		}
		last = err
		b.retried.Add(1)
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s %s: %v", method, path, last)
	return 0, nil, nil, 100
}

const (
	repo   = "shared/repository"
	octets = "application/octet-stream"
)

// checkTag checks that a tag, if it exists, has all its content.
func (b *balancer) checkTag(t *testing.T, tag string) {
	status, header, content := b.send(t, "GET", "/v2/"+repo+"/manifests/"+tag, "", nil, 200, 404)
	if status != 200 {
		return
	}
	if d := digest.FromBytes(content).String(); d != header.Get("Docker-Content-Digest") {
		t.Errorf("%s: the content has the digest %s, want %s", tag, d, header.Get("Docker-Content-Digest"))
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(content, &m); err != nil {
		t.Errorf("%s: %v", tag, err)
	}
	for _, d := range append(m.Layers, m.Config) {
		b.send(t, "HEAD", "/v2/"+repo+"/blobs/"+d.Digest.String(), "", nil, 200)
	}
}

// history records the pushes of all writers.
type history struct {
	mu           sync.Mutex // guards the fields below
	writes       map[string][]*write
	acknowledged int
}

// write is a push to a tag.
type write struct {
	manifest   digest.Digest
	layer      []byte
	begun, end time.Time // end is zero if the push was not acknowledged
	retried    bool      // an earlier attempt may take effect late
}

// writer pushes images.
type writer struct {
	t      *testing.T
	b      *balancer
	h      *history
	id, n  int
	random *rand.Rand
}

// push pushes an image whose layer is sent in three chunks.
func (w *writer) push(tag string) {
	w.n++
	layer := make([]byte, 30_000)
	for i := range layer {
		layer[i] = byte(w.random.Uint32())
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"author":"%d-%d"}`, w.id, w.n%10)
	if !w.pushChunks(layer) || !w.pushBlob(config) {
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
	status, _, _, tries := w.b.sendCounted(w.t, "PUT", "/v2/"+repo+"/manifests/"+tag, m.MediaType, content, 201)
	if status != 201 {
		return
	}
	w.h.mu.Lock()
	this.retried = tries > 1
	this.end = time.Now()
	w.h.acknowledged++
	w.h.mu.Unlock()
}

// subject is the digest that all images refer to.
var subject = digest.FromString("subject")

// pushBlob pushes a blob in one request.
func (w *writer) pushBlob(data []byte) bool {
	status, _, _ := w.b.send(w.t, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(data).String(), octets, data, 201)
	return status == 201
}

// pushChunks pushes a blob in chunks, each to the next replica. If a replica does
// not respond, it gets the upload's status from the next one and continues there.
func (w *writer) pushChunks(data []byte) bool {
	_, header, _ := w.b.send(w.t, "POST", "/v2/"+repo+"/blobs/uploads/", octets, nil, 202)
	if header == nil {
		return false
	}
	location := header.Get("Location")
	const chunk = 10_000
	for sent, tries := 0, 0; sent < len(data); tries++ {
		if tries == 100 {
			w.t.Errorf("an upload makes no progress at byte %d", sent)
			return false
		}
		status, _, response, err := w.b.sendOnce("PATCH", location, octets, data[sent:min(sent+chunk, len(data))])
		if err == nil && status == 202 {
			sent += chunk
			continue
		}
		if err == nil && status != 416 {
			w.t.Errorf("PATCH: %d %s", status, response)
			return false
		}
		time.Sleep(100 * time.Millisecond)
		w.b.retried.Add(1)
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
		status, _, response, err := w.b.sendOnce("PUT", location+"?digest="+d, octets, nil)
		switch {
		case err == nil && status == 201:
			return true
		case err == nil && status != 404:
			w.t.Errorf("PUT: %d %s", status, response)
			return false
		}
		time.Sleep(100 * time.Millisecond)
		w.b.retried.Add(1)
		// The PUT may have succeeded although its response was lost. If not,
		// push the blob again.
		if status, _, _ := w.b.send(w.t, "HEAD", "/v2/"+repo+"/blobs/"+d, "", nil, 200, 404); status == 200 {
			return true
		}
		if err == nil { // the session has ended
			return w.pushBlob(data)
		}
	}
	w.t.Error("an upload was not published")
	return false
}

// check compares the content of the replicas with the history.
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
				t.Errorf("%s: the list of referrers lacks the acknowledged %s", tag, w.manifest)
			}
			_, _, data := b.send(t, "GET", "/v2/"+repo+"/blobs/"+digest.FromBytes(w.layer).String(), "", nil, 200)
			qt.Check(t, qt.IsTrue(bytes.Equal(data, w.layer)))
			b.send(t, "HEAD", "/v2/"+repo+"/manifests/"+w.manifest.String(), "", nil, 200)
		}
		if acknowledged == 0 {
			continue
		}
		qt.Check(t, qt.IsTrue(slices.Contains(tags.Tags, tag)), qt.Commentf("the list of tags lacks %s", tag))
		if winner == nil {
			t.Errorf("%s points at %s, which no writer pushed", tag, now)
			continue
		}
		for _, w := range writes {
			if !winner.end.IsZero() && !winner.retried && !w.end.IsZero() && w.begun.After(winner.end) {
				t.Errorf("%s points at %s, but %s was pushed after it", tag, winner.manifest, w.manifest)
			}
		}
	}
}

// referrers returns the digests of the subject's referrers, from all pages of the
// list.
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
