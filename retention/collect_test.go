// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package retention_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/retention"
)

const day = 24 * time.Hour

// content is a repository that a test describes, one push a line, each by name:
//
//	1d image a tags: x y
//	2h index i of: a b
//	1h image sig subject: a
//	3d blob b
//
// An image has a config and a layer of its own. The duration is how long ago the push
// was.
type content struct {
	t      *testing.T
	s      *registry.MemStore
	repo   string
	names  map[digest.Digest]string
	byName map[string]ocispec.Descriptor
}

// open returns a store with repositories, by name. It must be called in a bubble.
func open(t *testing.T, repos map[string]string) (*registry.MemStore, map[string]*content) {
	s := new(registry.MemStore)
	type push struct {
		age  time.Duration
		repo *content
		line []string
	}
	var pushes []push
	contents := make(map[string]*content)
	for _, repo := range slices.Sorted(maps.Keys(repos)) {
		c := &content{t: t, s: s, repo: repo, names: make(map[digest.Digest]string), byName: make(map[string]ocispec.Descriptor)}
		contents[repo] = c
		for line := range strings.Lines(repos[repo]) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			age := parseAge(t, fields[0])
			pushes = append(pushes, push{age, c, fields[1:]})
		}
	}
	slices.SortStableFunc(pushes, func(a, b push) int { return int(b.age - a.age) })
	start := time.Now()
	const oldest = 1000 * day
	for _, p := range pushes {
		time.Sleep(time.Until(start.Add(oldest - p.age)))
		p.repo.push(p.line)
	}
	time.Sleep(time.Until(start.Add(oldest)))
	return s, contents
}

func parseAge(t *testing.T, s string) time.Duration {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n := 0
		_, err := fmt.Sscan(days, &n)
		qt.Assert(t, qt.IsNil(err))
		return time.Duration(n) * day
	}
	d, err := time.ParseDuration(s)
	qt.Assert(t, qt.IsNil(err))
	return d
}

func (c *content) push(line []string) {
	kind, name := line[0], line[1]
	if kind == "blob" {
		c.blob(name)
		return
	}
	var tags, of []string
	subject := ""
	key := ""
	for _, word := range line[2:] {
		switch {
		case strings.HasSuffix(word, ":"):
			key = word
		case key == "tags:":
			tags = append(tags, word)
		case key == "of:":
			of = append(of, word)
		case key == "subject:":
			subject = word
		}
	}
	member := ""
	if subject != "" {
		member = `,"subject":` + c.descriptor(subject)
	}
	mediaType, doc := ocispec.MediaTypeImageManifest, ""
	if kind == "index" {
		mediaType = ocispec.MediaTypeImageIndex
		var list []string
		for _, child := range of {
			list = append(list, c.descriptor(child))
		}
		doc = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"name":%q},"manifests":[%s]%s}`, mediaType, name, strings.Join(list, ","), member)
	} else {
		c.blob(name + ".config")
		c.blob(name + ".layer")
		doc = fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"name":%q},"config":%s,"layers":[%s]%s}`, mediaType, name, c.descriptor(name+".config"), c.descriptor(name+".layer"), member)
	}
	m, err := registry.PushManifest(context.Background(), c.s, c.repo, registry.ManifestPush{MediaType: mediaType, Content: []byte(doc), Tags: tags})
	qt.Assert(c.t, qt.IsNil(err))
	c.add(name, ocispec.Descriptor{MediaType: mediaType, Digest: m.Digest, Size: int64(len(doc))})
}

func (c *content) blob(name string) {
	d := digest.FromString(name)
	qt.Assert(c.t, qt.IsNil(registry.PushBlob(context.Background(), c.s, c.repo, d, strings.NewReader(name))))
	c.add(name, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: int64(len(name))})
}

func (c *content) add(name string, d ocispec.Descriptor) {
	c.names[d.Digest], c.byName[name] = name, d
}

// descriptor returns the JSON of a descriptor. Content that is not known does not exist.
func (c *content) descriptor(name string) string {
	d, ok := c.byName[name]
	if !ok {
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(name), Size: 1}
	}
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.MediaType, d.Digest, d.Size)
}

// left returns the names of the manifests, tags and blobs in the repository, without
// the config and the layer of its images.
func (c *content) left() string {
	var words []string
	images := make(map[string]bool)
	for info, err := range c.s.Manifests(context.Background(), c.repo, "") {
		if err == nil {
			words = append(words, c.names[info.Digest])
			images[c.names[info.Digest]] = true
		}
	}
	for tag, err := range c.s.Tags(context.Background(), c.repo, "") {
		if err == nil {
			words = append(words, ":"+tag)
		}
	}
	for info, err := range c.s.Blobs(context.Background(), c.repo, "") {
		if err != nil {
			continue
		}
		name := c.names[info.Digest]
		image, _, ofImage := strings.Cut(name, ".")
		if ofImage && images[image] {
			images[image] = true
			continue
		}
		words = append(words, name)
	}
	for image := range images { // those that lack a blob
		for _, blob := range []string{image + ".config", image + ".layer"} {
			if d, ok := c.byName[blob]; ok {
				if b, err := c.s.OpenBlob(context.Background(), c.repo, d.Digest); err == nil {
					b.Close()
				} else {
					words = append(words, "!"+blob)
				}
			}
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestCollect collects repositories, and checks what they have afterwards. It does
// so with DryRun first, whose decisions must be the same.
func TestCollect(t *testing.T) {
	all := retention.Keep{All: true}
	none := retention.Keep{}
	releases := retention.Rule{Name: "releases", Tags: []string{"v*"}, Keep: all}
	for _, test := range []struct {
		name      string
		content   string // of the repository a
		other     string // of the repository team/b
		options   retention.Options
		want      string
		wantOther string
	}{
		{"an untagged image is garbage", "1d image a", "", retention.Options{}, "", ""},
		{"a tagged image is not", "1d image a tags: x", "", retention.Options{}, ":x a", ""},
		{"an image is young", "30m image a", "", retention.Options{}, "a", ""},
		{"a shorter grace", "30m image a", "", retention.Options{Grace: time.Minute}, "", ""},
		{"no grace", "1m image a", "", retention.Options{Grace: -1}, "", ""},
		{"a blob that no manifest names", "1d blob b\n 30m blob c\n 1d image a tags: x", "", retention.Options{}, ":x a c", ""},
		{"a moved tag", "3d image a tags: x\n 2d image b tags: x", "", retention.Options{}, ":x b", ""},
		{"an index keeps its images", "3d image a\n 3d image b\n 2d image c\n 1d index i of: a b tags: x", "", retention.Options{}, ":x a b i", ""},
		{"an index of an index", "3d image a\n 2d index i of: a\n 1d index j of: i tags: x", "", retention.Options{}, ":x a i j", ""},
		{"an untagged index goes with its images", "3d image a\n 2d index i of: a", "", retention.Options{}, "", ""},
		{"an untagged index that names an image twice", "3d image a\n 2d index i of: a a", "", retention.Options{}, "", ""},
		{"an untagged index that names its subject twice", "3d image a\n 2d index i of: a a subject: a", "", retention.Options{}, "", ""},
		{"an image of two indexes", "3d image a\n 2d index i of: a\n 1d index j of: a tags: x", "", retention.Options{}, ":x a j", ""},
		{"a young index keeps old images", "3d image a\n 1m index i of: a", "", retention.Options{}, "a i", ""},
		{"referrers of a tagged image", "3d image a tags: x\n 2d image sig subject: a\n 1d image att subject: sig", "", retention.Options{}, ":x a att sig", ""},
		{"referrers of garbage", "3d image a\n 2d image sig subject: a\n 1d image att subject: sig", "", retention.Options{}, "", ""},
		{"a referrer of an index", "3d image a\n 2d index i of: a tags: x\n 1d image sig subject: i", "", retention.Options{}, ":x a i sig", ""},
		{"a referrer without a subject", "2d image sig subject: gone", "", retention.Options{}, "", ""},
		{"KeepUntagged", "2d image a\n 2d image sig subject: gone\n 2d blob b", "", retention.Options{KeepUntagged: true}, "a sig", ""},
		{"each repository counts on its own", "2d blob b\n 2d image a", "2d image a tags: x", retention.Options{}, "", ":x a"},
		{"a tag that no rule matches", "2d image a tags: x", "", retention.Options{Rules: []retention.Rule{releases}}, ":x a", ""},
		{"keep none", "2d image a tags: x y", "", retention.Options{Rules: []retention.Rule{{Name: "none", Tags: []string{"x"}, Keep: none}}}, ":y a", ""},
		{"keep none of all", "2d image a tags: x y", "", retention.Options{Rules: []retention.Rule{{Name: "none", Keep: none}}}, "", ""},
		{"the first match wins", "2d image a tags: v1\n 2d image b tags: x", "", retention.Options{Rules: []retention.Rule{releases, {Name: "none", Keep: none}}}, ":v1 a", ""},
		{"the newest", "4d image a tags: n1\n 3d image b tags: n2\n 2d image c tags: n3\n 5d image d tags: n4", "", retention.Options{Rules: []retention.Rule{{Name: "newest", Keep: retention.Keep{Newest: 2}}}}, ":n2 :n3 b c", ""},
		{"the newest of equal age", "4d image a tags: n1 n2 n3", "", retention.Options{Rules: []retention.Rule{{Name: "newest", Keep: retention.Keep{Newest: 2}}}}, ":n2 :n3 a", ""},
		{"the newest of a pattern", "4d image a tags: n1\n 3d image b tags: n2\n 2d image c tags: x", "", retention.Options{Rules: []retention.Rule{{Name: "newest", Tags: []string{"n*"}, Keep: retention.Keep{Newest: 1}}}}, ":n2 :x b c", ""},
		{"the newest of each repository", "4d image a tags: n1\n 3d image b tags: n2", "9d image a tags: n1\n 8d image b tags: n2", retention.Options{Rules: []retention.Rule{{Name: "newest", Keep: retention.Keep{Newest: 1}}}}, ":n2 b", ":n2 b"},
		{"a push again makes a tag new", "9d image a tags: n1\n 5d image b tags: n2\n 1d image a tags: n1", "", retention.Options{Rules: []retention.Rule{{Name: "newest", Keep: retention.Keep{Newest: 1}}}}, ":n1 a", ""},
		{"within", "4d image a tags: x\n 2d image b tags: y", "", retention.Options{Rules: []retention.Rule{{Name: "within", Keep: retention.Keep{Within: 3 * day}}}}, ":y b", ""},
		{"the newest or within", "9d image a tags: x\n 8d image b tags: y\n 7d image c tags: z", "", retention.Options{Rules: []retention.Rule{{Name: "r", Keep: retention.Keep{Newest: 2, Within: 3 * day}}}}, ":y :z b c", ""},
		{"pulled within", "9d image a tags: x\n 9d image b tags: y", "", retention.Options{
			Rules:  []retention.Rule{{Name: "pulled", Keep: retention.Keep{PulledWithin: day}}},
			Pulled: func(_ string, d digest.Digest) time.Time { return map[bool]time.Time{true: time.Now()}[d == imageA] },
		}, ":x a", ""},
		{"rules of some repositories", "2d image a tags: x", "2d image a tags: x", retention.Options{Rules: []retention.Rule{{Name: "team", Repositories: []string{"team/*"}, Keep: none}}}, ":x a", ""},
		{"patterns of repositories", "2d image a tags: x", "2d image a tags: x", retention.Options{Rules: []retention.Rule{{Name: "all", Repositories: []string{"other", "**"}, Keep: none}}}, "", ""},
		{"untagged manifests for some time", "2d image a\n 4d image b\n 4d image c tags: x", "", retention.Options{Rules: []retention.Rule{{Name: "untagged", Untagged: true, Keep: retention.Keep{Within: 3 * day}}}}, ":x a c", ""},
		{"untagged manifests of some repositories", "2d image a", "2d image b", retention.Options{Rules: []retention.Rule{{Name: "untagged", Repositories: []string{"a"}, Untagged: true, Keep: all}}}, "a", ""},
		{"a rule overrides KeepUntagged", "2d image a\n 4d image b", "", retention.Options{KeepUntagged: true, Rules: []retention.Rule{{Name: "untagged", Untagged: true, Keep: retention.Keep{Within: 3 * day}}}}, "a", ""},
		{"dangling referrers for some time", "2d image s1 subject: gone\n 4d image s2 subject: gone\n 2d image a", "", retention.Options{Rules: []retention.Rule{{Name: "dangling", Dangling: true, Keep: retention.Keep{Within: 3 * day}}}}, "s1", ""},
		{"dangling referrers at once", "2d image s1 subject: gone\n 2d image a", "", retention.Options{KeepUntagged: true, Rules: []retention.Rule{{Name: "dangling", Dangling: true}}}, "a", ""},
		{"the images of a tag that a rule deletes", "3d image a\n 3d image b\n 2d index i of: a b tags: x\n 2d index j of: b tags: y\n 2d image sig subject: i", "", retention.Options{Rules: []retention.Rule{{Name: "none", Tags: []string{"x"}}}}, ":y b j", ""},
		{"an index kept without a tag keeps its images", "9d image a\n 2d index i of: a", "", retention.Options{Rules: []retention.Rule{{Name: "untagged", Untagged: true, Keep: retention.Keep{Within: 3 * day}}}}, "a i", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, repos := open(t, map[string]string{"a": test.content, "team/b": test.other})
				decisions := func(dry bool) (all []retention.Decision, report retention.Report) {
					o := test.options
					o.DryRun = dry
					o.OnDecision = func(d retention.Decision) { all = append(all, d) }
					report, err := retention.Collect(t.Context(), s, o)
					qt.Assert(t, qt.IsNil(err))
					return all, report
				}
				before := repos["a"].left()
				dry, dryReport := decisions(true)
				qt.Check(t, qt.Equals(repos["a"].left(), before))
				real, report := decisions(false)
				qt.Check(t, qt.DeepEquals(real, dry))
				qt.Check(t, qt.Equals(report, dryReport))
				qt.Check(t, qt.Equals(repos["a"].left(), test.want))
				qt.Check(t, qt.Equals(repos["team/b"].left(), test.wantOther))
				for _, d := range dry {
					if d.Reason == "" {
						t.Errorf("no reason: %+v", d)
					}
				}
			})
		})
	}
}

// imageA is the digest of the image a without a subject.
var imageA = digest.FromString(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"name":"a"},"config":{"mediaType":"application/octet-stream","digest":%q,"size":8},"layers":[{"mediaType":"application/octet-stream","digest":%q,"size":7}]}`,
	ocispec.MediaTypeImageManifest, digest.FromString("a.config"), digest.FromString("a.layer")))
