// SPDX-License-Identifier: Apache-2.0

//go:build linux

// What is measured of Berth apart from the rows.

package peers

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

// smaller is a number, or a part of it where not the whole is measured.
func smaller(n int) int {
	if *whole {
		return n
	}
	return max(1, n/100)
}

// memory pushes four blobs, and watches what the server takes.
func memory(t testing.TB) string {
	var out strings.Builder
	out.WriteString("## Memory\n\nResident, as a share of 1 GiB of content in four blobs.\n\n| pushed | most during the push | after it | 5 s after the deletes | 3 minutes after |\n|---|---|---|---|---|\n")
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
		size := smaller(large)
		idle := s.rss()
		var most atomic.Int64
		done := make(chan bool)
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
					most.Store(max(most.Load(), s.rss()-idle))
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
		fmt.Fprintf(&out, "| %s | %.3f | %.3f |", name, float64(most.Load())/content, float64(after)/content)
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

// growth does the same work where there is little and where there is much.
func growth(t testing.TB) string {
	sizes := []int{100, smaller(10_000), smaller(100_000)}
	var out strings.Builder
	fmt.Fprintf(&out, "## Growth\n\nMicroseconds of the server's processor for a request, with as many of its kind there.\n\n| work | %d | %d | %d | last to first |\n|---|---|---|---|---|\n", sizes[0], sizes[1], sizes[2])
	blob := digest.FromBytes(largeData[:100])
	subject := digest.FromBytes(manifestOf(blob))
	for _, work := range []struct {
		name string
		fill func(testing.TB, *conn, int)
		op   func(n int) func(c *conn, i int) error
	}{
		{"a page of 100 tags", func(t testing.TB, c *conn, n int) { tagsOf(t, c, repo, n) }, func(n int) func(*conn, int) error {
			return asking(fmt.Sprintf("/v2/%s/tags/list?n=100&last=t%06d", repo, max(0, n/2-50)))
		}},
		{"push a tag", func(t testing.TB, c *conn, n int) { tagsOf(t, c, repo, n) }, func(n int) func(*conn, int) error {
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
			return asking(fmt.Sprintf("/v2/_catalog?n=100&last=r%06d", max(0, n/2-50)))
		}},
		{"a page of 10 referrers", fillReferrers, func(int) func(*conn, int) error {
			return asking("/v2/" + repo + "/referrers/" + subject.String() + "?n=10")
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
				ops := smaller(4000)
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

func asking(target string) func(*conn, int) error {
	head := request("GET", target, 0)
	return func(c *conn, _ int) error {
		a, err := c.do(head, nil, false, false)
		if err == nil && a.status != 200 {
			err = fmt.Errorf("%s: %d", target, a.status)
		}
		return err
	}
}

func fillReferrers(t testing.TB, c *conn, n int) {
	for i := range n {
		pushReferrer(t, c, digest.FromBytes(manifestOf(digest.FromBytes(largeData[:100]))), i)
	}
}

// scaling compares eight connections with one.
func scaling(t testing.TB) string {
	var out strings.Builder
	out.WriteString("## Connections\n\nThe rate of 8 connections to that of 1.\n\n| work | berth | raw |\n|---|---|---|\n")
	for name, prepare := range map[string]func(testing.TB, *conn) (func(*conn, int) error, func(*conn)){
		"pull 4 KiB blobs":    pullBlob(4 << 10),
		"manifest GET by tag": askManifest("GET", false),
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
				one, err := run(s, row{}, conns[:1], op, 0, smaller(8000))
				if err != nil {
					t.Fatal(err)
				}
				eight, err := run(s, row{}, conns, op, 0, smaller(16_000))
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
	content := largeData[:max(mib, smaller(large))]
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
	near := &http.Client{Transport: registrytest.Transport(h)}
	var out strings.Builder
	out.WriteString("## In process\n\nHow many times as fast as loopback registrytest.Transport is, with net/http's client.\n\n| work | times |\n|---|---|\n")
	for _, work := range []struct {
		name, path string
		ops        int
	}{
		{"manifest GET", "/v2/" + repo + "/manifests/tag", smaller(20_000)},
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
			ratios = append(ratios, measure(s.Client())/measure(near))
		}
		fmt.Fprintf(&out, "| %s | %.1f |\n", work.name, median(ratios))
	}
	start := time.Now()
	n := smaller(500)
	for range n {
		if err := roundTrip(t); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&out, "\nA test that starts a server, pushes an image of one layer and pulls it over loopback takes %.0f µs.\n", time.Since(start).Seconds()*1e6/float64(n))
	return out.String()
}

// roundTrip is what a test does.
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
