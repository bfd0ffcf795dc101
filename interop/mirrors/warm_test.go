// SPDX-License-Identifier: Apache-2.0

// The cost of a mirror for content that it has, beside the store alone.

package mirrors

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/registrytest"
)

var warm = flag.Int("warm", 1, "the number of rounds of TestWarm; 40 take some minutes")

// TestWarm pulls content that a mirror has, from the mirror and from its store alone in
// turns, and logs how fast the mirror is in relation to the store. Nothing is asserted but
// the responses: the ratios are those of a quiet machine.
func TestWarm(t *testing.T) {
	for _, store := range []struct {
		name string
		open func(t *testing.T) registry.Store
	}{
		{"mem", func(t *testing.T) registry.Store { return &registry.MemStore{} }},
		{"dir", func(t *testing.T) registry.Store {
			s, err := ocidir.Open(t.TempDir(), nil)
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { s.Close() })
			return s
		}},
		{"bucket", func(t *testing.T) registry.Store {
			if *warm == 1 {
				t.Skip("the other stores show that the measurement works: use -warm")
			}
			s, err := bucket.Open(t.Context(), miniotest.Start(t).URL(t), nil)
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { s.Close() })
			return s
		}},
	} {
		t.Run(store.name, func(t *testing.T) { testWarm(t, store.open(t)) })
	}
}

// testWarm compares a mirror over a store with the store.
func testWarm(t *testing.T, s registry.Store) {
	const repo = "upstream.test/team/app"
	descriptors, err := registrytest.PushContent(t.Context(), s, mirror.CachePrefix+repo, registrytest.Content{
		Blobs:     map[string]string{"config": "{}", "small": registrytest.Random(1, 4<<10), "large": registrytest.Random(2, 64<<20)},
		Manifests: map[string]registrytest.Manifest{"image": {Config: "config", Layers: []string{"small", "large"}}},
		Tags:      map[string]string{"1": "image"},
	})
	qt.Assert(t, qt.IsNil(err))
	if d, ok := s.(*ocidir.Store); ok {
		// It does that a few seconds after a push: until then, manifests are in memory.
		qt.Assert(t, qt.IsNil(d.Fold(t.Context())))
	}
	// The upstream only says that the tag has not moved, once.
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Content-Digest", string(descriptors["image"].Digest))
	}))
	defer upstream.Close()
	m, err := mirror.New(s, mirror.Options{Upstreams: []mirror.Upstream{{Name: "upstream.test", URL: upstream.URL, TTL: time.Hour}}})
	qt.Assert(t, qt.IsNil(err))
	defer m.Close()
	alone := serveFor(t, registry.New(registry.WithStore(s)), "/v2/"+mirror.CachePrefix+repo)
	mirrored := serveFor(t, m.Handler(registry.New(registry.WithStore(m))), "/v2/"+repo)
	for _, test := range []struct {
		name, path string
		requests   int // in a turn
	}{
		{"manifest by tag", "/manifests/1", 400},
		{"manifest by digest", "/manifests/" + string(descriptors["image"].Digest), 400},
		{"blob of 4 KiB", "/blobs/" + string(descriptors["small"].Digest), 400},
		{"blob of 64 MiB", "/blobs/" + string(descriptors["large"].Digest), 4},
	} {
		var ratios, times, mirrorTimes []float64
		turn := func(c *rawClient) time.Duration {
			start := time.Now()
			for range test.requests {
				qt.Assert(t, qt.IsNil(c.get(test.path)))
			}
			return time.Since(start)
		}
		turn(alone)
		turn(mirrored)
		for round := range *warm {
			// Each side is first in every other round.
			var a, b time.Duration
			if round%2 == 0 {
				a, b = turn(alone), turn(mirrored)
			} else {
				b, a = turn(mirrored), turn(alone)
			}
			ratios = append(ratios, float64(a)/float64(b))
			times = append(times, float64(a)/float64(test.requests)/1000)
			mirrorTimes = append(mirrorTimes, float64(b)/float64(test.requests)/1000)
		}
		slices.Sort(ratios)
		// Of the fastest turns noise has changed the least.
		t.Logf("%-18s %.3f of the store alone (quartiles %.3f and %.3f of %d rounds); at best %.1f µs, and %.1f µs alone: %.3f",
			test.name, ratios[len(ratios)/2], ratios[len(ratios)/4], ratios[len(ratios)*3/4], len(ratios), slices.Min(mirrorTimes), slices.Min(times), slices.Min(times)/slices.Min(mirrorTimes))
	}
}

// rawClient is a client with little overhead, and one connection.
type rawClient struct {
	net.Conn
	r      *bufio.Reader
	prefix string // of paths
}

// serveFor serves h on a loopback address, and returns a client.
func serveFor(t *testing.T, h http.Handler, prefix string) *rawClient {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", s.Listener.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	return &rawClient{c, bufio.NewReaderSize(c, 64<<10), prefix}
}

// get gets content, and discards it.
func (c *rawClient) get(path string) error {
	if _, err := fmt.Fprintf(c, "GET %s%s HTTP/1.1\r\nHost: mirror.test\r\n\r\n", c.prefix, path); err != nil {
		return err
	}
	size := -1
	for first := true; ; first = false {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimSpace(line)
		if first && line != "HTTP/1.1 200 OK" {
			return fmt.Errorf("%s: %s", path, line)
		}
		if name, value, _ := strings.Cut(line, ": "); strings.EqualFold(name, "Content-Length") {
			size, _ = strconv.Atoi(value)
		}
		if line == "" {
			break
		}
	}
	if size < 0 {
		return fmt.Errorf("%s: no Content-Length", path)
	}
	_, err := io.CopyN(io.Discard, c.r, int64(size))
	return err
}
