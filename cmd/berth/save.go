// SPDX-License-Identifier: Apache-2.0

// Command berth save.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// saveCmd is berth save.
type saveCmd struct {
	Refs   []string
	From   string
	Output string
	remoteFlags
	Format      string
	Platform    string
	NoReferrers bool
}

func (c *saveCmd) command() *cobra.Command {
	cmd := newCommand("save --from STORE --output FILE REF...", "Save images to an archive.",
		"Save images as an OCI image layout, with all platforms, all digests, and referrers. The same images make the same bytes. Each REF is REPO:TAG or REPO@DIGEST. "+
			"With --format docker the layout has one platform and no referrers, and a manifest.json, as those of docker save: docker load reads it in all versions of Docker.\n\n"+
			"All digests are verified. The FILE is written under a temporary name, and replaces one of that name when it is complete.\n\n"+
			storeHelp+" Or: "+remoteHelp+".",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.From, "from", "", "The `STORE` or registry to save from. Required.")
			f.StringVarP(&c.Output, "output", "o", "", "The `FILE` to write: .tar, .tar.gz, .tgz or .tar.zst, or a new directory that ends in /. Required.")
			c.remoteFlags.define(f)
			c.Format = "oci"
			f.Var(enumValue{&c.Format, []string{"oci", "docker"}}, "format", "`FORMAT` of the archive: oci, or docker for docker load, with one platform of each image.")
			f.StringVar(&c.Platform, "platform", "", "The platform of --format docker, `OS/ARCH[/VARIANT]` (default: the only one).")
			f.BoolVar(&c.NoReferrers, "no-referrers", false, "Leave out referrers, such as signatures.")
		}})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if c.Refs = args; len(args) == 0 {
			return errors.New("expected a REF: REPO:TAG or REPO@DIGEST")
		}
		return nil
	}
	cmd.MarkFlagRequired("from")
	cmd.MarkFlagRequired("output")
	return cmd
}

func (c *saveCmd) Run(stdout io.Writer, logs logOutput) error {
	return interruptible(errors.New("interrupted: nothing was saved"), func(ctx context.Context) error {
		screen := newScreen(logs.Writer)
		return c.save(ctx, stdout, screen, logOutput{screen})
	})
}

func (c *saveCmd) save(ctx context.Context, stdout io.Writer, screen *screen, logs logOutput) (err error) {
	if c.Platform != "" && c.Format != "docker" {
		return errors.New("--platform requires --format docker: a layout has all platforms")
	}
	if err := errors.Join(c.remoteFlags.check(c.From), checkOutput(c.Output)); err != nil {
		return err
	}
	var refs []ref
	for _, name := range c.Refs {
		r, err := parseRef(name)
		if err == nil && r.tag == "" && r.digest == "" {
			err = fmt.Errorf("%q is neither REPO:TAG nor REPO@DIGEST", name)
		}
		if err != nil {
			return err
		}
		refs = append(refs, r)
	}
	from, closer, err := openSource(ctx, c.From, storeOptions{onError: logs.failed, log: logs.logger(), warn: func(string) {}, remote: c.remoteFlags})
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	defer closer.Close()
	s := &saver{from: from, withReferrers: !c.NoReferrers && c.Format == "oci", docker: c.Format == "docker", platform: c.Platform, contents: make(map[digest.Digest]saved)}
	for _, r := range refs {
		if err := s.add(ctx, r); err != nil {
			return err
		}
	}
	for _, text := range s.missing {
		logs.warn(text)
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	end := screen.show(s)
	err = writeOutput(ctx, c.Output, s.write)
	end()
	if err != nil {
		return err
	}
	for _, e := range s.entries {
		if e.root {
			fmt.Fprintf(stdout, "%s@%s\n", ref{repo: e.ref.repo, tag: e.ref.tag}, e.digest)
		}
	}
	fmt.Fprintln(stdout, s)
	return nil
}

// saver is what is saved.
type saver struct {
	from          registry.Store
	withReferrers bool
	docker        bool
	platform      string

	entries  []savedEntry // of index.json
	images   []dockerImage
	contents map[digest.Digest]saved
	missing  []string // what the images name and the store lacks
	index    map[string][]byte

	done, bytes atomic.Int64
}

// saved is a blob or a manifest to save.
type saved struct {
	repo string // one that has it
	size int64

	manifest bool
	optional bool
}

// savedEntry is an entry of index.json.
type savedEntry struct {
	ref       ref
	root      bool // on the command line, and not a referrer
	mediaType string
	digest    digest.Digest
	size      int64
}

// String describes what was saved so far.
func (s *saver) String() string {
	return fmt.Sprintf("saved %d of %d blobs and manifests (%s)", s.done.Load(), len(s.contents), units.HumanSize(float64(s.bytes.Load())))
}

// progress implements job.
func (s *saver) progress() (done, of int64) { return s.done.Load(), int64(len(s.contents)) }

// add adds an image with all that it leads to.
func (s *saver) add(ctx context.Context, r ref) error {
	m, err := r.get(ctx, s.from)
	if err != nil {
		return err
	}
	if s.docker {
		if m, err = s.onePlatform(ctx, r, m); err != nil {
			return err
		}
	}
	c, err := walk(ctx, repoSource{s.from, r.repo}, []reference{{MediaType: m.MediaType, Digest: m.Digest}}, s.withReferrers)
	if err != nil {
		return fmt.Errorf("%v: %w", r, err)
	}
	s.entries = append(s.entries, savedEntry{ref: r, root: true, mediaType: m.MediaType, digest: m.Digest, size: int64(len(m.Content))})
	for _, d := range sortedKeys(c.referrers) {
		if m, ok := c.manifests[d]; ok {
			s.entries = append(s.entries, savedEntry{mediaType: m.MediaType, digest: d, size: m.Size})
		}
	}
	for d, m := range c.manifests {
		s.contents[d] = saved{repo: r.repo, size: m.Size, manifest: true}
	}
	for d, b := range c.blobs {
		if old, ok := s.contents[d]; !ok || old.optional {
			s.contents[d] = saved{repo: r.repo, size: b.size, optional: b.optional}
		}
	}
	for _, d := range sortedKeys(c.missing) {
		s.missing = append(s.missing, fmt.Sprintf("%v: %s of the index %s does not exist, and is not saved", r, d, c.missing[d]))
	}
	return nil
}

// prepare finds the sizes of blobs, and makes the files that describe the content.
func (s *saver) prepare(ctx context.Context) error {
	for d, b := range s.contents {
		if b.manifest {
			continue
		}
		info, err := s.from.StatBlob(ctx, b.repo, d)
		switch {
		case isUnknown(err) && b.optional && !s.docker: // docker load requires all layers
			delete(s.contents, d)
			continue
		case isUnknown(err):
			return fmt.Errorf("%s: the blob %s does not exist", b.repo, d)
		case err != nil:
			return fmt.Errorf("%s: blob %s: %w", b.repo, d, err)
		case info.Size < 0:
			return fmt.Errorf("%s: the registry does not tell the size of the blob %s", b.repo, d)
		}
		b.size = info.Size
		s.contents[d] = b
	}
	return s.makeIndex()
}

// checkOutput returns an error unless the name of an output says its format.
func checkOutput(name string) error {
	for _, suffix := range []string{"/", ".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) && name != suffix {
			return nil
		}
	}
	return fmt.Errorf("-o %s: its name must end in .tar, .tar.gz, .tgz or .tar.zst, or in / for a directory", name)
}
