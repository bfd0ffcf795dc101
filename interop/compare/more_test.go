// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Measurements of Berth besides the rows of the table: memory, growth, connections
// and registrytest.Transport.

package compare

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/registrytest"
)

// scale returns n for a full measurement, and a hundredth of it otherwise.
func scale(n int) int {
	if *whole {
		return n
	}
	return max(1, n/100)
}

// memory pushes four blobs, and measures the server's memory.
func memory(t testing.TB) string {
	var out strings.Builder
	out.WriteString("## Memory\n\nResident memory beyond that of the idle server, relative to the content: 1 GiB in\nfour blobs.\n\n| pushed | peak during the push | after the push | 5 s after the deletes | 3 min after the deletes |\n|---|---|---|---|---|\n")
	for _, c := range []struct {
		name    string
		patches int
		start   func() *server
	}{
		{"by PUT", 0, func() *server { return startServer(t, "berth") }},
		{"by PATCH of 16 MiB", 16 * mib, func() *server { return startServer(t, "berth") }},
		{"by PUT, to `berth serve`", 0, func() *server {
			s := berth.Serve(t)
			return &server{"berth", s.Addr, s.Cmd}
		}},
	} {
		name, patches, s := c.name, c.patches, c.start()
		c, err := s.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		size := scale(large)
		idle := s.rss()
		var peak atomic.Int64
		done := make(chan bool)
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
					peak.Store(max(peak.Load(), s.rss()-idle))
				}
			}
		}()
		var digests []digest.Digest
		for i := range 4 {
			data := bytes.Clone(largeData[:size])
			copy(data, fmt.Sprint("blob ", i))
			d := digest.FromBytes(data)
			if err := c.push(repo, data, d, patches); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, d)
		}
		close(done)
		content := float64(4 * size)
		after := s.rss() - idle
		for _, d := range digests {
			if _, err := c.want(202, "DELETE", "/v2/"+repo+"/blobs/"+d.String(), nil); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&out, "| %s | %.3f | %.3f |", name, float64(peak.Load())/content, float64(after)/content)
		for _, wait := range []time.Duration{5 * time.Second, 175 * time.Second} {
			if *whole {
				time.Sleep(wait)
			}
			fmt.Fprintf(&out, " %.3f |", float64(s.rss()-idle)/content)
		}
		out.WriteString("\n")
	}
	return out.String()
}

// growth measures the same work with registries of different sizes.
func growth(t testing.TB) string {
	sizes := []int{100, scale(10_000), scale(100_000)}
	var out strings.Builder
	fmt.Fprintf(&out, "## Growth\n\nCPU time of the server per request, in µs, by the number of existing tags,\nrepositories or referrers.\n\n| work | %d | %d | %d | last/first |\n|---|---|---|---|---|\n", sizes[0], sizes[1], sizes[2])
	blob := digest.FromBytes(largeData[:100])
	subject := digest.FromBytes(manifestOf(blob))
	for _, work := range []struct {
		name string
		fill func(testing.TB, *conn, int)
		op   func(n int) func(c *conn, i int) error
	}{
		{"a page of 100 tags", func(t testing.TB, c *conn, n int) { pushTags(t, c, repo, n) }, func(n int) func(*conn, int) error {
			return getPage(fmt.Sprintf("/v2/%s/tags/list?n=100&last=t%06d", repo, max(0, n/2-50)))
		}},
		{"push a tag", func(t testing.TB, c *conn, n int) { pushTags(t, c, repo, n) }, func(n int) func(*conn, int) error {
			return func(c *conn, i int) error {
				_, err := c.want(201, "PUT", fmt.Sprintf("/v2/%s/manifests/n%06d", repo, i), manifestOf(blob), "Content-Type: "+imageType)
				return err
			}
		}},
		{"a page of 100 repositories", func(t testing.TB, c *conn, n int) {
			for i := range n {
				if _, err := c.want(201, "PUT", fmt.Sprintf("/v2/r%06d/manifests/t", i), []byte("m"), "Content-Type: text/plain"); err != nil {
					t.Fatal(err)
				}
			}
		}, func(n int) func(*conn, int) error {
			return getPage(fmt.Sprintf("/v2/_catalog?n=100&last=r%06d", max(0, n/2-50)))
		}},
		{"a page of 10 referrers", fillReferrers, func(int) func(*conn, int) error {
			return getPage("/v2/" + repo + "/referrers/" + subject.String() + "?n=10")
		}},
		{"add a referrer", fillReferrers, func(n int) func(*conn, int) error {
			return func(c *conn, i int) error {
				pushReferrer(t, c, subject, 1_000_000+i)
				return nil
			}
		}},
	} {
		fmt.Fprintf(&out, "| %s |", work.name)
		var first, last float64
		for i, n := range sizes {
			s := startServer(t, "berth")
			c, err := s.dial()
			if err != nil {
				t.Fatal(err)
			}
			c.seedBlob(t, repo, largeData[:100])
			work.fill(t, c, n)
			var costs []float64
			for round := range 7 {
				ops := scale(4000)
				got, err := run(s, row{}, []*conn{c}, work.op(n), round*ops, ops)
				if err != nil {
					t.Fatal(err)
				}
				costs = append(costs, got.cpu/float64(got.ops)*1e6)
			}
			c.Close()
			s.cmd.Process.Kill()
			if last = median(costs); i == 0 {
				first = last
			}
			fmt.Fprintf(&out, " %.0f |", last)
		}
		fmt.Fprintf(&out, " %.2f |\n", last/first)
	}
	return out.String()
}

// getPage requests a page of a list.
func getPage(target string) func(*conn, int) error {
	head := request("GET", target, 0)
	return func(c *conn, _ int) error {
		a, err := c.do(head, nil, false, false)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%s: %d", target, a.status)
		}
		return err
	}
}

// fillReferrers pushes n referrers of one subject.
func fillReferrers(t testing.TB, c *conn, n int) {
	for i := range n {
		pushReferrer(t, c, digest.FromBytes(manifestOf(digest.FromBytes(largeData[:100]))), i)
	}
}

// scaling compares eight connections with one.
func scaling(t testing.TB) string {
	var out strings.Builder
	out.WriteString("## Connections\n\nThe rate with 8 connections, relative to the rate with 1.\n\n| work | berth | raw |\n|---|---|---|\n")
	for name, prepare := range map[string]func(testing.TB, *conn) (func(*conn, int) error, func(*conn)){
		"pull 4 KiB blobs":    pullBlob(4 << 10),
		"manifest GET by tag": getManifest("GET", false),
	} {
		fmt.Fprintf(&out, "| %s |", name)
		for _, kind := range []string{"berth", "raw"} {
			s := startServer(t, kind)
			var conns []*conn
			for range 8 {
				c, err := s.dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				conns = append(conns, c)
			}
			op, _ := prepare(t, conns[0])
			var ratios []float64
			for range 5 {
				one, err := run(s, row{}, conns[:1], op, 0, scale(8000))
				if err != nil {
					t.Fatal(err)
				}
				eight, err := run(s, row{}, conns, op, 0, scale(16_000))
				if err != nil {
					t.Fatal(err)
				}
				ratios = append(ratios, float64(eight.ops)/eight.elapsed.Seconds()/(float64(one.ops)/one.elapsed.Seconds()))
			}
			fmt.Fprintf(&out, " %.2f |", median(ratios))
			s.cmd.Process.Kill()
		}
		out.WriteString("\n")
	}
	return out.String()
}

// inProcess compares registrytest.Transport with loopback.
func inProcess(t testing.TB) string {
	store := new(registry.MemStore)
	content := largeData[:max(mib, scale(large))]
	d := digest.FromBytes(content)
	if err := registry.PushBlob(t.Context(), store, repo, d, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.PushManifest(t.Context(), store, repo, registry.ManifestPush{Content: manifestOf(d), MediaType: imageType, Tags: []string{"tag"}}); err != nil {
		t.Fatal(err)
	}
	h := registry.New(registry.WithStore(store))
	s := httptest.NewServer(h)
	defer s.Close()
	direct := &http.Client{Transport: registrytest.Transport(h)}
	var out strings.Builder
	out.WriteString("## In process\n\nThe speed of registrytest.Transport relative to loopback, with net/http's client.\n\n| work | speed-up |\n|---|---|\n")
	for _, work := range []struct {
		name, path string
		ops        int
	}{
		{"manifest GET", "/v2/" + repo + "/manifests/tag", scale(20_000)},
		{"stream a blob of 256 MiB", "/v2/" + repo + "/blobs/" + d.String(), 2},
	} {
		measure := func(c *http.Client) float64 {
			start := time.Now()
			for range work.ops {
				resp, err := c.Get(s.URL + work.path)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			return time.Since(start).Seconds()
		}
		var ratios []float64
		for range 5 {
			ratios = append(ratios, measure(s.Client())/measure(direct))
		}
		fmt.Fprintf(&out, "| %s | %.1f |\n", work.name, median(ratios))
	}
	start := time.Now()
	n := scale(500)
	for range n {
		if err := roundTrip(t); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&out, "\nA test that starts a server, pushes an image of one layer and pulls it, over\nloopback, takes %.0f µs.\n", time.Since(start).Seconds()*1e6/float64(n))
	return out.String()
}

// roundTrip does the work of a typical test: it starts a server, pushes an image and
// pulls it.
func roundTrip(t testing.TB) error {
	s := httptest.NewServer(registry.New())
	defer s.Close()
	do := func(method, path, contentType string, body []byte) error {
		req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := s.Client().Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			return fmt.Errorf("%s %s: %s", method, path, resp.Status)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	data := largeData[:1000]
	d := digest.FromBytes(data)
	for _, step := range []struct {
		method, path, contentType string
		body                      []byte
	}{
		{"POST", "/v2/" + repo + "/blobs/uploads/?digest=" + d.String(), "application/octet-stream", data},
		{"PUT", "/v2/" + repo + "/manifests/tag", imageType, manifestOf(d)},
		{"GET", "/v2/" + repo + "/manifests/tag", "", nil},
		{"GET", "/v2/" + repo + "/blobs/" + d.String(), "", nil},
	} {
		if err := do(step.method, step.path, step.contentType, step.body); err != nil {
			return err
		}
	}
	return nil
}
