// SPDX-License-Identifier: Apache-2.0

package memlimit

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestFloodsOfBucket is TestFloods with a bucket, whose server is another process:
// the memory is that of uploads on their way, and of requests.
func TestFloodsOfBucket(t *testing.T) {
	server := miniotest.Start(t)
	for _, flood := range []struct {
		name string
		send func(t *testing.T, b *berth.Server) string
	}{
		{"parallel pushes", parallelPushes},
		{"stalled bodies", stalledBodies},
		{"announced bodies", announcedBodies},
		{"hostile manifests", hostileManifests},
		{"long queries", longQueries},
	} {
		t.Run(flood.name, func(t *testing.T) {
			const limit = 256 << 20
			b := berth.Serve(t, "--memory=256MiB", "--store="+server.URL(t))
			summary := flood.send(t, b)
			peak := b.Memory(t, "VmHWM")
			t.Logf("%s: peak %d MiB, %.2f of the limit", summary, peak>>20, float64(peak)/float64(limit))
			qt.Check(t, qt.IsTrue(peak < limit*3/2))
			status, _ := send(t, b, newClient(t), "GET", "/v2/", "", nil)
			qt.Check(t, qt.Equals(status, 200))
		})
	}
}

// parallelPushes pushes 64 large blobs at once. Those that find no memory in time
// get 429.
func parallelPushes(t *testing.T, b *berth.Server) string {
	var accepted, rejected atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte(i)}, 24<<20)
			req, err := http.NewRequest("POST", fmt.Sprintf("http://%s/v2/a/blobs/uploads/?digest=%s", b.Addr, digest.FromBytes(data)), bytes.NewReader(data))
			if !qt.Check(t, qt.IsNil(err)) {
				return
			}
			resp, err := http.DefaultClient.Do(req)
			if !qt.Check(t, qt.IsNil(err)) {
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusCreated:
				accepted.Add(1)
			case http.StatusTooManyRequests:
				rejected.Add(1)
			default:
				t.Errorf("got status %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	qt.Check(t, qt.IsTrue(accepted.Load() > 0))
	return fmt.Sprintf("64 blobs of 24 MiB at once: %d accepted, %d rejected", accepted.Load(), rejected.Load())
}
