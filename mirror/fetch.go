// SPDX-License-Identifier: Apache-2.0

// The fetch of a blob, which outlives the client that began it.

package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

const (
	// maxTries is the number of requests for the rest of a blob, after the first one
	// ended early.
	maxTries = 3

	// heldBack is the number of bytes at the end of a blob that are not sent before the
	// digest of all has been verified.
	heldBack = 64 << 10
)

// fetch is a blob on its way from an upstream to the store. Clients read it from a
// temporary file while it grows.
type fetch struct {
	target target // of the client that began it
	digest digest.Digest
	repos  map[string]bool // that will have the blob; Mirror.mu guards it

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, when anything below changes
	header   bool          // the size is known
	size     int64
	readable int64 // bytes that clients may read
	finished bool  // nothing below err changes anymore
	err      error
	file     *os.File
	users    int // of the file: the fetch and its readers
}

// fetchKey is what fetches are shared by. An upstream must not delay, or fail, what another
// one has, too.
type fetchKey struct {
	upstream string
	digest   digest.Digest
}

func newFetch(t target, d digest.Digest) *fetch {
	return &fetch{target: t, digest: d, repos: make(map[string]bool), changed: make(chan struct{}), users: 1}
}

func (f *fetch) key() fetchKey { return fetchKey{f.target.up.Name, f.digest} }

// isOf reports whether the fetch is of the repository t. That of another repository can fail
// for reasons that do not concern t.
func (f *fetch) isOf(t target) bool { return f.target.cache == t.cache }

// run fetches a blob, and stores it.
func (m *Mirror) run(f *fetch) {
	defer func() { <-f.target.up.slots }()
	defer f.release()
	err := m.fetch(f)
	if err == nil {
		err = m.commit(f)
	}
	if err != nil {
		m.forget(f)
	}
	var failed *failure
	if err != nil && !errors.As(err, &failed) && !errors.Is(err, errStored) {
		m.log.Warn("a blob was not kept", "repository", f.target.local, "digest", f.digest, "error", err)
	}
}

// forget lets the next client that asks for the blob begin another fetch.
func (m *Mirror) forget(f *fetch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if key := f.key(); m.fetches[key] == f {
		delete(m.fetches, key)
	}
}

// fetch gets a blob, and tells the readers how it ended.
func (m *Mirror) fetch(f *fetch) (err error) {
	defer func() {
		if err != nil {
			m.forget(f)
		}
		f.change(func() {
			if f.finished, f.err = true, err; err == nil {
				f.header, f.readable = true, f.size
			}
		})
	}()
	// Another fetch may have ended since the client looked.
	if _, err := m.store.StatBlob(m.ctx, f.target.cache, f.digest); err == nil {
		return errStored
	}
	c := call{method: http.MethodGet, name: f.target.name, kind: "blobs", ref: string(f.digest)}
	if failed := m.isUnknown(f.target, c); failed != nil {
		return failed
	}
	f.target.up.misses.Add(1)
	err = m.download(f, c)
	m.noteUnknown(f.target, c, err)
	return err
}

// download gets a blob into the temporary file, and verifies it.
func (m *Mirror) download(f *fetch, c call) error {
	verifier := f.digest.Algorithm().Hash()
	var done int64
	for try := 0; ; try++ {
		c.from = done
		n, err := m.receive(f, c, verifier)
		done += n
		f.target.up.bytes.Add(uint64(n))
		if err == nil {
			break
		}
		var failed *failure
		if !errors.As(err, &failed) || failed.kind != unreachable && failed.kind != timeout || !f.known() || try == maxTries || m.ctx.Err() != nil {
			return err
		}
		m.log.Info("continuing a blob", "repository", f.target.local, "digest", f.digest, "from", done, "error", failed.logged())
		// An upstream that is left in peace after a timeout would use up the tries.
		select {
		case <-time.After(max(retryDelay<<try, f.target.up.pause())):
		case <-m.ctx.Done():
		}
	}
	if digest.NewDigest(f.digest.Algorithm(), verifier) != f.digest {
		failed := f.target.up.failure(notContent("%d bytes with another digest than %s", done, f.digest))
		m.log.Warn(failed.Error(), "repository", f.target.local, "error", failed.err)
		return failed
	}
	f.change(func() {
		if !f.header {
			f.size = done
		}
	})
	return nil
}

// receive sends one request for a blob, from a byte on, and returns the number of bytes
// that have come. If that is not the rest of the blob, it returns a *failure.
func (m *Mirror) receive(f *fetch, c call, verifier io.Writer) (n int64, err error) {
	ctx, progress, cancel := m.withStallTimeout(m.ctx)
	defer cancel()
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return f.target.up.failure(err)
	}
	resp, err := f.target.up.do(ctx, c)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if c.from > 0 {
		if err = skip(resp, c.from, progress); err != nil {
			return 0, fail(err)
		}
	} else if f.known() { // nothing came the last time
		if resp.ContentLength >= 0 && resp.ContentLength != f.size {
			return 0, fail(notContent("%d bytes, but %d the last time", resp.ContentLength, f.size))
		}
	} else if err := f.begin(m.opts.Dir, resp.ContentLength); err != nil {
		return 0, err
	}
	buf := make([]byte, 128<<10)
	for {
		progress()
		k, err := resp.Body.Read(buf)
		if k > 0 {
			verifier.Write(buf[:k])
			if err := f.append(buf[:k], c.from+n); err != nil {
				return n, err
			}
			n += int64(k)
		}
		switch total := c.from + n; {
		case f.known() && total > f.size:
			return n, fail(notContent("more than the %d bytes of the blob", f.size))
		case err == io.EOF && f.known() && total < f.size, err == io.EOF && context.Cause(ctx) != nil:
			return n, fail(io.ErrUnexpectedEOF)
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, fail(err)
		}
	}
}

// withStallTimeout returns a context that ends when progress has not been called for the
// timeout.
func (m *Mirror) withStallTimeout(parent context.Context) (ctx context.Context, progress, cancel func()) {
	ctx, cancelCause := context.WithCancelCause(parent)
	timer := time.AfterFunc(m.opts.Timeout, func() { cancelCause(context.DeadlineExceeded) })
	progress = func() { timer.Reset(m.opts.Timeout) }
	return ctx, progress, func() {
		timer.Stop()
		cancelCause(nil)
	}
}

// skip reads a response up to the byte at offset, if it begins before: some servers ignore
// ranges and send everything. It calls progress when bytes have come.
func skip(resp *http.Response, offset int64, progress writerFunc) error {
	if resp.StatusCode != http.StatusOK {
		return checkRange(resp, offset)
	}
	_, err := io.CopyN(progress, resp.Body, offset)
	return err
}

// writerFunc is called for each Write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// checkRange returns an error unless a response has the bytes from offset on.
func checkRange(resp *http.Response, offset int64) error {
	header := resp.Header.Get("Content-Range")
	if resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(header, fmt.Sprintf("bytes %d-", offset)) {
		return fmt.Errorf("the status %d and the range %.100q for the bytes from %d", resp.StatusCode, header, offset)
	}
	return nil
}

// commit stores the blob in the repositories that want it.
func (m *Mirror) commit(f *fetch) error {
	if m.opts.MaxBytes > 0 && f.size > m.opts.MaxBytes {
		return fmt.Errorf("%d bytes are more than the mirror may keep", f.size)
	}
	cache := f.target.cache
	if err := registry.PushBlob(m.ctx, m.store, cache, f.digest, io.NewSectionReader(f.file, 0, f.size)); err != nil {
		return err
	}
	m.stored(entry{digest: f.digest, size: f.size}, cache)
	m.mu.Lock()
	delete(m.fetches, f.key())
	repos := f.repos
	m.mu.Unlock()
	for repo := range repos {
		if repo == cache {
			continue
		}
		if err := m.store.MountBlob(m.ctx, repo, cache, f.digest); err != nil {
			return err
		}
		m.stored(entry{digest: f.digest, size: f.size}, repo)
	}
	return nil
}

// change changes the fetch and wakes its readers.
func (f *fetch) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// known reports whether the size of the blob is known.
func (f *fetch) known() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.header
}

// begin makes the temporary file. A negative size is not known before the end.
func (f *fetch) begin(dir string, size int64) error {
	file, err := os.CreateTemp(dir, "berth-mirror-*")
	if err != nil {
		return errors.Join(registry.ErrUnavailable, err) // clients get the text of the first
	}
	// The file goes when nobody has it open, even if the process is killed. Where a
	// file that is open can't be removed, release does.
	os.Remove(file.Name())
	f.change(func() {
		f.file = file
		if size >= 0 {
			f.size, f.header = size, true
		}
	})
	return nil
}

// append writes the bytes at offset, and lets the readers have all but the last of them.
func (f *fetch) append(p []byte, offset int64) error {
	if _, err := f.file.WriteAt(p, offset); err != nil {
		return errors.Join(registry.ErrUnavailable, err)
	}
	f.change(func() { f.readable = max(f.readable, min(offset+int64(len(p)), f.size-heldBack)) })
	return nil
}

// use adds a user of the file, who must call release. The fetch must have another.
func (f *fetch) use() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
}

// release ends a use of the file.
func (f *fetch) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 && f.file != nil {
		f.file.Close()
		os.Remove(f.file.Name())
	}
}

// wait waits until the size of the blob is known, or until all of it has been verified, and
// returns the size.
func (f *fetch) wait(ctx context.Context, all bool) (int64, error) {
	for {
		f.mu.Lock()
		size, header, finished, err, changed := f.size, f.header, f.finished, f.err, f.changed
		f.mu.Unlock()
		// Of a small blob nothing is sent before it has been verified, so that
		// clients get a status that says what is wrong.
		if finished && (err != nil || header) || header && size > heldBack && !all {
			return size, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
