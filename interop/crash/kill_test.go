// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/interop/internal/berth"
)

var kills = flag.Int("kills", 3, "the number of times that TestKill kills the registry")

// TestKill repeatedly kills (SIGKILL) a registry with a directory while clients
// push and delete. Each time, the next process opens the directory and must have
// everything that was acknowledged. At the end the directory must consist of
// complete OCI image layouts, which skopeo can read.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	clients := make([]*pusher, 4)
	for i := range clients {
		clients[i] = &pusher{t: t, repo: fmt.Sprint("killed/", i%3), prefix: fmt.Sprint("c", i, "-"), random: rand.New(rand.NewPCG(uint64(i), 1)), tags: make(map[string]tagState), referrers: make(map[digest.Digest]bool), deleted: make(map[digest.Digest]bool)}
	}
	acknowledged := 0
	for n := range *kills {
		b := berth.Start(t, "--store=dir:"+dir, "--log-level=error")
		for _, c := range clients {
			c.addr = b.Addr
			c.verify()
		}
		if t.Failed() {
			t.Fatalf("after %d kills; %s", n, b.Log)
		}
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for c.step() == nil {
				}
			})
		}
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		b.Kill()
		wg.Wait()
		qt.Assert(t, qt.Equals(b.Log.String(), ""))
	}
	b := berth.Start(t, "--store=dir:"+dir, "--log-level=error")
	for _, c := range clients {
		c.addr = b.Addr
		c.verify()
		acknowledged += c.acknowledged
	}
	b.Kill()
	files := checkLayouts(t, dir)
	t.Logf("%d kills; %d acknowledged requests, none lost; %d intact files", *kills, acknowledged, files)

	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("skopeo is not installed: not checking that it can read the layouts")
	}
	n := 0
	for _, c := range clients {
		for tag, s := range c.tags {
			if n++; s.acknowledged == "" || n%(1+len(c.tags)/5) > 0 {
				continue
			}
			out, err := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+filepath.Join(dir, c.repo)+":"+tag, "dir:"+t.TempDir()).CombinedOutput()
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		}
	}
}

// pusher is a client that remembers the requests that were acknowledged.
type pusher struct {
	t            *testing.T
	addr         string
	repo, prefix string // prefix begins its tags, since others use the repository too
	random       *rand.Rand
	acknowledged int

	tags      map[string]tagState
	subject   digest.Digest          // of its referrers
	referrers map[digest.Digest]bool // acknowledged
	deleted   map[digest.Digest]bool // referrers whose deletion was acknowledged

	upload string // the location of an upload in progress
	sent   int64  // its acknowledged bytes
	data   []byte
}

// tagState is the state of a tag: the manifest of the last acknowledged push, and
// of the last push, acknowledged or not.
type tagState struct {
	acknowledged, pushed digest.Digest
	blobs                map[digest.Digest][]digest.Digest // that the manifests name
}

// send sends a request. It fails if no response arrives, because the registry was
// killed.
func (c *pusher) send(method, path, contentType string, body []byte, want ...int) (*http.Response, []byte, error) {
	if strings.HasPrefix(path, "/") {
		path = "http://" + c.addr + path
	}
	req, err := http.NewRequest(method, path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	response, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(want, resp.StatusCode) {
		c.t.Errorf("%s %s: %s %s", method, path, resp.Status, response)
		return nil, nil, errors.New("unexpected status")
	}
	c.acknowledged++
	return resp, response, nil
}

const octets = "application/octet-stream"

// bytes returns n random bytes.
func (c *pusher) bytes(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(c.random.Uint32())
	}
	return data
}

// push pushes a blob in one of three ways.
func (c *pusher) push(data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	uploads := "/v2/" + c.repo + "/blobs/uploads/"
	if c.random.IntN(3) == 0 {
		_, _, err := c.send("POST", uploads+"?digest="+d.String(), octets, data, 201)
		return d, err
	}
	resp, _, err := c.send("POST", uploads, octets, nil, 202)
	if err != nil {
		return d, err
	}
	if half := len(data) / 2; c.random.IntN(2) == 0 {
		if resp, _, err = c.send("PATCH", resp.Header.Get("Location"), octets, data[:half], 202); err != nil {
			return d, err
		}
		data = data[half:]
	}
	_, _, err = c.send("PUT", resp.Header.Get("Location")+"?digest="+d.String(), octets, data, 201)
	return d, err
}

// step performs one random action of a client.
func (c *pusher) step() error {
	switch c.random.IntN(8) {
	case 0:
		return c.pushReferrer()
	case 1:
		return c.deleteReferrer()
	case 2:
		return c.continueUpload()
	}
	var blobs []ocispec.Descriptor
	var digests []digest.Digest
	for range 2 {
		data := c.bytes(1 + c.random.IntN(50_000))
		d, err := c.push(data)
		if err != nil {
			return err
		}
		blobs = append(blobs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(data))})
		digests = append(digests, d)
	}
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	d, err := c.push(config)
	if err != nil {
		return err
	}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: d, Size: int64(len(config))}, Layers: blobs}
	manifest.SchemaVersion = 2
	content, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	tag := fmt.Sprint(c.prefix, c.random.IntN(20))
	s := c.tags[tag]
	s.pushed = digest.FromBytes(content)
	if s.blobs == nil {
		s.blobs = make(map[digest.Digest][]digest.Digest)
	}
	s.blobs[s.pushed] = append(digests, d)
	c.tags[tag] = s
	if _, _, err := c.send("PUT", "/v2/"+c.repo+"/manifests/"+tag, manifest.MediaType, content, 201); err != nil {
		return err
	}
	s.acknowledged = s.pushed
	c.tags[tag] = s
	return nil
}

// pushReferrer pushes a referrer of a subject that only this client uses.
func (c *pusher) pushReferrer() error {
	c.subject = digest.FromString(c.prefix)
	content := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"n":"%x"}}`,
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, c.subject, c.bytes(10))
	d := digest.FromBytes(content)
	if _, _, err := c.send("PUT", "/v2/"+c.repo+"/manifests/"+d.String(), ocispec.MediaTypeImageIndex, content, 201); err != nil {
		return err
	}
	c.referrers[d] = true
	return nil
}

// deleteReferrer deletes a referrer.
func (c *pusher) deleteReferrer() error {
	for d := range c.referrers {
		delete(c.referrers, d) // from here on the list may contain it or not
		if _, _, err := c.send("DELETE", "/v2/"+c.repo+"/manifests/"+d.String(), "", nil, 202); err != nil {
			return err
		}
		c.deleted[d] = true
		break
	}
	return nil
}

// continueUpload pushes a blob in chunks, one per call, so that uploads span kills.
func (c *pusher) continueUpload() error {
	if c.upload == "" {
		resp, _, err := c.send("POST", "/v2/"+c.repo+"/blobs/uploads/", octets, nil, 202)
		if err != nil {
			return err
		}
		c.upload, c.sent, c.data = resp.Header.Get("Location"), 0, c.bytes(100_000)
		return nil
	}
	if c.sent == int64(len(c.data)) {
		location := c.upload
		c.upload = "" // whether or not the PUT succeeds
		_, _, err := c.send("PUT", location+"?digest="+digest.FromBytes(c.data).String(), octets, nil, 201)
		return err
	}
	_, _, err := c.send("PATCH", c.upload, octets, c.data[c.sent:c.sent+10_000], 202)
	if err == nil {
		c.sent += 10_000
	}
	return err
}

// verify checks that the registry has everything that was acknowledged.
func (c *pusher) verify() {
	c.t.Helper()
	seen := make(map[digest.Digest]bool)
	for tag, s := range c.tags {
		want := []int{200}
		if s.acknowledged == "" {
			want = append(want, 404)
		}
		resp, content, err := c.send("GET", "/v2/"+c.repo+"/manifests/"+tag, "", nil, want...)
		if err != nil {
			c.t.Error(err)
			return
		}
		if resp.StatusCode == 404 {
			continue
		}
		d := digest.FromBytes(content)
		if d != s.acknowledged && d != s.pushed {
			c.t.Errorf("%s:%s is %s, want the acknowledged %s", c.repo, tag, d, s.acknowledged)
			return
		}
		for _, blob := range s.blobs[d] {
			if seen[blob] {
				continue
			}
			seen[blob] = true
			_, data, err := c.send("GET", "/v2/"+c.repo+"/blobs/"+blob.String(), "", nil, 200)
			if err != nil || digest.FromBytes(data) != blob {
				c.t.Errorf("blob %s of %s:%s: %v", blob, c.repo, tag, err)
				return
			}
		}
		s.acknowledged, s.pushed, s.blobs = d, d, map[digest.Digest][]digest.Digest{d: s.blobs[d]}
		c.tags[tag] = s
	}
	if c.subject != "" {
		_, list, err := c.send("GET", "/v2/"+c.repo+"/referrers/"+c.subject.String(), "", nil, 200)
		if err != nil {
			c.t.Error(err)
			return
		}
		for d := range c.referrers {
			if !bytes.Contains(list, []byte(d)) {
				c.t.Errorf("the list lacks the acknowledged referrer %s", d)
			}
		}
		for d := range c.deleted {
			if bytes.Contains(list, []byte(d)) {
				c.t.Errorf("the list has the deleted referrer %s", d)
			}
		}
	}
	if c.upload != "" {
		resp, _, err := c.send("GET", c.upload, "", nil, 204)
		if err != nil {
			c.t.Error(err)
			return
		}
		var last int64
		fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &last)
		if last > 0 {
			last++
		}
		if last < c.sent {
			c.t.Errorf("an upload has %d bytes, want the acknowledged %d", last, c.sent)
		}
		c.sent = last
	}
}

// checkLayouts checks that each file in a layout's blobs folder has the digest in
// its name, that each index.json names existing files, and that no other files
// exist. It returns the number of blob files.
func checkLayouts(t *testing.T, dir string) (files int) {
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		switch parent := filepath.Base(filepath.Dir(name)); {
		case parent == "sha256":
			sum := sha256.Sum256(data)
			qt.Check(t, qt.Equals(hex.EncodeToString(sum[:]), e.Name()))
			files++
		case e.Name() == "index.json":
			var index ocispec.Index
			qt.Assert(t, qt.IsNil(json.Unmarshal(data, &index)))
			for _, d := range index.Manifests {
				info, err := os.Stat(filepath.Join(filepath.Dir(name), "blobs", "sha256", d.Digest.Encoded()))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(info.Size(), d.Size))
			}
		case e.Name() == "oci-layout", e.Name() == "lock", parent == "uploads":
		case strings.HasSuffix(e.Name(), ".tmp"): // being written at the last kill
		default:
			t.Errorf("unexpected file %s", name)
		}
		return nil
	})
	qt.Assert(t, qt.IsNil(err))
	return files
}
