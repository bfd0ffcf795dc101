// SPDX-License-Identifier: Apache-2.0

// Command berth ls.

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// lsCmd is berth ls.
type lsCmd struct {
	Ref  string // all repositories if it is ""
	From string
	remoteFlags
	JSON bool
}

func (c *lsCmd) command() *cobra.Command {
	cmd := newCommand("ls --from STORE [REF]", "List repositories, tags and referrers.",
		"List repositories, their tags with platforms and sizes, and referrers with their types: all of them, or those of REF, a repository or an image as REPO:TAG or REPO@DIGEST. The size of a tag is that of its manifests, configurations and layers as manifests state them, each counted once, without referrers. "+
			"A manifest that an index names and the store lacks is marked as missing.\n\n"+
			storeHelp+" Or: "+remoteHelp+".",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.From, "from", "", "The `STORE` or registry to list. Required.")
			c.remoteFlags.define(f)
			f.BoolVar(&c.JSON, "json", false, "Print JSON: an array of repositories.")
		}})
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			c.Ref, args = args[0], args[1:]
		}
		return noArguments(cmd, args)
	}
	cmd.MarkFlagRequired("from")
	return cmd
}

func (c *lsCmd) Run(stdout io.Writer, logs logOutput) error {
	return interruptible(errors.New("interrupted"), func(ctx context.Context) error { return c.list(ctx, stdout, logs) })
}

// listedRepo is a repository in the output.
type listedRepo struct {
	Name string       `json:"name"`
	Tags []listedNode `json:"tags"`
}

// listedNode is a manifest in the output.
type listedNode struct {
	Tag          string        `json:"tag,omitempty"`
	Digest       digest.Digest `json:"digest"`
	MediaType    string        `json:"mediaType"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Platform     string        `json:"platform,omitempty"`
	Size         int64         `json:"size"`
	Missing      bool          `json:"missing,omitempty"`
	Manifests    []listedNode  `json:"manifests,omitempty"`
	Referrers    []listedNode  `json:"referrers,omitempty"`
}

func (c *lsCmd) list(ctx context.Context, stdout io.Writer, logs logOutput) error {
	if err := c.remoteFlags.check(c.From); err != nil {
		return err
	}
	var r ref
	if c.Ref != "" {
		var err error
		if r, err = parseRef(c.Ref); err != nil {
			return err
		}
	}
	s, closer, err := openSource(ctx, c.From, storeOptions{onError: logs.failed, log: logs.logger(), warn: func(string) {}, remote: c.remoteFlags})
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	defer closer.Close()
	out := lister{store: s, w: stdout}
	if c.JSON {
		out.json = json.NewEncoder(stdout)
		out.json.SetIndent("", "  ")
	}
	if r.repo != "" {
		return out.end(out.repository(ctx, r))
	}
	for name, err := range s.Repositories(ctx, "") {
		if err != nil {
			return fmt.Errorf("%s: %w", c.From, err)
		}
		err := out.repository(ctx, ref{repo: name})
		if err != nil && !isUnknown(err) { // it was deleted meanwhile
			return err
		}
	}
	return out.end(nil)
}

// lister prints repositories.
type lister struct {
	store registry.Store
	w     io.Writer
	json  *json.Encoder // nil for a tree
	repos []listedRepo  // for JSON

	listed map[digest.Digest]int64 // the sizes of the manifests that are listed under a tag
}

// end prints the JSON, unless err is an error.
func (l *lister) end(err error) error {
	if err != nil || l.json == nil {
		return err
	}
	if l.repos == nil {
		l.repos = []listedRepo{}
	}
	return l.json.Encode(l.repos)
}

// repository lists a repository, or the image in it that r names.
func (l *lister) repository(ctx context.Context, r ref) error {
	repo := listedRepo{Name: r.repo, Tags: []listedNode{}}
	first := true
	add := func(tag string, m registry.Manifest) error {
		l.listed = make(map[digest.Digest]int64)
		node, err := l.node(ctx, r.repo, m, 0)
		if err != nil {
			return fmt.Errorf("%v: %w", ref{repo: r.repo, tag: tag, digest: m.Digest}, err)
		}
		if node.Tag = tag; l.json != nil {
			repo.Tags = append(repo.Tags, node)
			return nil
		}
		if first {
			fmt.Fprintln(l.w, r.repo)
			first = false
		}
		return l.print(node, "  ")
	}
	if r.tag != "" || r.digest != "" {
		m, err := r.get(ctx, l.store)
		if err == nil {
			err = add(r.tag, m)
		}
		if err != nil {
			return err
		}
	} else {
		for tag, err := range l.store.Tags(ctx, r.repo, "") {
			var m registry.Manifest
			if err == nil {
				if m, err = l.store.GetTag(ctx, r.repo, tag); isUnknown(err) {
					continue // deleted meanwhile
				}
			}
			if err == nil {
				err = add(tag, m)
			}
			if errors.Is(err, registry.ErrNameUnknown) {
				return fmt.Errorf("%s: %w", r.repo, registry.ErrNameUnknown)
			}
			if err != nil {
				return err
			}
		}
		if first && l.json == nil {
			fmt.Fprintf(l.w, "%s\n  (no tags)\n", r.repo)
		}
	}
	l.repos = append(l.repos, repo)
	return nil
}

// maxNesting is how deeply indexes and referrers are listed.
const maxNesting = 5

// node describes a manifest, with those that it names and its referrers. Those of a
// manifest that is named again under the same tag are not repeated: indexes that name
// each other often make a small store a huge tree.
func (l *lister) node(ctx context.Context, repo string, m registry.Manifest, depth int) (n listedNode, err error) {
	n = listedNode{Digest: m.Digest, MediaType: clean(m.MediaType)}
	if size, ok := l.listed[m.Digest]; ok {
		n.Size = size
		return n, nil
	}
	src := repoSource{l.store, repo}
	content, err := walk(ctx, src, []reference{{MediaType: m.MediaType, Digest: m.Digest}}, false)
	if err != nil {
		return n, err
	}
	for _, r := range content.manifests {
		n.Size += r.Size
	}
	for _, b := range content.blobs {
		n.Size += max(0, b.size)
	}
	if depth == maxNesting {
		return n, nil
	}
	l.listed[m.Digest] = n.Size
	if describes(m.MediaType) {
		if err := l.describe(ctx, repo, m, &n, depth); err != nil {
			return n, err
		}
	}
	referrers, err := src.referrers(ctx, m.Digest)
	if err != nil {
		return n, err
	}
	for _, r := range referrers {
		m, err := l.store.GetManifest(ctx, repo, r.Digest)
		if isUnknown(err) {
			continue
		}
		var child listedNode
		if err == nil {
			child, err = l.node(ctx, repo, m, depth+1)
		}
		if err != nil {
			return n, err
		}
		n.Referrers = append(n.Referrers, child)
	}
	return n, nil
}

// describe adds the platform, the type and the children of a manifest to its node.
func (l *lister) describe(ctx context.Context, repo string, m registry.Manifest, n *listedNode, depth int) error {
	var doc struct {
		ArtifactType string
		Config       *ocispec.Descriptor
		Manifests    []ocispec.Descriptor
	}
	if json.Unmarshal(m.Content, &doc) != nil {
		return nil // opaque bytes
	}
	n.ArtifactType = clean(doc.ArtifactType)
	if doc.Config != nil {
		switch doc.Config.MediaType {
		case ocispec.MediaTypeImageConfig, typeDockerConfig:
			if p, err := configPlatform(ctx, l.store, repo, doc.Config.Digest); err == nil && p.OS != "" {
				n.Platform = platformName(p)
			}
		default:
			n.ArtifactType = cmp.Or(n.ArtifactType, clean(doc.Config.MediaType))
		}
	}
	for _, d := range slices.DeleteFunc(doc.Manifests, func(d ocispec.Descriptor) bool { return d.Digest.Validate() != nil }) {
		child := listedNode{Digest: d.Digest, MediaType: clean(d.MediaType), Size: d.Size, Missing: true}
		m, err := l.store.GetManifest(ctx, repo, d.Digest)
		if err == nil {
			child, err = l.node(ctx, repo, m, depth+1)
		}
		if err != nil && !isUnknown(err) {
			return err
		}
		if d.Platform != nil {
			child.Platform = platformName(*d.Platform)
		}
		n.Manifests = append(n.Manifests, child)
	}
	return nil
}

// print prints a node as a part of a tree.
func (l *lister) print(n listedNode, indent string) error {
	name := cmp.Or(n.Tag, n.Platform, n.ArtifactType, n.MediaType)
	if n.Tag != "" {
		if kind := cmp.Or(n.Platform, n.ArtifactType); kind != "" {
			name += "  " + kind
		}
	}
	size := units.HumanSize(float64(n.Size))
	if n.Missing {
		size = "missing"
	}
	if _, err := fmt.Fprintf(l.w, "%s%s  %s  %s\n", indent, name, n.Digest, size); err != nil {
		return err
	}
	for _, child := range n.Manifests {
		if err := l.print(child, indent+"  "); err != nil {
			return err
		}
	}
	for _, r := range n.Referrers {
		r.Tag = ""
		if err := l.print(r, indent+"  <- "); err != nil {
			return err
		}
	}
	return nil
}
