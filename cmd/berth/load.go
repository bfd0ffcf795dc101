// SPDX-License-Identifier: Apache-2.0

// Command berth load.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// loadCmd is berth load.
type loadCmd struct {
	Files []string // - is standard input
	To    string
	As    string
	remoteFlags
	Jobs    int
	MaxSize size
}

func (c *loadCmd) command() *cobra.Command {
	cmd := newCommand("load --to STORE FILE...", "Load images from archives.",
		"Load images from each FILE: an OCI image layout, as a directory or a tar file, or an archive of docker save; - is standard input. Tar files may be compressed with gzip or zstd. "+
			"All digests are kept, and referrers are loaded too. An archive of docker save without a layout has no manifests: each image gets an OCI manifest, always the same for the same image, and its layers are stored as they are, without compression.\n\n"+
			"The names of images are those in the archive, without a host: docker.io/library/alpine:3 is alpine:3. A layout whose tags have no repository requires --as.\n\n"+
			"All digests are verified. If content of a repository is corrupt or missing, none of its manifests and tags are loaded. Content that exists is not loaded again. "+
			"A compressed FILE and standard input need space in the folder for temporary files.\n\n"+
			storeHelp+" Or: "+remoteHelp+".",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.To, "to", "", "The `STORE` or registry to load into. Required.")
			f.StringVar(&c.As, "as", "", "Load as REPO, with the archive's tags, or its only image as `REPO[:TAG]`.")
			c.remoteFlags.define(f)
			f.IntVar(&c.Jobs, "jobs", 8, "Load `N` blobs and manifests at once.")
			f.TextVar(&c.MaxSize, "max-size", size(64<<30), "Largest `SIZE` of a compressed FILE, or of a compressed layer of docker save, after decompression.")
		}})
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if c.Files = args; len(args) == 0 {
			return errors.New("expected a FILE, or - for standard input")
		}
		return nil
	}
	cmd.ValidArgsFunction = completeFile
	cmd.MarkFlagRequired("to")
	return cmd
}

func (c *loadCmd) Run(stdout io.Writer, logs logOutput) error {
	return interruptible(errInterrupted, func(ctx context.Context) error {
		screen := newScreen(logs.Writer)
		return c.load(ctx, stdout, screen, logOutput{screen})
	})
}

// interruptible runs f until it ends, or a signal ends its context: then it returns the
// error interrupted.
func interruptible(interrupted error, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop) // another signal ends the process at once
	err := f(ctx)
	if ctx.Err() != nil && err != nil {
		return interrupted
	}
	return err
}

func (c *loadCmd) load(ctx context.Context, stdout io.Writer, screen *screen, logs logOutput) (failed error) {
	var as ref
	if c.As != "" {
		var err error
		if as, err = parseRef(c.As); err != nil {
			return fmt.Errorf("--as: %w", err)
		}
		if as.digest != "" {
			return errors.New("--as requires REPO or REPO:TAG")
		}
	}
	if as.tag != "" && len(c.Files) > 1 {
		return errors.New("--as REPO:TAG is for one FILE")
	}
	if c.MaxSize == 0 {
		return errors.New("--max-size must be more than 0")
	}
	if err := c.remoteFlags.check(c.To); err != nil {
		return err
	}
	var to registry.Store
	for _, name := range c.Files {
		a, err := openArchive(ctx, name, os.Stdin, int64(c.MaxSize))
		if err != nil {
			return inFile(name, err)
		}
		defer a.Close()
		from, err := newArchiveStore(ctx, a, as, int64(c.MaxSize))
		if err != nil {
			return inFile(name, err)
		}
		for _, text := range from.warnings() {
			logs.warn(name + ": " + text)
		}
		if to == nil { // nothing is created for a FILE that can't be loaded
			s, closer, openErr := openContent(ctx, c.To, storeOptions{onError: logs.failed, log: logs.logger(), warn: logs.warn, remote: c.remoteFlags})
			if openErr != nil {
				return fmt.Errorf("%s: %w", c.To, openErr)
			}
			defer func() { failed = errors.Join(failed, closer.Close()) }()
			to = s
		}
		if err := c.copy(ctx, from, to, stdout, screen); err != nil {
			return inFile(name, err)
		}
	}
	return nil
}

// inFile returns an error with the name of the FILE.
func inFile(name string, err error) error {
	var path *os.PathError
	if errors.As(err, &path) && path.Path == name {
		return err
	}
	if name == "-" {
		name = "standard input"
	}
	return fmt.Errorf("%s: %w", name, err)
}

// copy copies the images of an archive, and prints their names.
func (c *loadCmd) copy(ctx context.Context, from *archiveStore, to registry.Store, stdout io.Writer, screen *screen) error {
	job := newCopier(max(1, c.Jobs))
	job.from, job.to, job.strict = from, to, true
	if err := job.list(ctx, nil); err != nil {
		return err
	}
	err := job.run(ctx, screen)
	job.failures.print(screen)
	if err == nil {
		err = job.failures.err()
	}
	if err != nil {
		return err
	}
	for _, image := range from.images() {
		fmt.Fprintf(stdout, "%s@%s\n", ref{repo: image.repo, tag: image.tag}, image.digest)
	}
	fmt.Fprintln(stdout, job)
	return nil
}
