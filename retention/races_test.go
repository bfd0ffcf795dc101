// SPDX-License-Identifier: Apache-2.0

package retention_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/retention"
)

// pausing is a store that calls a function before each call of a method.
type pausing struct {
	registry.Store
	before func(method string)
}

func (p pausing) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	p.before("GetManifest")
	return p.Store.GetManifest(ctx, repo, d)
}

func (p pausing) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	p.before("GetTag")
	return p.Store.GetTag(ctx, repo, tag)
}

func (p pausing) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	p.before("DeleteTag")
	return p.Store.DeleteTag(ctx, repo, tag, allow)
}

func (p pausing) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	p.before("CollectManifests")
	return p.Store.CollectManifests(ctx, repo, manifests, since)
}

func (p pausing) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	p.before("CollectBlobs")
	return p.Store.CollectBlobs(ctx, repo, blobs, since)
}

// TestInterleavings lets a client work in the middle of a collection without a grace
// period. Before, the repository has an untagged index of one image, which is garbage,
// and an image with the tag old, which a rule deletes.
func TestInterleavings(t *testing.T) {
	ctx := context.Background()
	blob := func(s registry.Store, data string) string {
		d := digest.FromString(data)
		if err := registry.PushBlob(ctx, s, "a", d, strings.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":"x/y","digest":%q,"size":%d}`, d, len(data))
	}
	push := func(s registry.Store, mediaType, content string, tags ...string) (string, error) {
		m, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{MediaType: mediaType, Content: []byte(content), Tags: tags})
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, m.Digest, len(content)), err
	}
	imageOf := func(config string, more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[]%s}`, ocispec.MediaTypeImageManifest, config, more)
	}
	indexOf := func(child string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, child)
	}
	descriptor := func(data string) string {
		return fmt.Sprintf(`{"mediaType":"x/y","digest":%q,"size":%d}`, digest.FromString(data), len(data))
	}
	const config, oldConfig = "config", "old config"
	image, oldImage := imageOf(descriptor(config), ""), imageOf(descriptor(oldConfig), "")
	imageDescriptor := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageManifest, digest.FromString(image), len(image))
	index := indexOf(imageDescriptor)
	sum := func(content string) digest.Digest { return digest.FromString(content) }

	for name, test := range map[string]struct {
		pause  string // before which method
		client func(s registry.Store) error
		// Content that must exist afterwards if the client had no error, and not
		// otherwise. Blobs are config and old config.
		manifests, blobs []digest.Digest
		fails            bool // the client's content is gone already
	}{
		"a tag for the garbage index": {"CollectManifests", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageIndex, index, "new")
			return err
		}, []digest.Digest{sum(index), sum(image)}, []digest.Digest{sum(config)}, false},
		"a tag for its image": {"CollectManifests", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageManifest, image, "new")
			return err
		}, []digest.Digest{sum(image)}, []digest.Digest{sum(config)}, false},
		"another index of the image": {"CollectManifests", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageIndex, indexOf(imageDescriptor+","+imageDescriptor), "new")
			return err
		}, []digest.Digest{sum(image)}, []digest.Digest{sum(config)}, false},
		"another image with its blob": {"CollectBlobs", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageManifest, imageOf(descriptor(config), `,"annotations":{"a":"b"}`), "new")
			return err
		}, nil, []digest.Digest{sum(config)}, false},
		"HEAD of a blob": {"CollectBlobs", func(s registry.Store) error {
			_, err := s.StatBlob(ctx, "a", sum(config))
			return err
		}, nil, []digest.Digest{sum(config)}, false},
		"a mount": {"CollectBlobs", func(s registry.Store) error {
			return s.MountBlob(ctx, "a", "a", sum(config))
		}, nil, []digest.Digest{sum(config)}, false},
		"the image after the index is gone": {"CollectBlobs", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageIndex, index, "new")
			return err
		}, nil, nil, true},
		"a push of the tag that a rule deletes": {"DeleteTag", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageManifest, image, "old")
			return err
		}, []digest.Digest{sum(image)}, []digest.Digest{sum(config)}, false},
		"a push of the same manifest to that tag": {"CollectManifests", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageManifest, oldImage, "old")
			return err
		}, []digest.Digest{sum(oldImage)}, []digest.Digest{sum(oldConfig)}, false},
		"a tag after the manifests were listed": {"GetTag", func(s registry.Store) error {
			_, err := push(s, ocispec.MediaTypeImageManifest, imageOf(descriptor(config), `,"annotations":{"a":"b"}`), "new")
			return err
		}, nil, []digest.Digest{sum(config)}, false},
		"a referrer of the index": {"CollectManifests", func(s registry.Store) error {
			subject := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageIndex, sum(index), len(index))
			_, err := push(s, ocispec.MediaTypeImageManifest, imageOf(descriptor(config), `,"subject":`+subject))
			return err
		}, nil, []digest.Digest{sum(config)}, false},
	} {
		for kind, open := range map[string]func(t *testing.T) registry.Store{
			"memory": func(*testing.T) registry.Store { return new(registry.MemStore) },
			"directory": func(t *testing.T) registry.Store {
				s, err := ocidir.Open(t.TempDir(), nil)
				qt.Assert(t, qt.IsNil(err))
				t.Cleanup(func() { s.Close() })
				return s
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				s := open(t)
				blob(s, config)
				blob(s, oldConfig)
				for _, m := range []struct{ mediaType, content, tag string }{
					{ocispec.MediaTypeImageManifest, image, "x"},
					{ocispec.MediaTypeImageIndex, index, "x"},
					{ocispec.MediaTypeImageManifest, oldImage, "old"},
				} {
					_, err := push(s, m.mediaType, m.content, m.tag)
					qt.Assert(t, qt.IsNil(err))
				}
				qt.Assert(t, qt.IsNil(s.DeleteTag(ctx, "a", "x", nil)))
				if d, ok := s.(*ocidir.Store); ok {
					qt.Assert(t, qt.IsNil(d.Fold(ctx)))
					time.Sleep(2100 * time.Millisecond) // it notes uses to within a second
				}
				paused := false
				var clientErr error
				_, err := retention.Collect(ctx, pausing{s, func(method string) {
					if method == test.pause && !paused {
						paused = true
						clientErr = test.client(s)
					}
				}}, retention.Options{Grace: -1, Rules: []retention.Rule{{Name: "old", Tags: []string{"old"}}}})
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsTrue(paused))
				if test.fails {
					qt.Assert(t, qt.ErrorIs(clientErr, error(registry.ErrManifestBlobUnknown)))
				} else {
					qt.Assert(t, qt.IsNil(clientErr))
				}
				for _, d := range test.manifests {
					_, err := s.GetManifest(ctx, "a", d)
					qt.Check(t, qt.IsNil(err))
				}
				for _, d := range test.blobs {
					_, err := s.StatBlob(ctx, "a", d)
					qt.Check(t, qt.IsNil(err))
				}
			})
		}
	}
}

// TestReferrersWait collects garbage with subjects: a manifest is deleted after those that
// lead to it, its subject too, so that it is kept if one of them is used meanwhile.
func TestReferrersWait(t *testing.T) {
	ctx := context.Background()
	descriptor := func(content string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageIndex, digest.FromString(content), len(content))
	}
	index := func(more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q%s}`, ocispec.MediaTypeImageIndex, more)
	}
	image := index(`,"manifests":[]`)
	signature := index(`,"manifests":[],"subject":` + descriptor(image))
	second := index(`,"manifests":[],"subject":` + descriptor(signature))
	own := index(`,"manifests":[` + descriptor(image) + `],"subject":` + descriptor(image))
	last := index(`,"manifests":[],"subject":` + descriptor(own))
	between := index(`,"manifests":[` + descriptor(image) + `]`)
	around := index(`,"manifests":[` + descriptor(between) + `],"subject":` + descriptor(image))
	for name, test := range map[string]struct {
		garbage []string   // in an order in which they can be pushed
		used    string     // the one that gets a tag meanwhile
		asked   [][]string // which manifests the store is asked to delete, in order
	}{
		"a chain":                                {[]string{image, signature, second}, "", [][]string{{image}, {signature}, {second}}},
		"a chain, its first used":                {[]string{image, signature, second}, image, [][]string{{image}}},
		"a chain, its second used":               {[]string{image, signature, second}, signature, [][]string{{image}, {signature}}},
		"an index of its own subject":            {[]string{image, own, last}, "", [][]string{{own}, {image, last}}},
		"an index of its own subject, when used": {[]string{image, own, last}, own, [][]string{{own}}},
		"an index that leads to its own subject": {[]string{image, between, around}, "", [][]string{{around}, {between}, {image}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := new(registry.MemStore)
			push := func(content string, tags ...string) {
				_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(content), Tags: tags})
				qt.Assert(t, qt.IsNil(err))
			}
			for _, content := range test.garbage {
				push(content)
			}
			if test.used != "" {
				push(test.used) // as young as the others
			}
			asked := recording{Store: s}
			decisions := make(map[digest.Digest]int)
			used := false
			_, err := retention.Collect(ctx, pausing{&asked, func(method string) {
				if method == "CollectManifests" && !used && test.used != "" {
					used = true
					push(test.used, "tag")
				}
			}}, retention.Options{Grace: -1, OnDecision: func(d retention.Decision) {
				decisions[d.Digest]++
				_, err := s.GetManifest(ctx, "a", d.Digest)
				qt.Check(t, qt.Equals(err == nil, d.Keep))
			}})
			qt.Assert(t, qt.IsNil(err))
			for _, content := range test.garbage {
				qt.Check(t, qt.Equals(decisions[digest.FromString(content)], 1))
			}
			var want [][]digest.Digest
			for _, level := range test.asked {
				var digests []digest.Digest
				for _, content := range level {
					digests = append(digests, digest.FromString(content))
				}
				slices.Sort(digests)
				want = append(want, digests)
			}
			qt.Check(t, qt.DeepEquals(asked.levels, want))
		})
	}
}

// recording is a store that records which manifests it is asked to delete.
type recording struct {
	registry.Store
	levels [][]digest.Digest
}

func (r *recording) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	r.levels = append(r.levels, slices.Sorted(slices.Values(manifests)))
	return r.Store.CollectManifests(ctx, repo, manifests, since)
}

// TestEvict moves a tag over images that fill a store with a limit.
func TestEvict(t *testing.T) {
	ctx := context.Background()
	s := new(registry.MemStore)
	s.Limits.TotalBytes = 1 << 20
	s.Limits.Collect = retention.Evict(s, retention.Options{Grace: 20 * time.Millisecond})
	for i := range 100 {
		data := fmt.Sprint(i, strings.Repeat("x", 200_000))
		d := digest.FromString(data)
		qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader(data))))
		content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[]}`, ocispec.MediaTypeImageManifest, d, len(data))
		_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(content), Tags: []string{"latest"}})
		qt.Assert(t, qt.IsNil(err))
	}
	// Content that tags lead to is never evicted.
	for i := range 10 {
		data := fmt.Sprint("kept", i, strings.Repeat("x", 200_000))
		d := digest.FromString(data)
		if err := registry.PushBlob(ctx, s, "a", d, strings.NewReader(data)); err != nil {
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrTooLarge)))
			qt.Assert(t, qt.IsTrue(i >= 3))
			return
		}
		content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[]}`, ocispec.MediaTypeImageManifest, d, len(data))
		_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(content), Tags: []string{fmt.Sprint("kept", i)}})
		qt.Assert(t, qt.IsNil(err))
	}
	t.Error("the store has no limit")
}
