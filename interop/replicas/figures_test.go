// SPDX-License-Identifier: Apache-2.0

package replicas

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"

	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/interop/internal/child"
)

var figures = flag.Bool("figures", false, "measure Berth and distribution on the same MinIO, with the full amount of work")

// distributionVariable is the environment variable with the storage configuration
// of distribution. If it is set, this process runs distribution instead of tests.
const distributionVariable = "BERTH_TEST_DISTRIBUTION"

func TestMain(m *testing.M) {
	if storage := os.Getenv(distributionVariable); storage != "" {
		runDistribution(storage)
	}
	os.Exit(m.Run())
}

// runDistribution serves distribution with a configuration of its storage, and prints its
// address.
func runDistribution(storage string) {
	logrus.SetOutput(io.Discard)
	var config configuration.Configuration
	if err := json.Unmarshal([]byte(storage), &config.Storage); err != nil {
		log.Fatal(err)
	}
	config.Catalog.MaxEntries = 1000
	config.HTTP.RelativeURLs = true
	config.Log.AccessLog.Disabled = true
	config.Log.Level = "panic"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	log.Fatal(http.Serve(l, handlers.NewApp(context.Background(), &config)))
}

// startDistribution starts distribution in a process of its own, and returns
// its address.
func startDistribution(t *testing.T, storage configuration.Storage) string {
	t.Helper()
	text, err := json.Marshal(storage)
	qt.Assert(t, qt.IsNil(err))
	return child.Start(t, child.Self(distributionVariable+"="+string(text)))
}

// TestFigures measures the same work with Berth and distribution v3, each with a
// bucket of the same MinIO, one after the other in each round: first while both send the
// bytes of blobs themselves, then while both redirect clients to MinIO.
func TestFigures(t *testing.T) {
	m := miniotest.Start(t)
	for _, redirect := range []bool{false, true} {
		t.Run(fmt.Sprint("redirect=", redirect), func(t *testing.T) { testFigures(t, m, redirect) })
	}
}

func testFigures(t *testing.T, m *miniotest.Server, redirect bool) {
	rounds, large, images, tags := 1, 4<<20, 20, 200
	if *figures {
		rounds, large, images, tags = 9, 256<<20, 1000, 10_000
	}
	url := m.URL(t)
	bucket, _, _ := strings.Cut(strings.TrimPrefix(m.URL(t), "s3://"), "?")
	all := []*contestant{
		{name: "berth", addr: berth.Start(t, "--log-level=error", fmt.Sprint("--redirect=", redirect), "--store="+url).Addr},
		{name: "distribution", addr: startDistribution(t, configuration.Storage{
			"s3": {
				"bucket": bucket, "region": "us-east-1", "regionendpoint": "http://" + m.Address(0), "forcepathstyle": true, "secure": false,
				"accesskey": os.Getenv("AWS_ACCESS_KEY_ID"), "secretkey": os.Getenv("AWS_SECRET_ACCESS_KEY"),
			},
			"delete":   {"enabled": true},
			"redirect": {"disable": !redirect},
		})},
	}
	blob := make([]byte, large)
	rand.NewChaCha8([32]byte{}).Read(blob)
	for _, c := range all {
		c.t = t
		c.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	}
	inTurns := func(rounds int, work func(c *contestant, round int)) {
		for round := range rounds {
			for i := range all {
				c := all[(i+round)%len(all)]
				work(c, round)
				c.client.CloseIdleConnections()
			}
		}
	}
	few := min(rounds, 3) // of long work
	pushes := few
	if redirect {
		pushes = 1 // only for the pulls
	}
	inTurns(pushes, func(c *contestant, round int) {
		data := slices.Clone(blob)
		copy(data, fmt.Sprint("round ", round))
		repo := fmt.Sprint("round", round)
		if redirect {
			c.push(repo, data)
			c.parallel(images, func(i int) { c.pushImage(repo, fmt.Sprintf("%s-%d", repo, i)) })
			return
		}
		c.measure(fmt.Sprintf("push a blob of %d MiB", large>>20), func() { c.push(repo, data) })
		c.measure(fmt.Sprintf("push %d small images", images), func() {
			c.parallel(images, func(i int) { c.pushImage(repo, fmt.Sprintf("%s-%d", repo, i)) })
		})
	})
	copy(blob, "round 0")
	d := digest.FromBytes(blob)
	inTurns(rounds, func(c *contestant, _ int) {
		c.measure(fmt.Sprintf("pull a blob of %d MiB", large>>20), func() {
			c.send("GET", "/v2/round0/blobs/"+d.String(), nil, 200, d)
		})
	})
	inTurns(few, func(c *contestant, _ int) {
		c.measure(fmt.Sprintf("pull %d small images", images), func() {
			c.parallel(images, func(i int) { c.pullImage("round0", fmt.Sprintf("round0-%d", i)) })
		})
	})
	if !redirect {
		inTurns(1, func(c *contestant, _ int) {
			config := []byte("{}")
			c.push("tags", config)
			content := imageOf(config)
			c.parallel(tags, func(i int) { c.pushManifest("tags", fmt.Sprintf("t%06d", i), content) })
		})
		inTurns(few, func(c *contestant, _ int) {
			c.measure(fmt.Sprintf("50 pages of 100 tags in %d", tags), func() {
				for range 50 {
					c.send("GET", fmt.Sprintf("/v2/tags/tags/list?n=100&last=t%06d", tags/2), nil, 200, "")
				}
			})
		})
	}
	for i, name := range all[0].names {
		ours, theirs := all[0].median(i), all[1].median(i)
		t.Logf("| %s | %v | %v | %.2f |", name, ours.Round(time.Millisecond), theirs.Round(time.Millisecond), float64(theirs)/float64(ours))
	}
}

// contestant is a registry under measurement.
type contestant struct {
	t          *testing.T
	client     *http.Client
	name, addr string
	names      []string
	times      map[string][]time.Duration
}

// measure measures the time that work takes.
func (c *contestant) measure(name string, work func()) {
	start := time.Now()
	work()
	if c.times == nil {
		c.times = make(map[string][]time.Duration)
	}
	if c.times[name] == nil {
		c.names = append(c.names, name)
	}
	c.times[name] = append(c.times[name], time.Since(start))
}

// median returns the median time of the i-th kind of work.
func (c *contestant) median(i int) time.Duration {
	times := slices.Sorted(slices.Values(c.times[c.names[i]]))
	return times[len(times)/2]
}

// send sends a request with the given header names and values. It checks the
// status of the response and, unless d is empty, the digest of its body.
func (c *contestant) send(method, path string, body []byte, want int, d digest.Digest, header ...string) http.Header {
	if strings.HasPrefix(path, "/") {
		path = "http://" + c.addr + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	defer resp.Body.Close()
	h := sha256.New()
	var text bytes.Buffer
	if _, err := io.Copy(io.MultiWriter(h, prefixWriter{&text}), resp.Body); err != nil {
		c.t.Error(err)
	}
	if resp.StatusCode != want || d != "" && digest.NewDigest(digest.SHA256, h) != d {
		c.t.Errorf("%s: %s %s: %s %s", c.name, method, path, resp.Status, text.String())
	}
	return resp.Header
}

// prefixWriter keeps the beginning of the text written to it.
type prefixWriter struct{ b *bytes.Buffer }

func (w prefixWriter) Write(p []byte) (int, error) {
	if w.b.Len() < 1000 {
		w.b.Write(p[:min(len(p), 1000)])
	}
	return len(p), nil
}

// push pushes a blob by POST and PUT.
func (c *contestant) push(repo string, data []byte) digest.Digest {
	d := digest.FromBytes(data)
	location := c.send("POST", "/v2/"+repo+"/blobs/uploads/", nil, 202, "").Get("Location")
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	c.send("PUT", location+separator+"digest="+d.String(), data, 201, "", "Content-Type", octets)
	return d
}

// imageOf returns the manifest of an image.
func imageOf(config []byte, layers ...[]byte) []byte {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}, Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for _, layer := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))})
	}
	content, _ := json.Marshal(m) // cannot fail
	return content
}

// imageBlobs returns the config and the layer of an image.
func imageBlobs(tag string) (config, layer []byte) {
	return fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, tag), bytes.Repeat([]byte(tag+"\n"), 500)
}

func (c *contestant) pushImage(repo, tag string) {
	config, layer := imageBlobs(tag)
	c.push(repo, config)
	c.push(repo, layer)
	c.pushManifest(repo, tag, imageOf(config, layer))
}

func (c *contestant) pushManifest(repo, tag string, content []byte) {
	c.send("PUT", "/v2/"+repo+"/manifests/"+tag, content, 201, "", "Content-Type", ocispec.MediaTypeImageManifest)
}

func (c *contestant) pullImage(repo, tag string) {
	config, layer := imageBlobs(tag)
	c.send("GET", "/v2/"+repo+"/manifests/"+tag, nil, 200, digest.FromBytes(imageOf(config, layer)), "Accept", ocispec.MediaTypeImageManifest)
	for _, data := range [][]byte{config, layer} {
		d := digest.FromBytes(data)
		c.send("GET", "/v2/"+repo+"/blobs/"+d.String(), nil, 200, d)
	}
}

// parallel calls do for 0 to n-1, 8 at once.
func (c *contestant) parallel(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !c.t.Failed(); i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}
