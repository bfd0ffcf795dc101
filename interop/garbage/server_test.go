// SPDX-License-Identifier: Apache-2.0

package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/child"
	"github.com/berth-oci/registry/retention"
)

// size is the size of a store: images of 10 layers of their own, and a common config,
// in some repositories.
type size struct{ Repositories, Images int }

const layersPerImage = 10

// isGarbage reports whether an image has no tag.
func isGarbage(image int) bool { return image%10 == 9 }

func (s size) repo(image int) string { return fmt.Sprintf("repo%03d", image/10%s.Repositories) }

func layer(image, n int) string { return fmt.Sprintf("layer %d of image %d", n, image) }

// manifest returns the manifest of an image, with an annotation unless note is "".
func manifest(image int, note string) []byte {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.DescriptorEmptyJSON,
	}
	if note != "" {
		m.Annotations = map[string]string{"note": note}
	}
	for n := range layersPerImage {
		l := layer(image, n)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(l), Size: int64(len(l))})
	}
	m.Config.Data = nil
	content, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return content
}

// fill pushes images, only those that are garbage if they were collected.
func fill(ctx context.Context, s registry.Store, of size, garbageOnly bool) error {
	for i := range of.Repositories {
		if err := registry.PushBlob(ctx, s, of.repo(10*i), ocispec.DescriptorEmptyJSON.Digest, strings.NewReader("{}")); err != nil {
			return err
		}
	}
	for image := range of.Images {
		if garbageOnly && !isGarbage(image) {
			continue
		}
		for n := range layersPerImage {
			l := layer(image, n)
			if err := registry.PushBlob(ctx, s, of.repo(image), digest.FromString(l), strings.NewReader(l)); err != nil {
				return err
			}
		}
		push := registry.ManifestPush{Content: manifest(image, "")}
		if !isGarbage(image) {
			push.Tags = []string{fmt.Sprint("image", image)}
		}
		if _, err := registry.PushManifest(ctx, s, of.repo(image), push); err != nil {
			return err
		}
	}
	return nil
}

// collected is what a collection has done and needed.
type collected struct {
	Report      retention.Report
	Duration    time.Duration
	Allocated   uint64 // bytes
	Cycles      uint32 // of Go's garbage collector
	Before      uint64 // bytes in the heap, garbage included
	Peak        uint64
	LongestStop time.Duration // of all goroutines, by Go's garbage collector

	LongestDelay time.Duration // of a timer
}

// heap returns the number of bytes in the heap.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// collect runs a collection without a grace period.
func collect(ctx context.Context, s registry.Store) (collected, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak atomic.Uint64
	var delay time.Duration
	done, sampled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sampled)
		const interval = 2 * time.Millisecond
		for {
			peak.Store(max(peak.Load(), heap()))
			due := time.Now().Add(interval)
			select {
			case <-done:
				return
			case <-time.After(interval):
				delay = max(delay, time.Since(due))
			}
		}
	}()
	c := collected{Before: heap()}
	start := time.Now()
	var err error
	c.Report, err = retention.Collect(ctx, s, retention.Options{Grace: -1})
	c.Duration = time.Since(start)
	close(done)
	<-sampled
	c.LongestDelay = delay
	runtime.ReadMemStats(&after)
	c.Allocated, c.Cycles, c.Peak = after.TotalAlloc-before.TotalAlloc, after.NumGC-before.NumGC, peak.Load()
	for i := before.NumGC; i < after.NumGC; i++ {
		c.LongestStop = max(c.LongestStop, time.Duration(after.PauseNs[i%uint32(len(after.PauseNs))]))
	}
	return c, err
}

// serverVariable is the environment variable with the size of a store. If it is set,
// this process serves such a store instead of running tests.
const serverVariable = "BERTH_TEST_GARBAGE"

func TestMain(m *testing.M) {
	if config := os.Getenv(serverVariable); config != "" {
		runServer(config)
	}
	os.Exit(m.Run())
}

func runServer(config string) {
	var of size
	if err := json.Unmarshal([]byte(config), &of); err != nil {
		log.Fatal(err)
	}
	ctx, store := context.Background(), new(registry.MemStore)
	if err := fill(ctx, store, of, false); err != nil {
		log.Fatal(err)
	}
	debug.FreeOSMemory()
	http.Handle("/v2/", registry.New(registry.WithStore(store)))
	http.HandleFunc("/debug/profile", pprof.Profile)
	http.HandleFunc("/fill", func(w http.ResponseWriter, r *http.Request) {
		if err := fill(ctx, store, of, true); err != nil {
			http.Error(w, err.Error(), 500)
		}
		runtime.GC()
	})
	http.HandleFunc("/cycle", func(http.ResponseWriter, *http.Request) { runtime.GC() })
	http.HandleFunc("/collect", func(w http.ResponseWriter, r *http.Request) {
		c, err := collect(ctx, store)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		json.NewEncoder(w).Encode(c)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	log.Fatal(http.Serve(l, nil))
}

// startServer starts a process with a store, and returns its URL.
func startServer(t *testing.T, of size) string {
	t.Helper()
	config, err := json.Marshal(of)
	qt.Assert(t, qt.IsNil(err))
	return "http://" + child.Start(t, child.Self(serverVariable+"="+string(config)))
}

// call calls a function of the server.
func call(t *testing.T, url string, result any) {
	resp, err := http.Get(url)
	if !qt.Check(t, qt.IsNil(err)) {
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(resp.StatusCode, 200), qt.Commentf("%s", body))
	if result != nil {
		qt.Check(t, qt.IsNil(json.Unmarshal(body, result)))
	}
}
