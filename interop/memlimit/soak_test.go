// SPDX-License-Identifier: Apache-2.0

package memlimit

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/freeaddr"
	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestSoak pushes, pulls, tags and deletes at full speed. At the end the server
// must have no more goroutines than at the start. If the test runs for more than
// ten minutes, memory may grow by at most a tenth after the first five.
func TestSoak(t *testing.T) {
	debug := freeaddr.New(t)
	b := berth.Serve(t, "--debug-addr="+debug)
	atStart := goroutines(t, debug)

	var wg sync.WaitGroup
	var requests atomic.Int64
	clients := make([]*http.Client, 2*runtime.NumCPU())
	end := time.Now().Add(*soak)
	for i := range clients {
		clients[i] = newClient(t)
		w := soaker{t: t, b: b, c: clients[i], repo: fmt.Sprint("soak/", i), random: rand.New(rand.NewPCG(uint64(i), 0)), requests: &requests}
		wg.Go(func() {
			for time.Now().Before(end) && !t.Failed() {
				w.step()
			}
			for len(w.images) > 0 {
				w.remove()
			}
		})
	}

	const early = 5 * time.Minute
	var samples []int64 // one per second
	for time.Now().Before(end) && !t.Failed() {
		time.Sleep(min(time.Second, time.Until(end)+time.Millisecond))
		samples = append(samples, b.Memory(t, "VmRSS"))
	}
	last := samples[max(0, len(samples)-60):]
	wg.Wait()
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	t.Logf("%d requests in %v; memory %d MiB at the end", requests.Load(), *soak, mean(last)>>20)
	if *soak > 2*early {
		after := int(early / time.Second)
		first := mean(samples[after-30 : after+30])
		t.Logf("memory %d MiB after %v: %.3f", first>>20, early, float64(mean(last))/float64(first))
		qt.Check(t, qt.IsTrue(mean(last) <= first*11/10))
	}
	atEnd := goroutines(t, debug)
	for range 100 { // closed connections need a moment
		if atEnd <= atStart {
			break
		}
		time.Sleep(100 * time.Millisecond)
		atEnd = goroutines(t, debug)
	}
	t.Logf("goroutines: %d at the start, %d at the end", atStart, atEnd)
	qt.Check(t, qt.IsTrue(atEnd <= atStart))
}

func mean(samples []int64) (sum int64) {
	for _, s := range samples {
		sum += s
	}
	return sum / int64(max(1, len(samples)))
}

// goroutines returns the number of goroutines of the server with the given debug
// address.
func goroutines(t *testing.T, debug string) int {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + debug + "/debug/pprof/goroutine?debug=1")
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	profile, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	total := regexp.MustCompile(`goroutine profile: total (\d+)`).FindSubmatch(profile)
	qt.Assert(t, qt.HasLen(total, 2))
	n, err := strconv.Atoi(string(total[1]))
	qt.Assert(t, qt.IsNil(err))
	return n
}

// soaker is a client with a repository of its own.
type soaker struct {
	t        *testing.T
	b        *berth.Server
	c        *http.Client
	repo     string
	random   *rand.Rand
	requests *atomic.Int64

	n      int
	images []pushedImage // in the repository
}

type pushedImage struct {
	tag            string
	blob, manifest digest.Digest
}

func (s *soaker) do(method, path, contentType string, body []byte, want int) http.Header {
	s.requests.Add(1)
	status, header := send(s.t, s.b, s.c, method, "/v2/"+s.repo+path, contentType, body)
	if status != want {
		s.t.Errorf("%s %s: %d, want %d", method, path, status, want)
	}
	return header
}

// step performs one random action of a client.
func (s *soaker) step() {
	switch {
	case len(s.images) == 0:
		s.push()
	case len(s.images) > 30:
		s.remove()
	default:
		switch s.random.IntN(8) {
		case 0, 1:
			s.push()
		case 2:
			s.remove()
		case 3: // a moving tag
			image := s.images[s.random.IntN(len(s.images))]
			s.do("PUT", "/manifests/latest", imageType, imageManifest(image.blob), 201)
		case 4:
			s.do("GET", "/tags/list?n=10", "", nil, 200)
		default:
			s.pull()
		}
	}
}

const imageType = "application/vnd.oci.image.manifest.v1+json"

func imageManifest(blob digest.Digest) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"x/y","digest":"%s","size":1},"layers":[]}`, imageType, blob)
}

func (s *soaker) push() {
	size := s.random.IntN(1 << s.random.IntN(23)) // up to 4 MiB, mostly small
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(s.n), byte(s.n >> 8), byte(s.n >> 16), byte(s.repo[len(s.repo)-1])}).Read(data)
	data = append(data, fmt.Sprint(s.repo, s.n)...)
	image := pushedImage{tag: fmt.Sprint("t", s.n), blob: digest.FromBytes(data)}
	image.manifest = digest.FromBytes(imageManifest(image.blob))
	s.n++
	const octets = "application/octet-stream"
	if s.random.IntN(2) == 0 {
		s.do("POST", "/blobs/uploads/?digest="+image.blob.String(), octets, data, 201)
	} else {
		location := s.do("POST", "/blobs/uploads/", "", nil, 202).Get("Location")
		s.requests.Add(2)
		half := len(data) / 2
		_, header := send(s.t, s.b, s.c, "PATCH", location, octets, data[:half])
		if status, _ := send(s.t, s.b, s.c, "PUT", header.Get("Location")+"?digest="+image.blob.String(), octets, data[half:]); status != 201 {
			s.t.Errorf("PUT: %d", status)
		}
	}
	s.do("PUT", "/manifests/"+image.tag, imageType, imageManifest(image.blob), 201)
	s.images = append(s.images, image)
}

func (s *soaker) pull() {
	image := s.images[s.random.IntN(len(s.images))]
	if d := s.do("GET", "/manifests/"+image.tag, "", nil, 200).Get("Docker-Content-Digest"); d != image.manifest.String() {
		s.t.Errorf("%s is %s, want %s", image.tag, d, image.manifest)
	}
	s.requests.Add(1)
	resp, err := s.c.Get("http://" + s.b.Addr + "/v2/" + s.repo + "/blobs/" + image.blob.String())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer resp.Body.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(resp.Body); err != nil || digest.FromBytes(got.Bytes()) != image.blob {
		s.t.Errorf("pulled blob %s: wrong content: %v", image.blob, err)
	}
}

// remove deletes the oldest image.
func (s *soaker) remove() {
	image := s.images[0]
	s.images = s.images[1:]
	s.do("DELETE", "/manifests/"+image.manifest.String(), "", nil, 202)
	s.do("DELETE", "/blobs/"+image.blob.String(), "", nil, 202)
}
