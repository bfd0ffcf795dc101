// SPDX-License-Identifier: Apache-2.0

// A manifest, what it names, what refers to it, and its deletion.

package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

const (
	maxConfig     = 1 << 20  // bytes of a config that are shown
	maxChildren   = 500      // content of a manifest whose presence is checked
	maxReferrers  = 200      // in all levels of the tree
	maxDepth      = 4        // of the tree
	maxDescriptor = 64 << 10 // bytes of a referrer's descriptor that is parsed
	maxTags       = 20       // that point at a manifest
	maxSearched   = 500      // tags that are looked at to find them
)

// document is what manifests of all types may contain.
type document struct {
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
}

// parse returns what a manifest says, as far as it can be understood: other tools than the
// registry may have put it in the store.
func parse(m registry.Manifest) (doc document) {
	json.Unmarshal(m.Content, &doc)
	return doc
}

// imageConfigs are the beginnings of the types of configs that name no artifact.
var imageConfigs = []string{"application/vnd.oci.image.config.", "application/vnd.oci.empty.", "application/vnd.docker.container.image."}

// artifactType returns the type of an artifact, "" for an image. Older tools name it only as
// the type of the config.
func (d document) artifactType() string {
	switch {
	case d.ArtifactType != "" || d.Config == nil:
		return d.ArtifactType
	case slices.ContainsFunc(imageConfigs, func(prefix string) bool { return strings.HasPrefix(d.Config.MediaType, prefix) }):
		return ""
	}
	return d.Config.MediaType
}

// blobs returns the blobs that a manifest names.
func (d document) blobs() []ocispec.Descriptor {
	blobs := d.Layers
	if d.Config != nil {
		blobs = append([]ocispec.Descriptor{*d.Config}, blobs...)
	}
	return blobs
}

// request returns the registry's request for a path below a repository. It rejects names
// that are none, and other requests than op.
func request(op registry.Op, method, repo, path string) (registry.Request, error) {
	u := &url.URL{Path: "/v2/" + repo + path}
	req, err := registry.ParseRequest(&http.Request{Method: method, URL: u, Header: http.Header{}})
	if err == nil && (req.Repo != repo || req.Op != op) {
		err = registry.ErrNameInvalid
	}
	return req, err
}

// opened is a manifest that the page shows.
type opened struct {
	Repo      string          `json:"repo"`
	Digest    digest.Digest   `json:"digest"`
	MediaType string          `json:"mediaType"`
	Content   string          `json:"content"`
	Tags      []string        `json:"tags"`
	Config    *text           `json:"config,omitempty"`
	Missing   []digest.Digest `json:"missing"` // content that the repository lacks
	Referrers []*referrer     `json:"referrers"`
	MayDelete bool            `json:"mayDelete"`
	MayUntag  bool            `json:"mayUntag"` // delete the tag by which it was requested
}

// text is content of which the page shows the beginning.
type text struct {
	Text      string `json:"text"`
	Size      int64  `json:"size"`
	Truncated bool   `json:"truncated,omitempty"`
	Binary    bool   `json:"binary,omitempty"`
	Error     string `json:"error,omitempty"`
}

// referrer is a manifest that refers to another.
type referrer struct {
	Digest      digest.Digest     `json:"digest"`
	MediaType   string            `json:"mediaType"`
	Artifact    string            `json:"artifact,omitempty"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Referrers   []*referrer       `json:"referrers,omitempty"`
}

// getManifest returns the manifest with the tag or digest ref.
func (i *Inspector) getManifest(r *http.Request) (any, error) {
	ctx := r.Context()
	req, err := request(registry.OpManifestGet, http.MethodGet, r.URL.Query().Get("repo"), "/manifests/"+r.URL.Query().Get("ref"))
	if err != nil {
		return nil, err
	}
	if err := i.allow(ctx, auth.Pull, req); err != nil {
		return nil, err
	}
	m, err := i.find(ctx, req)
	if err != nil {
		return nil, err
	}
	o := opened{Repo: req.Repo, Digest: m.Digest, MediaType: m.MediaType, Content: string(m.Content), Tags: []string{}, Missing: []digest.Digest{}}
	o.MayDelete = i.mayDelete(ctx, registry.Request{Repo: req.Repo, Digest: m.Digest})
	o.MayUntag = req.Tag != "" && i.mayDelete(ctx, registry.Request{Repo: req.Repo, Tag: req.Tag})
	doc := parse(m)
	if doc.Config != nil && doc.Config.Digest.Validate() == nil && doc.Config.MediaType != ocispec.MediaTypeEmptyJSON {
		o.Config = i.readBlob(ctx, req.Repo, doc.Config.Digest)
	}
	o.Missing = i.missing(ctx, req.Repo, doc)
	if o.Tags, err = i.tagsOf(ctx, req.Repo, m.Digest); err != nil {
		return nil, err
	}
	left := maxReferrers
	o.Referrers, err = i.referrers(ctx, req.Repo, m.Digest, maxDepth, &left)
	return o, err
}

// find returns the manifest that a request names.
func (i *Inspector) find(ctx context.Context, req registry.Request) (registry.Manifest, error) {
	if req.Tag != "" {
		return i.store.GetTag(ctx, req.Repo, req.Tag)
	}
	return i.store.GetManifest(ctx, req.Repo, req.Digest)
}

// tagsOf returns the tags that point at a manifest, of those that are looked at.
func (i *Inspector) tagsOf(ctx context.Context, repo string, d digest.Digest) ([]string, error) {
	tags, _, err := i.firstTags(ctx, repo, maxSearched)
	if err != nil {
		return nil, err
	}
	readEach(len(tags), func(n int) registry.Manifest {
		m, err := i.store.GetTag(ctx, repo, tags[n].Tag)
		if err == nil {
			tags[n].Digest = m.Digest
		}
		return m
	})
	found := []string{}
	for _, tag := range tags {
		if tag.Digest == d && len(found) < maxTags {
			found = append(found, tag.Tag)
		}
	}
	return found, nil
}

// missing returns the digests that a manifest names and the repository lacks.
func (i *Inspector) missing(ctx context.Context, repo string, doc document) []digest.Digest {
	blobs := doc.blobs()
	all := append(blobs[:len(blobs):len(blobs)], doc.Manifests...)
	all = all[:min(len(all), maxChildren)]
	lacks := make([]bool, len(all))
	each(len(all), func(n int) {
		d := all[n].Digest
		if d.Validate() != nil {
			return
		}
		var err error
		if n < len(blobs) {
			_, err = i.store.StatBlob(ctx, repo, d)
		} else {
			_, err = i.store.StatManifest(ctx, repo, d)
		}
		lacks[n] = errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrManifestUnknown) || errors.Is(err, registry.ErrNameUnknown)
	})
	found := []digest.Digest{}
	for n, d := range all {
		if lacks[n] {
			found = append(found, d.Digest)
		}
	}
	return found
}

// readBlob returns the beginning of a blob that is text.
func (i *Inspector) readBlob(ctx context.Context, repo string, d digest.Digest) *text {
	content, err := i.store.OpenBlob(ctx, repo, d)
	if err != nil {
		return &text{Error: publicText(err)}
	}
	defer content.Close()
	data, err := io.ReadAll(io.LimitReader(content, maxConfig+1))
	if err != nil {
		return &text{Error: publicText(err)}
	}
	return newText(data, maxConfig, int64(len(data)))
}

// referrers returns the tree of manifests that refer to one. A manifest can't refer to
// itself, not even indirectly, but a digest may be listed by more than one.
func (i *Inspector) referrers(ctx context.Context, repo string, subject digest.Digest, depth int, left *int) ([]*referrer, error) {
	all := []*referrer{}
	for d, err := range i.store.Referrers(ctx, repo, subject, "") {
		if err != nil {
			return nil, err
		}
		if *left == 0 {
			break
		}
		*left--
		var desc ocispec.Descriptor
		if len(d.Descriptor) <= maxDescriptor {
			json.Unmarshal(d.Descriptor, &desc)
		}
		found := &referrer{Digest: d.Digest, MediaType: clip(desc.MediaType), Artifact: clip(d.ArtifactType), Size: desc.Size}
		for _, key := range slices.Sorted(maps.Keys(desc.Annotations))[:min(len(desc.Annotations), 20)] {
			if found.Annotations == nil {
				found.Annotations = make(map[string]string)
			}
			found.Annotations[clip(key)] = clip(desc.Annotations[key])
		}
		all = append(all, found)
	}
	if depth > 1 {
		for _, found := range all {
			var err error
			if found.Referrers, err = i.referrers(ctx, repo, found.Digest, depth-1, left); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// mayDelete reports whether the page can delete a manifest or a tag, and the user may.
func (i *Inspector) mayDelete(ctx context.Context, req registry.Request) bool {
	req.Op = registry.OpManifestDelete
	return i.Registry != nil && i.allow(ctx, auth.Delete, req) == nil
}

// deleteManifest deletes the tag or manifest ref through the registry.
func (i *Inspector) deleteManifest(w http.ResponseWriter, r *http.Request) {
	req, err := request(registry.OpManifestDelete, http.MethodDelete, r.URL.Query().Get("repo"), "/manifests/"+r.URL.Query().Get("ref"))
	if err == nil && i.Registry == nil {
		err = &registry.Error{Status: http.StatusMethodNotAllowed, Message: "this page can't delete"}
	}
	if err == nil {
		err = i.allow(r.Context(), auth.Delete, req)
	}
	if err != nil {
		respond(w, nil, err)
		return
	}
	inner := r.Clone(r.Context())
	inner.URL = &url.URL{Path: "/v2/" + req.Repo + "/manifests/" + r.URL.Query().Get("ref")}
	inner.RequestURI, inner.Body = "", http.NoBody
	i.Registry.ServeHTTP(w, inner)
}

// publicText returns the text of an error for the page: the one that registry.WriteError
// sends, which does not tell how a store has failed.
func publicText(err error) string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			if e := (*registry.Error)(nil); errors.As(err, &e) {
				return publicText(err)
			}
		}
	} else if e := (*registry.Error)(nil); errors.As(err, &e) {
		return err.Error()
	}
	return "the registry's store has failed"
}
