// SPDX-License-Identifier: Apache-2.0

// Command berth rm.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// rmCmd is berth rm.
type rmCmd struct {
	Refs []string
	From string
	remoteFlags
	All    bool
	DryRun bool
}

func (c *rmCmd) command() *cobra.Command {
	cmd := newCommand("rm --from STORE REF...", "Delete tags, manifests or repositories.",
		"Delete tags, manifests with the tags that point at them, or repositories, and print each. A REF is a tag, REPO:TAG; a manifest, REPO@DIGEST; or with --all, a repository, REPO. "+
			"A tag's manifest stays, and so do the blobs of a manifest: berth gc --untagged removes them. "+
			"A registry must allow deletes; of a registry, --all deletes the content that tags lead to. "+
			"All names are checked before anything is deleted.\n\n"+
			storeHelp+" Or: "+remoteHelp+".",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.From, "from", "", "The `STORE` or registry to delete from. Required.")
			c.remoteFlags.define(f)
			f.BoolVar(&c.All, "all", false, "Delete entire repositories: all tags, manifests and blobs.")
			f.BoolVar(&c.DryRun, "dry-run", false, "Print what would be deleted, and delete nothing.")
		}})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if c.Refs = args; len(args) == 0 {
			return errors.New("expected a REF: REPO:TAG or REPO@DIGEST, or REPO with --all")
		}
		return nil
	}
	cmd.MarkFlagRequired("from")
	return cmd
}

func (c *rmCmd) Run(stdout io.Writer, logs logOutput) error {
	return interruptible(errors.New("interrupted: to delete the rest, run the same command again"), func(ctx context.Context) error {
		return c.remove(ctx, stdout, logs)
	})
}

func (c *rmCmd) remove(ctx context.Context, stdout io.Writer, logs logOutput) (failed error) {
	if err := c.remoteFlags.check(c.From); err != nil {
		return err
	}
	var refs []ref
	for _, name := range c.Refs {
		r, err := parseRef(name)
		isRepo := r.tag == "" && r.digest == ""
		switch {
		case err != nil:
			return err
		case isRepo && !c.All:
			return fmt.Errorf("%s is a repository: use REPO:TAG or REPO@DIGEST, or --all to delete all of it", name)
		case !isRepo && c.All:
			return fmt.Errorf("--all deletes repositories, and %s is not one", name)
		}
		refs = append(refs, r)
	}
	opts := storeOptions{onError: logs.failed, log: logs.logger(), warn: func(string) {}, remote: c.remoteFlags}
	// A store that does not exist is not created.
	s, closer, err := openSource(ctx, c.From, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	if !c.DryRun && !isRemote(c.From) {
		closer.Close()
		opts.warn = logs.warn
		if s, closer, err = openContent(ctx, withoutCreate(c.From), opts); err != nil {
			return fmt.Errorf("%s: %w", c.From, err)
		}
	}
	defer func() { failed = errors.Join(failed, closer.Close()) }()
	r := &remover{store: s, w: stdout, dryRun: c.DryRun}
	return r.removeAll(ctx, refs)
}

// remover deletes content, and prints what it deletes.
type remover struct {
	store  registry.Store
	w      io.Writer
	dryRun bool
}

// step is something to delete.
type step struct {
	what string
	f    func() error
}

// removeAll deletes what refs name, after finding all of it, so that a dry run prints
// the same.
func (m *remover) removeAll(ctx context.Context, refs []ref) error {
	for _, r := range refs {
		if err := m.exists(ctx, r); err != nil {
			return err
		}
	}
	var steps []step
	for n, r := range refs {
		if slices.Contains(refs[:n], r) {
			continue
		}
		s, err := m.plan(ctx, r)
		if err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
		steps = append(steps, s)
	}
	for _, s := range steps {
		if err := m.delete(s); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// exists returns an error if r does not exist.
func (m *remover) exists(ctx context.Context, r ref) error {
	if r.tag != "" || r.digest != "" {
		_, err := r.get(ctx, m.store)
		return err
	}
	for _, err := range m.store.Tags(ctx, r.repo, "") {
		if isUnknown(err) {
			return fmt.Errorf("%v does not exist", r)
		}
		return err
	}
	return nil
}

// delete deletes something and prints it, unless this is a dry run. A tag has gone with
// its manifest if both were named.
func (m *remover) delete(s step) error {
	verb := "deleted"
	if m.dryRun {
		verb = "would delete"
	} else if err := s.f(); err != nil && !isUnknown(err) {
		return err
	}
	_, err := fmt.Fprintf(m.w, "%s %s\n", verb, s.what)
	return err
}

// plan returns the step that deletes r.
func (m *remover) plan(ctx context.Context, r ref) (step, error) {
	switch {
	case r.tag != "":
		return step{fmt.Sprintf("tag %v", r), func() error { return m.store.DeleteTag(ctx, r.repo, r.tag, nil) }}, nil
	case r.digest != "":
		return m.planManifest(ctx, r)
	}
	return m.planRepo(ctx, r.repo)
}

// planManifest returns the step that deletes a manifest with its tags.
func (m *remover) planManifest(ctx context.Context, r ref) (step, error) {
	what := fmt.Sprintf("manifest %v", r)
	for tag, err := range m.store.Tags(ctx, r.repo, "") {
		if err != nil {
			return step{}, err
		}
		tagged, err := m.store.GetTag(ctx, r.repo, tag)
		if err != nil && !isUnknown(err) {
			return step{}, err
		}
		if err == nil && tagged.Digest == r.digest {
			what += fmt.Sprintf(", tag %s", tag)
		}
	}
	return step{what, func() error { return m.store.DeleteManifest(ctx, r.repo, r.digest) }}, nil
}

// planRepo returns the step that deletes all of a repository: manifests, which others
// may name, then blobs.
func (m *remover) planRepo(ctx context.Context, repo string) (step, error) {
	manifests, err := digests(m.store.Manifests(ctx, repo, ""))
	if err != nil {
		return step{}, err
	}
	blobs, err := digests(m.store.Blobs(ctx, repo, ""))
	if err != nil {
		return step{}, err
	}
	tags := 0
	for _, err := range m.store.Tags(ctx, repo, "") {
		if err != nil {
			return step{}, err
		}
		tags++
	}
	what := fmt.Sprintf("repository %s: %d tags, %d manifests, %d blobs", repo, tags, len(manifests), len(blobs))
	return step{what, func() error {
		for _, d := range manifests {
			if err := m.store.DeleteManifest(ctx, repo, d); err != nil && !isUnknown(err) {
				return err
			}
		}
		for _, d := range blobs {
			err := m.store.DeleteBlob(ctx, repo, d)
			if unlisted(m.store) && (errors.Is(err, registry.ErrUnsupported) || errors.Is(err, registry.ErrDenied)) {
				_, err = fmt.Fprintln(m.w, "the registry does not delete blobs on request: it keeps them until it collects garbage")
				return err
			}
			if err != nil && !isUnknown(err) {
				return err
			}
		}
		return nil
	}}, nil
}

// digests returns the digests in a list.
func digests(list func(yield func(registry.Info, error) bool)) (all []digest.Digest, err error) {
	for info, err := range list {
		if err != nil {
			return nil, err
		}
		all = append(all, info.Digest)
	}
	return all, nil
}
