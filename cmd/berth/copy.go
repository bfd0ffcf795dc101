// SPDX-License-Identifier: Apache-2.0

// Command berth copy.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// copyCmd is berth copy.
type copyCmd struct {
	From     string
	To       string
	Repos    []string // all if there are none
	Jobs     int
	FromUser string
	ToUser   string
	CA       string
	DryRun   bool
}

func (c *copyCmd) command() *cobra.Command {
	cmd := newCommand("copy FROM TO [REPO...]", "Copy content from one store to another.",
		"Copy the content of the STORE or registry FROM to the STORE or registry TO, or only the given repositories. "+
			"Copy all content: tags, manifests with and without tags, referrers, and blobs, even those that no manifest names. "+
			"Content that the destination has is not copied again, so an interrupted copy can be resumed and a repeated one copies the changes. "+
			"A tag that has moved in the source moves in the destination. Nothing is deleted: tags and content that only the destination has stay there.\n\n"+
			"All digests are verified. Content that is corrupt or can't be read is reported at the end, with exit status 1; the rest is copied.\n\n"+
			"The source may be in use. If it is a directory, it may also be an OCI image layout, whose repository has the name \"layout\".\n\n"+
			storeHelp+" A STORE may also be a running registry: "+remoteHelp+".",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.IntVar(&c.Jobs, "jobs", 8, "Copy `N` blobs and manifests at once.")
			f.StringVar(&c.FromUser, "from-user", "", "User of the registry to copy from, `NAME[:PASSWORD]` (default: that of docker login).")
			f.StringVar(&c.ToUser, "to-user", "", "User of the registry to copy to, `NAME[:PASSWORD]` (default: that of docker login).")
			defineCA(f, &c.CA)
			f.BoolVar(&c.DryRun, "dry-run", false, "Print what would be copied, and copy nothing. Content is not read, so corrupt content is not found.")
		}})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) < 2 {
			return errors.New("expected two stores: FROM and TO")
		}
		c.From, c.To, c.Repos = args[0], args[1], args[2:]
		return nil
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) < 2 {
			return completeStore(word)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// errInterrupted is the error of a copy that was stopped by a signal.
var errInterrupted = errors.New("interrupted: to copy the rest, run the same command again")

func (c *copyCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // another signal ends the process at once

	screen := newScreen(logs.Writer)
	logs = logOutput{screen}
	job, err := c.open(ctx, logs)
	if err == nil {
		job.stdout = stdout
		err = errors.Join(job.run(ctx, screen), job.close())
		job.failures.print(screen)
		fmt.Fprintln(stdout, job)
	}
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case err != nil:
		return err
	}
	return job.failures.err()
}

// open opens the source and the destination. Unless the source has something to
// copy, the destination is not created.
func (c *copyCmd) open(ctx context.Context, logs logOutput) (*copier, error) {
	job := newCopier(max(1, c.Jobs))
	job.dryRun = c.DryRun
	if err := c.openStores(ctx, job, logs); err != nil {
		job.close()
		return nil, err
	}
	return job, nil
}

// openStores opens the stores of a job.
func (c *copyCmd) openStores(ctx context.Context, job *copier, logs logOutput) error {
	if err := errors.Join(checkRemote("--from-user", c.FromUser, c.From), checkRemote("--to-user", c.ToUser, c.To)); err != nil {
		return err
	}
	if c.CA != "" && !isRemote(c.From) && !isRemote(c.To) {
		return errors.New("--ca is only for running registries: http://… or https://…")
	}
	opts := storeOptions{warn: func(string) {}, onError: logs.failed, log: logs.logger(), remote: remoteFlags{c.FromUser, c.CA}}
	from, closer, err := openSource(ctx, c.From, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	job.from, job.closers = from, append(job.closers, closer)
	if err := job.list(ctx, c.Repos); err != nil {
		return fmt.Errorf("%s: %w", c.From, err)
	}
	if isInside(c.To, c.From) {
		return fmt.Errorf("%s is inside the source", c.To)
	}
	opts.remote.User = c.ToUser
	open := openContent
	if c.DryRun {
		open = openSource
	} else {
		opts.warn = logs.warn
	}
	to, closer, err := open(ctx, c.To, opts)
	switch {
	case c.DryRun && errors.Is(err, fs.ErrNotExist):
		job.to = new(registry.MemStore) // nothing exists
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", c.To, err)
	}
	job.to, job.closers = to, append(job.closers, closer)
	return nil
}

// isInside reports whether a store is in a folder of another. As a destination it
// would appear in the source while it grows.
func isInside(store, other string) bool {
	dir, ok := strings.CutPrefix(store, "dir:")
	root, isDir := strings.CutPrefix(other, "dir:")
	if !ok || !isDir {
		return false
	}
	rel, err := filepath.Rel(realPath(root), realPath(dir))
	return err == nil && rel != "." && filepath.IsLocal(rel)
}

// realPath returns the absolute path of a file without symbolic links. The file
// and folders above it need not exist.
func realPath(name string) string {
	name, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	if path, err := filepath.EvalSymlinks(name); err == nil {
		return path
	}
	if dir := filepath.Dir(name); dir != name {
		return filepath.Join(realPath(dir), filepath.Base(name))
	}
	return name
}

// list sets the repositories to copy: those with the given names or, if there are
// none, all.
func (c *copier) list(ctx context.Context, names []string) error {
	if slices.Contains(names, "") {
		return registry.ErrNameInvalid
	}
	if len(names) > 0 {
		c.named = true
		c.repos = slices.Compact(slices.Sorted(slices.Values(names)))
		return nil
	}
	var failed error
	for name, err := range c.from.Repositories(ctx, "") {
		if err == nil {
			c.repos = append(c.repos, name)
			continue
		}
		failed = err
		if err := c.fail("list of repositories", err); err != nil {
			return err
		}
	}
	slices.Sort(c.repos) // the lists of some registries have no order
	c.repos = slices.Compact(c.repos)
	if len(c.repos) == 0 {
		return cmp.Or(failed, errors.New("it has no repositories"))
	}
	return nil
}

// progressInterval is the time between two lines of progress if standard error is
// not a terminal.
const progressInterval = 5 * time.Second
