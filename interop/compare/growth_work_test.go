// SPDX-License-Identifier: Apache-2.0

//go:build linux

// The repositories of TestGrowth, and the work on them.

package compare

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	growing  = "growth/tags"      // a repository of tagged manifests
	referred = "growth/referrers" // a repository of referrers of one subject

	// firstPush is the number of the first manifest that a measurement pushes.
	firstPush = 1_000_000
)

// The blobs that all manifests share.
var (
	growthConfig = []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	growthLayer  = bytes.Repeat([]byte("layer\n"), 20)
)

// growthImage returns the i-th manifest of a repository. If subject is not nil, it
// is a referrer of it.
func growthImage(i int, subject *ocispec.Descriptor) []byte {
	m := ocispec.Manifest{
		MediaType:   imageType,
		Config:      describe(ocispec.MediaTypeImageConfig, growthConfig),
		Layers:      []ocispec.Descriptor{describe(ocispec.MediaTypeImageLayer, growthLayer)},
		Subject:     subject,
		Annotations: map[string]string{"number": fmt.Sprint(i)},
	}
	m.SchemaVersion = 2
	if subject != nil {
		m.ArtifactType = "application/vnd.example.signature"
	}
	data, _ := json.Marshal(m) // cannot fail
	return data
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// growthSubject returns the descriptor of the subject of all referrers.
func growthSubject() ocispec.Descriptor { return describe(imageType, growthImage(-1, nil)) }

func growthTag(i int) string { return fmt.Sprintf("t%07d", i) }

// pushTagged pushes the i-th manifest of the repository growing, with its tag.
func pushTagged(c *conn, i int) error {
	_, err := c.want(201, "PUT", "/v2/"+growing+"/manifests/"+growthTag(i), growthImage(i, nil), "Content-Type: "+imageType)
	return err
}

// pushReferrerTo pushes the i-th manifest of the repository referred.
func pushReferrerTo(c *conn, i int) error {
	subject := growthSubject()
	data := growthImage(i, &subject)
	_, err := c.want(201, "PUT", "/v2/"+referred+"/manifests/"+digest.FromBytes(data).String(), data, "Content-Type: "+imageType)
	return err
}

func deleteManifest(c *conn, repo string, data []byte) error {
	_, err := c.want(202, "DELETE", "/v2/"+repo+"/manifests/"+digest.FromBytes(data).String(), nil)
	return err
}

// growthWork is a kind of work that TestGrowth measures.
type growthWork struct {
	name    string
	repo    string
	op      func(c *conn, size, i int) error // on a repository of size manifests
	pushes  bool                             // i is the number of a manifest to push
	deletes bool                             // i is the number of a manifest that was pushed
	reads   int                              // the number of operations, if they change nothing
}

// Each measurement of pushes is followed by one of deletes, after which the
// repository has its size again.
var growthWorks = []growthWork{
	{name: "push a manifest with a new tag", repo: growing, pushes: true, op: func(c *conn, _, i int) error {
		return pushTagged(c, i)
	}},
	{name: "delete a manifest with its tag", repo: growing, deletes: true, op: func(c *conn, _, i int) error {
		return deleteManifest(c, growing, growthImage(i, nil))
	}},
	{name: "move a tag", repo: growing, op: func(c *conn, size, i int) error {
		_, err := c.want(201, "PUT", "/v2/"+growing+"/manifests/latest", growthImage(i%size, nil), "Content-Type: "+imageType)
		return err
	}},
	{name: "push a referrer of one subject", repo: referred, pushes: true, op: func(c *conn, _, i int) error {
		return pushReferrerTo(c, i)
	}},
	{name: "delete a referrer of one subject", repo: referred, deletes: true, op: func(c *conn, _, i int) error {
		subject := growthSubject()
		return deleteManifest(c, referred, growthImage(i, &subject))
	}},
	{name: "list the referrers of one subject", repo: referred, reads: 20, op: func(c *conn, _, _ int) error {
		_, err := c.want(200, "GET", "/v2/"+referred+"/referrers/"+growthSubject().Digest.String(), nil)
		return err
	}},
}

// supportedBy reports whether a kind of server supports w.
func (w growthWork) supportedBy(kind string) bool { return w.reads == 0 || kind != "distribution" }
