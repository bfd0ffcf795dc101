// SPDX-License-Identifier: Apache-2.0

package memlimit

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestFloods sends each flood to a new berth serve --memory 256MiB, or less. Its
// memory must never exceed 1.5 times that, and afterwards it must still serve
// requests. With -full the floods are large enough to reach the limits; those with a
// lower limit always are.
func TestFloods(t *testing.T) {
	for _, flood := range []struct {
		name string
		send func(t *testing.T, b *berth.Server) string // returns a summary
		mib  int64                                      // --memory
		flag string
	}{
		{"idle sessions", idleSessions, 256, ""},
		{"stalled bodies", stalledBodies, 256, ""},
		{"announced bodies", announcedBodies, 256, ""},
		{"unfinished uploads", unfinishedUploads, 256, ""},
		{"tags", tags, 256, ""},
		{"repositories", repositories, 256, ""},
		{"blobs", blobs, 256, ""},
		{"small blobs", smallBlobs, 256, ""},
		{"manifests with annotations", annotations, 256, ""},
		{"hostile manifests", hostileManifests, 256, ""},
		{"all at once", allAtOnce, 256, ""},
		{"blobs for temporary files", spilledBlobs, 256, "--disk=2GiB"},
		{"long queries", longQueries, 128, ""},
		{"deleted while read", deletedWhileRead, 256, ""},
		{"cancelled while stalled", cancelledWhileStalled, 128, ""},
		{"deleted temporary files while read", deletedWhileRead, 128, "--disk=128MiB"},
		{"cancelled temporary files while stalled", cancelledWhileStalled, 128, "--disk=128MiB"},
	} {
		t.Run(flood.name, func(t *testing.T) {
			limit := flood.mib << 20
			flags := []string{fmt.Sprintf("--memory=%dMiB", flood.mib)}
			if flood.flag != "" {
				flags = append(flags, flood.flag)
			}
			b := berth.Serve(t, flags...)
			summary := flood.send(t, b)
			peak := b.Memory(t, "VmHWM")
			t.Logf("%s: peak %d MiB, %.2f of the limit", summary, peak>>20, float64(peak)/float64(limit))
			qt.Check(t, qt.IsTrue(peak < limit*3/2))
			c := newClient(t)
			status, _ := send(t, b, c, "GET", "/v2/", "", nil)
			qt.Check(t, qt.Equals(status, 200))
		})
	}
}

// parallel calls f for 0 to n-1, in 16 goroutines, each of which stops when f
// returns false. It returns the number of calls that returned true.
func parallel(n int, f func(i int) bool) (calls int) {
	var next, done atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || !f(i) {
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	return int(done.Load())
}

func idleSessions(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	n := parallel(scale(10_000), func(int) bool {
		status, _ := send(t, b, c, "POST", "/v2/a/blobs/uploads/", "", nil)
		return qt.Check(t, qt.Equals(status, 202))
	})
	return fmt.Sprintf("%d idle sessions", n)
}

// stall opens n connections that send the beginning of a request and then stall
// until the test ends.
func stall(t *testing.T, b *berth.Server, n int, begin func(i int) string) {
	conns := make([]net.Conn, n)
	parallel(n, func(i int) bool {
		conn, err := net.Dial("tcp", b.Addr)
		if !qt.Check(t, qt.IsNil(err)) {
			return false
		}
		conns[i] = conn
		_, err = conn.Write([]byte(begin(i)))
		return qt.Check(t, qt.IsNil(err))
	})
	t.Cleanup(func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	})
	time.Sleep(time.Second) // the server has very likely read all of it by then
}

func stalledBodies(t *testing.T, b *berth.Server) string {
	n := scale(1000)
	stall(t, b, n, func(i int) string {
		return fmt.Sprintf("POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n%s", digest.FromString("x"), strings.Repeat("x", 10_000))
	})
	return fmt.Sprintf("%d bodies stalled after 10,000 bytes", n)
}

// announcedBodies announces large bodies, and sends one byte of each.
func announcedBodies(t *testing.T, b *berth.Server) string {
	n := scale(2000)
	stall(t, b, n, func(i int) string {
		if i%2 == 0 {
			return fmt.Sprintf("POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\nx", digest.FromString("x"))
		}
		return "PUT /v2/a/manifests/tag HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4000000\r\n\r\nx"
	})
	return fmt.Sprintf("%d bodies of 1 TB, or of almost a manifest's limit, stalled after one byte", n)
}

func unfinishedUploads(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	var rejected atomic.Int64
	data := make([]byte, 300_000)
	n := parallel(scale(2000), func(int) bool {
		status, header := send(t, b, c, "POST", "/v2/a/blobs/uploads/", "", nil)
		if status == http.StatusRequestEntityTooLarge {
			rejected.Add(1)
			return true
		}
		status, _ = send(t, b, c, "PATCH", header.Get("Location"), "application/octet-stream", data)
		if status == http.StatusRequestEntityTooLarge {
			rejected.Add(1)
			return true
		}
		return qt.Check(t, qt.Equals(status, 202))
	})
	return fmt.Sprintf("%d unfinished uploads of 300,000 bytes, %d of them rejected", n, rejected.Load())
}

// counter counts the responses to a flood.
type counter struct{ accepted, rejected atomic.Int64 }

// count counts a response. It returns false if the flood can stop: because the
// server rejects everything, or because the status is unexpected.
func (c *counter) count(t *testing.T, status, want int) bool {
	if status == http.StatusRequestEntityTooLarge {
		return c.rejected.Add(1) < 1000
	}
	c.accepted.Add(1)
	return qt.Check(t, qt.Equals(status, want))
}

func (c *counter) String() string {
	return fmt.Sprintf("%d accepted, %d rejected", c.accepted.Load(), c.rejected.Load())
}

func tags(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	var responses counter
	parallel(scale(600_000), func(i int) bool {
		status, _ := send(t, b, c, "PUT", fmt.Sprintf("/v2/a/manifests/%s%d", strings.Repeat("t", 120), i), "text/plain", []byte("m"))
		return responses.count(t, status, 201)
	})
	return "tags: " + responses.String()
}

func repositories(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	var responses counter
	parallel(scale(300_000), func(i int) bool {
		status, _ := send(t, b, c, "PUT", fmt.Sprintf("/v2/%s%d/manifests/t", strings.Repeat("r", 240), i), "text/plain", []byte("m"))
		return responses.count(t, status, 201)
	})
	return "repositories: " + responses.String()
}

func pushBlobs(t *testing.T, b *berth.Server, n, size int) string {
	c := newClient(t)
	var responses counter
	parallel(scale(n), func(i int) bool {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), 1}).Read(data)
		status, _ := send(t, b, c, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(data).String(), "application/octet-stream", data)
		return responses.count(t, status, 201)
	})
	return responses.String()
}

func blobs(t *testing.T, b *berth.Server) string {
	return "blobs of 5 MB: " + pushBlobs(t, b, 1500, 5_000_000)
}

func spilledBlobs(t *testing.T, b *berth.Server) string {
	return "blobs of 5 MB, more than fit into memory: " + pushBlobs(t, b, 1500, 5_000_000)
}

func smallBlobs(t *testing.T, b *berth.Server) string {
	return "blobs of 10 bytes: " + pushBlobs(t, b, 500_000, 10)
}

func annotations(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	var responses counter
	subject := digest.FromString("subject")
	parallel(scale(3000), func(i int) bool {
		var m strings.Builder
		fmt.Fprintf(&m, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"subject":{"digest":"%s"},"annotations":{"i":"%d"`, subject, i)
		for k := range 20_000 {
			fmt.Fprintf(&m, `,"%d":""`, k)
		}
		m.WriteString("}}")
		status, _ := send(t, b, c, "PUT", "/v2/a/manifests/t", "application/vnd.oci.image.index.v1+json", []byte(m.String()))
		return responses.count(t, status, 201)
	})
	return "manifests with 20,000 annotations: " + responses.String()
}

// hostileManifests pushes manifests that are as expensive to parse as possible,
// from 16 clients at once.
func hostileManifests(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	const size = 4<<20 - 100
	const image = "application/vnd.oci.image.manifest.v1+json"
	descriptor := `{"digest":"` + digest.FromString("x").String() + `"},`
	bodies := []string{
		`{"layers":[` + strings.Repeat("{},", size/3) + `{}]}`,
		`{"layers":[` + strings.TrimSuffix(strings.Repeat(descriptor, size/len(descriptor)), ",") + `]}`,
		strings.Repeat("[", size),
		strings.Repeat(`{"a":`, size/5),
		`{"annotations":{` + strings.TrimSuffix(strings.Repeat(`"":"",`, size/6), ",") + `}}`,
		`{"annotations":{` + manyKeys(size) + `}}`,
		`{"signatures":[` + strings.Repeat("{},", size/3) + `{}]}`,
		`{"x":[` + strings.Repeat("0,", size/2) + `0]}`,
	}
	n := parallel(max(scale(400), len(bodies)), func(i int) bool {
		status, _ := send(t, b, c, "PUT", fmt.Sprintf("/v2/a/manifests/t%d", i%len(bodies)), image, []byte(bodies[i%len(bodies)]))
		return qt.Check(t, qt.IsTrue(status == 201 || status >= 400 && status < 500))
	})
	return fmt.Sprintf("%d hostile manifests of 4 MiB", n)
}

// allAtOnce fills the registry, stalls manifests just before their end, requests
// lists without reading them, and then sends hostile manifests.
func allAtOnce(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	for i := range 3 {
		var m strings.Builder
		for m.Len() < 1<<20 {
			fmt.Fprintf(&m, "%d ", m.Len()+i)
		}
		send(t, b, c, "PUT", "/v2/a/manifests/m", "text/plain", []byte(m.String()))
	}
	parallel(scale(50_000), func(i int) bool {
		status, _ := send(t, b, c, "PUT", fmt.Sprintf("/v2/a/manifests/%s%d", strings.Repeat("t", 120), i), "text/plain", []byte("m"))
		return qt.Check(t, qt.Equals(status, 201))
	})
	pushed := "blobs of 5 MB: " + pushBlobs(t, b, 1500, 5_000_000)
	n := scale(1000)
	stall(t, b, n, func(i int) string {
		return "PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 4000000\r\n\r\n" + strings.Repeat("x", scale(3_900_000))
	})
	lists := scale(500)
	stall(t, b, lists, func(i int) string {
		return strings.Repeat(fmt.Sprintf("GET /v2/a/tags/list?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", 30_000+i), 20) + strings.Repeat("GET /v2/a/tags/list HTTP/1.1\r\nHost: x\r\n\r\n", 5)
	})
	return fmt.Sprintf("%s; %d stalled manifests; %d unread lists; %s", pushed, n, lists, hostileManifests(t, b))
}

// manyKeys returns members of a JSON object, with short distinct keys.
func manyKeys(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size-30; i++ {
		fmt.Fprintf(&b, `"%x":"",`, i)
	}
	return b.String() + `"z":""`
}

// TestMemoryIsReturned deletes a large blob: the server must return its memory to
// the system.
func TestMemoryIsReturned(t *testing.T) {
	b := berth.Serve(t)
	c := newClient(t)
	idle := b.Memory(t, "VmRSS")
	const size = 100_000_000
	data := make([]byte, size)
	d := digest.FromBytes(data)
	status, _ := send(t, b, c, "POST", "/v2/a/blobs/uploads/?digest="+d.String(), "application/octet-stream", data)
	qt.Assert(t, qt.Equals(status, 201))
	qt.Check(t, qt.IsTrue(b.Memory(t, "VmRSS") > idle+size*9/10))
	status, _ = send(t, b, c, "DELETE", "/v2/a/blobs/"+d.String(), "", nil)
	qt.Assert(t, qt.Equals(status, 202))
	for range 600 {
		if b.Memory(t, "VmRSS") < idle+size/5 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the server still has %d MiB", b.Memory(t, "VmRSS")>>20)
}

// TestConnections opens more connections than --connections allows: the excess
// connections must wait until others close.
func TestConnections(t *testing.T) {
	const limit = 10
	b := berth.Serve(t, fmt.Sprint("--connections=", limit))
	var conns []net.Conn
	ping := func(conn net.Conn) error {
		fmt.Fprint(conn, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err
	}
	for i := range 2 * limit {
		conn, err := net.Dial("tcp", b.Addr)
		qt.Assert(t, qt.IsNil(err))
		defer conn.Close()
		conns = append(conns, conn)
		if i < limit {
			qt.Assert(t, qt.IsNil(ping(conn)))
		}
	}
	conns[limit].SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	qt.Check(t, qt.IsNotNil(ping(conns[limit])))
	for _, conn := range conns[:limit+1] {
		conn.Close()
	}
	for _, conn := range conns[limit+1:] {
		qt.Check(t, qt.IsNil(ping(conn)))
	}
}
