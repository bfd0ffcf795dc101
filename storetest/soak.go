// SPDX-License-Identifier: Apache-2.0

// A soak of collections while clients push, pull and delete.

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/retention"
)

// Soak has clients push, mount, pull and delete images, indexes and referrers for
// some time while garbage is collected every interval, without pause if it is 0. The
// stores are replicas with the same content, which must be empty. It checks that
// nothing is lost that a client has pushed and not deleted, that a blob which was
// found or pushed within the grace period can be named by a manifest, and that after
// the clients have stopped nothing is left but what their tags lead to.
func Soak(t *testing.T, duration, interval, grace time.Duration, stores ...registry.Store) {
	t.Helper()
	s := &soak{t: t, grace: grace}
	for _, store := range stores {
		s.handlers = append(s.handlers, registry.New(registry.WithStore(store)))
	}
	o := retention.Options{Grace: grace}
	if grace == 0 {
		o.Grace = -1
	}
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var wg sync.WaitGroup
	for i, store := range stores {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				report, err := retention.Collect(t.Context(), store, o)
				if err != nil {
					t.Errorf("store %d: %v", i, err)
				}
				s.collected.Add(int64(report.Blobs + report.Manifests))
				select {
				case <-ctx.Done():
				case <-time.After(interval):
				}
			}
		}()
	}
	var clients []*soakClient
	for i := range 6 {
		c := &soakClient{soak: s, id: i, rand: rand.New(rand.NewPCG(uint64(i), 1)), tags: make(map[string]map[string][]byte)}
		clients = append(clients, c)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil && !t.Failed() {
				c.step()
			}
		}()
	}
	wg.Wait()
	for quiet := false; !quiet; { // until nothing is young; the test's timeout ends this too
		time.Sleep(grace + 1100*time.Millisecond)
		quiet = true
		for _, store := range stores {
			report, err := retention.Collect(t.Context(), store, o)
			if err != nil {
				t.Fatal(err)
			}
			quiet = quiet && report.Young == 0 && report.Manifests+report.Blobs == 0
		}
	}
	want := make(map[string]bool)
	for _, c := range clients {
		for _, tag := range slices.Sorted(maps.Keys(c.tags)) {
			c.pull(tag)
			repo, _, _ := strings.Cut(tag, ":")
			for path := range c.tags[tag] {
				want[repo+path] = true
			}
		}
	}
	for _, store := range stores {
		s.checkLeft(store, want)
	}
	t.Logf("%d requests, %d pushes of tags, %d rejected since a blob was collected; %d blobs and manifests collected, %d left",
		s.requests.Load(), s.pushed.Load(), s.rejected.Load(), s.collected.Load(), len(want))
}

type soak struct {
	t        *testing.T
	grace    time.Duration
	handlers []http.Handler

	requests, pushed, rejected, collected atomic.Int64
}

// checkLeft checks that a store has exactly the content in want: "repo/blobs/digest"
// and "repo/manifests/digest".
func (s *soak) checkLeft(store registry.Store, want map[string]bool) {
	ctx := s.t.Context()
	got := make(map[string]bool)
	for repo := range store.Repositories(ctx, "") {
		for info, err := range store.Blobs(ctx, repo, "") {
			if err == nil {
				got[repo+"/blobs/"+string(info.Digest)] = true
			}
		}
		for info, err := range store.Manifests(ctx, repo, "") {
			if err == nil {
				got[repo+"/manifests/"+string(info.Digest)] = true
			}
		}
	}
	for key := range want {
		if !got[key] {
			s.t.Errorf("lost: %s", key)
		}
	}
	for key := range got {
		if !want[key] {
			s.t.Errorf("left, although nothing leads to it: %s", key)
		}
	}
}

// soakClient is a client with tags of its own.
type soakClient struct {
	*soak
	id   int
	rand *rand.Rand
	n    int
	tags map[string]map[string][]byte // the content that each tag leads to, by "/blobs/" or "/manifests/" and digest
}

// send sends a request to some replica.
func (c *soakClient) send(method, path string, body []byte, mediaType string) *httptest.ResponseRecorder {
	c.requests.Add(1)
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	w := httptest.NewRecorder()
	c.handlers[c.rand.IntN(len(c.handlers))].ServeHTTP(w, r)
	if w.Code >= 500 {
		c.t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w
}

func (c *soakClient) repo() string { return fmt.Sprint("soak/", c.rand.IntN(3)) }

func (c *soakClient) step() {
	names := slices.Sorted(maps.Keys(c.tags))
	switch n := c.rand.IntN(10); {
	case n < 5 || len(names) == 0:
		c.push()
	case n < 8:
		c.pull(names[c.rand.IntN(len(names))])
	default:
		c.untag(names[c.rand.IntN(len(names))])
	}
}

// errCollected means that a push was rejected since content that it names is gone.
var errCollected = errors.New("collected")

// push pushes an image, or an index of two, perhaps with a referrer, to a tag.
func (c *soakClient) push() {
	repo := c.repo()
	tag := fmt.Sprintf("%s:client%d-%d", repo, c.id, c.rand.IntN(4))
	all := make(map[string][]byte)
	err := c.pushTag(repo, tag, all)
	switch {
	case errors.Is(err, errCollected):
		c.rejected.Add(1)
	case err != nil:
		c.t.Error(err)
	default:
		c.pushed.Add(1)
	}
}

func (c *soakClient) pushTag(repo, tag string, all map[string][]byte) error {
	_, name, _ := strings.Cut(tag, ":")
	if c.rand.IntN(3) > 0 {
		if _, err := c.pushImage(repo, name, "", all); err != nil {
			return err
		}
		c.tags[tag] = all
		return nil
	}
	var children []string
	for range 2 {
		d, err := c.pushImage(repo, "", "", all)
		if err != nil {
			return err
		}
		children = append(children, d)
	}
	c.n++
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s],"annotations":{"n":"%d.%d"}}`, ocispec.MediaTypeImageIndex, strings.Join(children, ","), c.id, c.n)
	d, err := c.pushManifest(repo, name, ocispec.MediaTypeImageIndex, index, time.Now(), all)
	if err != nil {
		return err
	}
	c.tags[tag] = all
	if c.rand.IntN(2) > 0 {
		return nil
	}
	referrer := make(map[string][]byte)
	_, err = c.pushImage(repo, "", d, referrer)
	if err == nil {
		maps.Copy(all, referrer)
	}
	return err
}

// pushImage pushes an image with blobs that other clients push too. It returns its
// descriptor.
func (c *soakClient) pushImage(repo, tag, subject string, all map[string][]byte) (string, error) {
	found := time.Now()
	var blobs []string
	for range 2 {
		n, size := c.rand.IntN(20), 100
		if n == 0 {
			size = 200_000 // more than a MiB, which a MemStore may keep in a file
		}
		data := bytes.Repeat([]byte(fmt.Sprint("blob ", n)), size)
		d := digest.FromBytes(data)
		if err := c.pushBlob(repo, d, data); err != nil {
			return "", err
		}
		all["/blobs/"+string(d)] = data
		blobs = append(blobs, fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":%d}`, d, len(data)))
	}
	if subject != "" {
		subject = `,"subject":` + subject
	}
	c.n++
	image := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s,"annotations":{"n":"%d.%d"}}`,
		ocispec.MediaTypeImageManifest, blobs[0], blobs[1], subject, c.id, c.n)
	return c.pushManifest(repo, tag, ocispec.MediaTypeImageManifest, image, found, all)
}

// pushBlob pushes a blob unless the repository has it, or mounts it.
func (c *soakClient) pushBlob(repo string, d digest.Digest, data []byte) error {
	if w := c.send("HEAD", "/v2/"+repo+"/blobs/"+string(d), nil, ""); w.Code == 200 {
		return nil
	}
	if c.rand.IntN(2) == 0 {
		w := c.send("POST", "/v2/"+repo+"/blobs/uploads/?mount="+string(d)+"&from="+c.repo(), nil, "")
		if w.Code == 201 {
			return nil
		}
		w = c.send("PUT", w.Header().Get("Location")+"?digest="+string(d), data, "")
		if w.Code != 201 {
			return fmt.Errorf("PUT of a blob: %d %s", w.Code, w.Body)
		}
		return nil
	}
	if w := c.send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d), data, ""); w.Code != 201 {
		return fmt.Errorf("POST of a blob: %d %s", w.Code, w.Body)
	}
	return nil
}

// pushManifest pushes a manifest, by digest without a tag. The content that it names
// was found after a time.
func (c *soakClient) pushManifest(repo, tag, mediaType, content string, found time.Time, all map[string][]byte) (string, error) {
	d := digest.FromString(content)
	reference := tag
	if tag == "" {
		reference = string(d)
	}
	w := c.send("PUT", "/v2/"+repo+"/manifests/"+reference, []byte(content), mediaType)
	switch {
	case w.Code == 404 && time.Since(found) >= c.grace:
		return "", errCollected
	case w.Code != 201:
		return "", fmt.Errorf("PUT of a manifest %v after its content was found: %d %s", time.Since(found), w.Code, w.Body)
	}
	all["/manifests/"+string(d)] = []byte(content)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, d, len(content)), nil
}

// pull checks that all is there that a tag leads to.
func (c *soakClient) pull(tag string) {
	repo, name, _ := strings.Cut(tag, ":")
	w := c.send("GET", "/v2/"+repo+"/manifests/"+name, nil, "")
	if w.Code != 200 {
		c.t.Errorf("GET of the tag %s: %d %s", tag, w.Code, w.Body)
		return
	}
	for path, want := range c.tags[tag] {
		w := c.send("GET", "/v2/"+repo+path, nil, "")
		got, _ := io.ReadAll(w.Body)
		if w.Code != 200 || !bytes.Equal(got, want) {
			c.t.Errorf("GET of %s, to which the tag %s leads: %d, %d bytes, want %d", path, tag, w.Code, len(got), len(want))
		}
	}
}

func (c *soakClient) untag(tag string) {
	repo, name, _ := strings.Cut(tag, ":")
	if w := c.send("DELETE", "/v2/"+repo+"/manifests/"+name, nil, ""); w.Code != 202 {
		c.t.Errorf("DELETE of the tag %s: %d %s", tag, w.Code, w.Body)
	}
	delete(c.tags, tag)
}
