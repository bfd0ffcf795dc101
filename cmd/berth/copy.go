// SPDX-License-Identifier: Apache-2.0

// Command berth copy.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/berth-oci/registry"
)

// copyCmd is berth copy.
type copyCmd struct {
	From  string   `arg:"" help:"The store to copy from." placeholder:"STORE"`
	To    string   `arg:"" help:"The store to copy to." placeholder:"STORE"`
	Repos []string `arg:"" optional:"" help:"The repositories to copy (default: all)." placeholder:"REPOSITORY"`
	Jobs  int      `help:"Number of tags to copy at once (default: ${default})." default:"4" placeholder:"N"`
}

// Help is shown by berth copy --help.
func (copyCmd) Help() string {
	return "Copy each tag with all content that its manifest names, and with its referrers. Blobs that exist in the destination are not copied again, so an interrupted copy can be resumed. " + storeHelp
}

func (c *copyCmd) Run(stdout io.Writer, logs logOutput) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var stores [2]registry.Store
	for i, name := range []string{c.From, c.To} {
		s, closer, err := openStore(ctx, name, storeOptions{warn: logs.warn, onError: logs.failed, log: logs.logger()})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer closer.Close()
		stores[i] = s
	}
	job := copier{from: stores[0], to: stores[1], jobs: max(1, c.Jobs), done: make(map[string]bool)}
	end := job.progress(logs.Writer)
	err := job.repositories(ctx, c.Repos)
	end()
	fmt.Fprintln(stdout, job.String())
	return err
}

// copier copies from one store to another.
type copier struct {
	from, to registry.Store
	jobs     int

	mu   sync.Mutex      // guards done
	done map[string]bool // repository@digest of manifests copied with all content that they name

	repos, tags, manifests, blobs, bytes, skipped atomic.Int64
}

func (c *copier) String() string {
	return fmt.Sprintf("copied %d repositories, %d tags, %d manifests, %d blobs (%s); %d blobs existed",
		c.repos.Load(), c.tags.Load(), c.manifests.Load(), c.blobs.Load(), units.HumanSize(float64(c.bytes.Load())), c.skipped.Load())
}

// progress shows the progress of the copy on w, if it is a terminal, until the
// caller calls end.
func (c *copier) progress(w io.Writer) (end func()) {
	f, ok := w.(*os.File)
	if !ok {
		return func() {}
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				fmt.Fprint(f, "\r\x1b[K")
				return
			case <-time.After(200 * time.Millisecond):
				fmt.Fprintf(f, "\r\x1b[K%s", c)
			}
		}
	}()
	return func() { close(stop); <-ended }
}

// repositories copies the named repositories, or all if there are no names.
func (c *copier) repositories(ctx context.Context, names []string) error {
	if len(names) == 0 {
		for name, err := range c.from.Repositories(ctx, "") {
			if err != nil {
				return err
			}
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := c.repository(ctx, name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.repos.Add(1)
	}
	return nil
}

func (c *copier) repository(ctx context.Context, repo string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	for tag, err := range c.from.Tags(ctx, repo, "") {
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		g.Go(func() error {
			m, err := c.from.GetTag(ctx, repo, tag)
			if errors.Is(err, registry.ErrManifestUnknown) {
				return nil // deleted meanwhile
			}
			if err == nil {
				err = c.manifest(ctx, repo, m, tag)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", tag, err)
			}
			c.tags.Add(1)
			return nil
		})
	}
	return g.Wait()
}

// manifest copies a manifest after the content that it names, and before its
// referrers.
func (c *copier) manifest(ctx context.Context, repo string, m registry.Manifest, tags ...string) error {
	var names struct {
		Config    *struct{ Digest digest.Digest }
		Layers    []struct{ Digest digest.Digest }
		Blobs     []struct{ Digest digest.Digest }
		FSLayers  []struct{ BlobSum digest.Digest } `json:"fsLayers"`
		Manifests []struct{ Digest digest.Digest }
	}
	json.Unmarshal(m.Content, &names) // content other than JSON names nothing
	key := repo + "@" + m.Digest.String()
	c.mu.Lock()
	known := c.done[key]
	c.mu.Unlock()
	if !known {
		var blobs []digest.Digest
		if names.Config != nil {
			blobs = append(blobs, names.Config.Digest)
		}
		for _, d := range append(names.Layers, names.Blobs...) {
			blobs = append(blobs, d.Digest)
		}
		for _, d := range names.FSLayers {
			blobs = append(blobs, d.BlobSum)
		}
		for _, d := range blobs {
			if err := c.blob(ctx, repo, d); err != nil {
				return fmt.Errorf("blob %s: %w", d, err)
			}
		}
		for _, d := range names.Manifests {
			if err := c.child(ctx, repo, d.Digest); err != nil {
				return err
			}
		}
	}
	_, err := registry.PushManifest(ctx, c.to, repo, registry.ManifestPush{
		MediaType: m.MediaType, Content: m.Content, Digest: m.Digest, Tags: tags, Sparse: true, // it may be sparse in the source
	})
	if err != nil || known {
		return err
	}
	c.manifests.Add(1)
	c.mu.Lock()
	c.done[key] = true
	c.mu.Unlock()
	for r, err := range c.from.Referrers(ctx, repo, m.Digest, "") {
		if err != nil {
			return err
		}
		if err := c.child(ctx, repo, r.Digest); err != nil {
			return err
		}
	}
	return nil
}

// child copies a manifest that another one names, if it exists.
func (c *copier) child(ctx context.Context, repo string, d digest.Digest) error {
	m, err := c.from.GetManifest(ctx, repo, d)
	if errors.Is(err, registry.ErrManifestUnknown) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d, err)
	}
	return c.manifest(ctx, repo, m)
}

// blob copies a blob, if it exists.
func (c *copier) blob(ctx context.Context, repo string, d digest.Digest) error {
	if _, err := c.to.StatBlob(ctx, repo, d); err == nil {
		c.skipped.Add(1)
		return nil
	}
	for from, err := range c.to.FindBlob(ctx, d) {
		if err != nil || c.to.MountBlob(ctx, repo, from, d) != nil {
			break
		}
		c.skipped.Add(1)
		return nil
	}
	content, err := c.from.OpenBlob(ctx, repo, d)
	if errors.Is(err, registry.ErrBlobUnknown) {
		return nil // foreign, or missing from a sparse manifest
	}
	if err != nil {
		return err
	}
	defer content.Close()
	counted := &countingReader{content, &c.bytes}
	if err := registry.PushBlob(ctx, c.to, repo, d, counted); err != nil {
		return err
	}
	c.blobs.Add(1)
	return nil
}

// countingReader counts the bytes read.
type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r *countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}
