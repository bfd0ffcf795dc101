// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest is a manifest that a client has pushed or tried to push.
type manifest struct {
	repo      string
	digest    digest.Digest
	mediaType string
	content   []byte
	layers    []digest.Digest
	referrer  string // its path in the list of referrers, if it is one
}

func (m manifest) path() string { return manifestPath(m.repo, m.digest.String()) }

func manifestPath(repo, reference string) string { return "/v2/" + repo + "/manifests/" + reference }

func blobPath(repo string, d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }

const configData = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`

// step performs one random action of a client.
func (c *client) step() error {
	actions := []func() error{
		c.pushImage, c.pushImage, c.pushImage, c.pushImage, c.moveTag, c.moveTag, c.pushReferrer, c.pushReferrer,
		c.deleteManifest, c.deleteTag, c.deleteBlob, c.deleteBlob, c.mountBlob, c.continueUpload, c.continueUpload,
	}
	if len(c.live("")) > 20 {
		return c.deleteManifest()
	}
	if c.random.IntN(40) == 0 {
		return c.emptyRepo()
	}
	return actions[c.random.IntN(len(actions))]()
}

// repo returns one of the client's repositories.
func (c *client) repo() string {
	if c.random.IntN(3) == 0 {
		return c.own
	}
	return c.shared
}

// tagPath returns the path of one of the client's tags.
func (c *client) tagPath(repo string) string {
	return manifestPath(repo, fmt.Sprint(c.prefix, c.random.IntN(8)))
}

// live returns the manifests that exist in a repository, or in all.
func (c *client) live(repo string) (live []manifest) {
	for path, m := range c.manifests {
		if c.state[path] != "" && (repo == "" || m.repo == repo) {
			live = append(live, m)
		}
	}
	return live
}

// newBytes returns a new blob, or one that the client has pushed before, maybe
// elsewhere.
func (c *client) newBytes() []byte {
	if c.recent != nil && c.random.IntN(4) == 0 {
		return c.recent
	}
	c.recent = randomBytes(c.random, 32+c.random.IntN(50_000))
	return c.recent
}

func randomBytes(random *rand.Rand, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

// pushBlob pushes a blob in one of three ways. Only its own repository and blobs
// that no other client pushes are the client's to delete.
func (c *client) pushBlob(repo string, data []byte) (digest.Digest, error) {
	d := digest.FromBytes(data)
	path := blobPath(repo, d)
	if repo == c.own || string(data) != configData {
		c.blobs[path] = d
	}
	effects := state{path: d}
	uploads := "/v2/" + repo + "/blobs/uploads/"
	if c.random.IntN(3) == 0 {
		return d, c.change("POST", uploads+"?digest="+d.String(), octets, data, 201, effects)
	}
	resp, _, err := c.send("POST", uploads, nil, nil, 202)
	if err != nil {
		return d, err
	}
	if half := len(data) / 2; c.random.IntN(2) == 0 {
		if resp, _, err = c.send("PATCH", resp.Header.Get("Location"), octets, data[:half], 202); err != nil {
			return d, err
		}
		data = data[half:]
	}
	return d, c.change("PUT", resp.Header.Get("Location")+"?digest="+d.String(), octets, data, 201, effects)
}

// mountBlob mounts a blob of one of the client's repositories in the other.
func (c *client) mountBlob() error {
	from, to := c.shared, c.own
	if c.random.IntN(2) == 0 {
		from, to = to, from
	}
	for _, d := range c.blobs {
		if c.state[blobPath(from, d)] == "" {
			continue
		}
		path := blobPath(to, d)
		if to == c.own || d != digest.FromString(configData) {
			c.blobs[path] = d
		}
		return c.change("POST", "/v2/"+to+"/blobs/uploads/?mount="+d.String()+"&from="+from, nil, nil, 201, state{path: d})
	}
	return nil
}

// pushImage pushes an image with a tag.
func (c *client) pushImage() error {
	repo := c.repo()
	content := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	content.SchemaVersion = 2
	var layers []digest.Digest
	for range 1 + c.random.IntN(2) {
		data := c.newBytes()
		d, err := c.pushBlob(repo, data)
		if err != nil {
			return err
		}
		content.Layers = append(content.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(data))})
		layers = append(layers, d)
	}
	config, err := c.pushBlob(repo, []byte(configData))
	if err != nil {
		return err
	}
	content.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config, Size: int64(len(configData))}
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	m := manifest{repo: repo, digest: digest.FromBytes(data), mediaType: content.MediaType, content: data, layers: append(layers, config)}
	return c.pushManifest(m, c.tagPath(repo))
}

// moveTag points a tag, new or not, at an existing manifest.
func (c *client) moveTag() error {
	for _, m := range c.live("") {
		return c.pushManifest(m, c.tagPath(m.repo))
	}
	return nil
}

// pushManifest pushes a manifest to a path: that of a tag, or its own. Some pushes
// of a tag depend on a condition, and some of these fail.
func (c *client) pushManifest(m manifest, path string) error {
	c.manifests[m.path()] = m
	effects := state{m.path(): m.digest, path: m.digest}
	if m.referrer != "" {
		effects[m.referrer] = m.digest
	}
	header := http.Header{"Content-Type": {m.mediaType}}
	old := c.state[path]
	switch c.random.IntN(6) {
	case 0, 1:
		if old == "" {
			header.Set("If-None-Match", "*")
		} else {
			header.Set("If-Match", `"`+old.String()+`"`)
		}
	case 2:
		if path == m.path() {
			break
		}
		header.Set("If-Match", `"`+digest.FromString("another").String()+`"`)
		return c.change("PUT", path, header, m.content, 412, nil)
	}
	return c.change("PUT", path, header, m.content, 201, effects)
}

// pushReferrer pushes a referrer of a subject that may not exist.
func (c *client) pushReferrer() error {
	repo := c.repo()
	subject := digest.FromString(fmt.Sprint(c.prefix, c.random.IntN(2)))
	content := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"n":"%x"}}`,
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, subject, randomBytes(c.random, 10))
	m := manifest{repo: repo, digest: digest.FromBytes(content), mediaType: ocispec.MediaTypeImageIndex, content: content}
	m.referrer = "/v2/" + repo + "/referrers/" + subject.String() + "#" + m.digest.String()
	return c.pushManifest(m, m.path())
}

// deleteManifest deletes one of the client's manifests.
func (c *client) deleteManifest() error {
	for _, m := range c.live("") {
		return c.deleteThis(m)
	}
	return nil
}

// deleteThis deletes a manifest, with its tags.
func (c *client) deleteThis(m manifest) error {
	effects := make(state)
	for path, d := range c.state {
		if d == m.digest && (path == m.path() || path == m.referrer || c.isTag(path, m.repo)) {
			effects[path] = ""
		}
	}
	return c.change("DELETE", m.path(), nil, nil, 202, effects)
}

// isTag reports whether path is that of one of the client's tags in a repository.
func (c *client) isTag(path, repo string) bool {
	for i := range 8 {
		if path == manifestPath(repo, fmt.Sprint(c.prefix, i)) {
			return true
		}
	}
	return false
}

// deleteTag deletes a tag.
func (c *client) deleteTag() error {
	path := c.tagPath(c.repo())
	if c.state[path] == "" {
		return nil
	}
	return c.change("DELETE", path, nil, nil, 202, state{path: ""})
}

// deleteBlob deletes a blob that no manifest of the client names.
func (c *client) deleteBlob() error {
	used := make(map[string]bool)
	for _, m := range c.live("") {
		for _, d := range m.layers {
			used[blobPath(m.repo, d)] = true
		}
	}
	for path := range c.blobs {
		if c.state[path] != "" && !used[path] {
			c.deleted[path] = true
			return c.change("DELETE", path, nil, nil, 202, state{path: ""})
		}
	}
	return nil
}

// emptyRepo deletes all content of the client's own repository, which then does not
// exist until it is used again.
func (c *client) emptyRepo() error {
	live := c.live(c.own)
	if len(live) == 0 {
		return nil
	}
	for _, m := range live {
		if err := c.deleteThis(m); err != nil {
			return err
		}
	}
	for path, d := range c.blobs {
		if path != blobPath(c.own, d) || c.state[path] == "" {
			continue
		}
		c.deleted[path] = true
		if err := c.change("DELETE", path, nil, nil, 202, state{path: ""}); err != nil {
			return err
		}
	}
	resp, _, err := c.send("GET", "/v2/"+c.own+"/tags/list", nil, nil, 200, 404)
	if err == nil && resp.StatusCode == 200 {
		// A crash during the push or deletion of a manifest has left its file,
		// which is a blob if index.json does not name it. The client goes on
		// elsewhere.
		c.own += "x"
	}
	return err
}

// continueUpload pushes a blob in chunks, one per call, so that uploads span
// crashes.
func (c *client) continueUpload() error {
	if c.upload == "" {
		resp, _, err := c.send("POST", "/v2/"+c.shared+"/blobs/uploads/", nil, nil, 202)
		if err != nil {
			return err
		}
		c.upload, c.sent, c.data = resp.Header.Get("Location"), 0, randomBytes(c.random, 100_000)
		return nil
	}
	if c.sent == len(c.data) {
		location, d := c.upload, digest.FromBytes(c.data)
		c.upload = "" // whether or not the PUT succeeds
		path := blobPath(c.shared, d)
		c.blobs[path] = d
		return c.change("PUT", location+"?digest="+d.String(), octets, nil, 201, state{path: d})
	}
	_, _, err := c.send("PATCH", c.upload, octets, c.data[c.sent:min(len(c.data), c.sent+20_000)], 202)
	if err == nil {
		c.sent = min(len(c.data), c.sent+20_000)
	}
	return err
}
