// SPDX-License-Identifier: Apache-2.0

// MemStore: the default store, in memory.

package registry

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// MemStore is a Store in memory. Its zero value is empty and ready for use; it
// starts no goroutine and needs no closing. It must not be copied: see Clone.
//
// All that it holds is one immutable value. A reader takes the value of the
// moment and needs no lock; a writer makes the next one.
type MemStore struct {
	// Limits bounds what the store takes: its TotalBytes, Uploads and
	// UploadIdle are the store's, the others the handler's. It must not be
	// changed once the store is in use.
	Limits Limits

	content atomic.Pointer[memContent] // nil: empty; replaced with mu held

	mu       sync.Mutex            // guards what follows, and writes to content
	uploads  map[string]*memUpload // by ID
	idle     list.List             // of the *memUpload that no one leases, the longest idle first
	reserved memBytes              // that uploads have
}

var _ Store = (*MemStore)(nil)

// memContent is all that a store holds, but for uploads.
type memContent struct {
	repos tree[*memRepo]
	blobs tree[memLinks] // by digest
	bytes memBytes       // what all this costs, roughly
}

// memBytes counts bytes.
type memBytes struct {
	all   int64
	filed int64 // of them in files
}

func (n memBytes) memory() int64 { return n.all - n.filed }

// plus adds bytes that are in memory, or in a file.
func (n memBytes) plus(more int64, filed bool) memBytes {
	n.all += more
	if filed {
		n.filed += more
	}
	return n
}

// memLinks is a blob with the repositories that have it.
type memLinks struct {
	*memBlob
	repos tree[struct{}]
}

// memRepo is what a repository holds. It is never changed: a change makes a
// new one.
type memRepo struct {
	blobs     tree[*memBlob]     // by digest
	manifests tree[*memManifest] // by digest
	tags      tree[digest.Digest]
	referrers tree[tree[Referrer]] // by the subject's digest, then the referrer's
}

type memManifest struct {
	Manifest
	tags tree[struct{}] // that point at it
}

// memEntry is about what one entry (a repository, a tag, a link to a blob)
// costs beside its own bytes.
const memEntry = 512

func (m Manifest) memBytes() int64 {
	n := int64(len(m.Content)) + memEntry
	if m.Subject != "" { // its descriptor is held apart
		n += memEntry + int64(len(m.Referrer.Descriptor))
	}
	return n
}

func (m *MemStore) load() memContent {
	if c := m.content.Load(); c != nil {
		return *c
	}
	return memContent{}
}

func (c memContent) repo(name string) (memRepo, error) {
	r, ok := c.repos.get(name)
	if !ok {
		return memRepo{}, ErrNameUnknown
	}
	return *r, nil
}

// set puts a repository in place, or takes it away when it is empty.
func (c *memContent) set(name string, r memRepo) {
	_, had := c.repos.get(name)
	has := r.blobs.len > 0 || r.manifests.len > 0
	switch {
	case has:
		c.repos = c.repos.with(name, &r)
		if !had {
			c.bytes.all += memEntry
		}
	case had:
		c.repos = c.repos.without(name)
		c.bytes.all -= memEntry
	}
}

// update makes change the store's content, unless it fails or outgrows the
// limit. It must be called with mu held.
func (m *MemStore) update(change func(*memContent) error) error {
	before := m.load()
	c := before
	if err := change(&c); err != nil {
		return err
	}
	if c.bytes.all > before.bytes.all {
		m.expire()
		if err := m.room(c.bytes, 0, false); err != nil {
			return err
		}
	}
	m.content.Store(&c)
	return nil
}

// room returns an error if the store may not have more bytes than those of its
// content and of uploads. It must be called with mu held.
func (m *MemStore) room(content memBytes, more int64, filed bool) error {
	if limit := m.Limits.TotalBytes; limit > 0 && content.all+m.reserved.all+more > limit {
		return fmt.Errorf("%w: the registry is full, its limit is %d bytes", ErrTooLarge, limit)
	}
	if limit := m.Limits.MemoryBytes; limit > 0 && !filed && content.memory()+m.reserved.memory()+more > limit {
		return fmt.Errorf("%w: the registry's memory is full, its limit is %d bytes", ErrTooLarge, limit)
	}
	return nil
}

// Clone returns a store with the same content, and none of the uploads. It
// copies nothing, however much there is: what one of the two changes from then
// on is its own.
func (m *MemStore) Clone() *MemStore {
	c := &MemStore{Limits: m.Limits}
	c.content.Store(m.content.Load())
	return c
}

// Blobs

func (m *MemStore) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	r, err := m.load().repo(repo)
	if err != nil {
		return nil, err
	}
	b, ok := r.blobs.get(string(d))
	if !ok {
		return nil, ErrBlobUnknown
	}
	return &memReader{memBlob: b}, nil
}

func (m *MemStore) MountBlob(_ context.Context, repo, from string, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(func(c *memContent) error {
		r, err := c.repo(from)
		if err != nil {
			return err
		}
		b, ok := r.blobs.get(string(d))
		if !ok {
			return ErrBlobUnknown
		}
		c.link(repo, d, b)
		return nil
	})
}

func (m *MemStore) FindBlob(_ context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		links, _ := m.load().blobs.get(string(d))
		for repo := range links.repos.after("") {
			if !yield(repo, nil) {
				return
			}
		}
	}
}

func (m *MemStore) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(func(c *memContent) error {
		r, err := c.repo(repo)
		if err != nil {
			return err
		}
		if _, ok := r.blobs.get(string(d)); !ok {
			return ErrBlobUnknown
		}
		r.blobs = r.blobs.without(string(d))
		c.set(repo, r)
		c.bytes.all -= memEntry

		links, _ := c.blobs.get(string(d))
		links.repos = links.repos.without(repo)
		if links.repos.len > 0 {
			c.blobs = c.blobs.with(string(d), links)
			return nil
		}
		c.blobs = c.blobs.without(string(d))
		c.bytes = c.bytes.plus(-links.size, links.file != nil)
		return nil
	})
}

// link makes b readable through repo. Bytes that are there already are not
// kept twice.
func (c *memContent) link(repo string, d digest.Digest, b *memBlob) {
	r, _ := c.repo(repo)
	links, ok := c.blobs.get(string(d))
	if ok {
		b = links.memBlob
	}
	had := r.blobs.len
	if r.blobs = r.blobs.with(string(d), b); r.blobs.len == had {
		return // it was there
	}
	if !ok {
		links.memBlob = b
		c.bytes = c.bytes.plus(b.size, b.file != nil)
	}
	links.repos = links.repos.with(repo, struct{}{})
	c.blobs = c.blobs.with(string(d), links)
	c.set(repo, r)
	c.bytes.all += memEntry
}

// memBlob is content in segments, none of which is empty, or in a file. That of
// a published blob is never changed.
type memBlob struct {
	segments [][]byte
	file     *os.File // in its place; closed by its finalizer
	size     int64
}

// Segments start small, so that a small blob costs little, and double, so that
// a large one is in few; none is ever copied to grow.
const (
	minSegment = 4 << 10
	maxSegment = 1 << 20
)

// trimmed returns b without the end of its last segment, when that is a waste.
func (b memBlob) trimmed() *memBlob {
	n := len(b.segments)
	if n == 0 {
		return &b
	}
	last := b.segments[n-1]
	switch waste := cap(last) - len(last); {
	case len(last) == 0:
		b.segments = b.segments[: n-1 : n-1]
	case int64(waste) > b.size/16:
		b.segments = append(b.segments[:n-1:n-1], slices.Clone(last)) // the session has its own until it ends
	}
	return &b
}

// memReader reads a memBlob.
type memReader struct {
	*memBlob
	offset  int64
	segment int   // that holds offset
	start   int64 // of that segment
}

func (r *memReader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.file != nil {
		n, err := r.file.ReadAt(p[:min(int64(len(p)), r.size-r.offset)], r.offset)
		r.offset += int64(n)
		return n, err
	}
	segment := r.segments[r.segment]
	n := copy(p, segment[r.offset-r.start:])
	r.offset += int64(n)
	if r.offset == r.start+int64(len(segment)) {
		r.start = r.offset
		r.segment++
	}
	return n, nil
}

// WriteTo writes the segments as they are.
func (r *memReader) WriteTo(w io.Writer) (int64, error) { return r.writeTo(w, r.size) }

// writeTo writes what is before end.
func (r *memReader) writeTo(w io.Writer, end int64) (written int64, err error) {
	if r.file != nil {
		written, err = io.Copy(w, io.NewSectionReader(r.file, r.offset, end-r.offset))
		r.offset += written
		return written, err
	}
	for r.offset < end {
		segment := r.segments[r.segment]
		n, err := w.Write(segment[r.offset-r.start : min(int64(len(segment)), end-r.start)])
		written += int64(n)
		r.Seek(int64(n), io.SeekCurrent)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (r *memReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, errors.New("registry: invalid seek")
	}
	if offset < r.start {
		r.segment, r.start = 0, 0
	}
	r.offset = offset
	for r.segment < len(r.segments) && r.start+int64(len(r.segments[r.segment])) <= offset {
		r.start += int64(len(r.segments[r.segment]))
		r.segment++
	}
	return offset, nil
}

func (r *memReader) Close() error { return nil }

// Uploads

// memUpload is an upload session.
type memUpload struct {
	repo, id  string
	algorithm digest.Algorithm

	gone atomic.Bool // cancelled, expired or published; set with the store's mu held

	// Guarded by the store's mu.
	leased   bool
	element  *list.Element // in idle, unless leased
	since    time.Time     // idle
	known    int64         // the size, as of the last look
	reserved memBytes      // of the segments' capacity, and of the file

	// Whoever has the lease has these.
	blob memBlob
	hash hashing
}

// memLease is an Upload.
type memLease struct {
	*memUpload
	store  *MemStore
	closed bool  // the session may be another's now
	size   int64 // when it was closed
	// The state at the start of the lease, for Rollback: the hash's once
	// something has come through the lease, and all before is hashed.
	startSize int64
	startHash []byte
	saved     bool // startHash is asked for
}

func (m *MemStore) CreateUpload(_ context.Context, repo string, opts UploadOptions) (Upload, error) {
	if opts.Algorithm == "" {
		opts.Algorithm = digest.Canonical
	}
	if !opts.Algorithm.Available() {
		return nil, errBadAlgorithm
	}
	if opts.ID == "" {
		opts.ID = newUUID()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	if _, ok := m.uploads[opts.ID]; ok {
		return nil, fmt.Errorf("%w: session ID in use", ErrBlobUploadInvalid)
	}
	if limit := m.Limits.Uploads; limit > 0 && len(m.uploads) >= limit {
		return nil, errTooManyUpload
	}
	if err := m.room(m.load().bytes, memEntry, false); err != nil {
		return nil, err
	}
	u := &memUpload{
		repo:      repo,
		id:        opts.ID,
		algorithm: opts.Algorithm,
		leased:    true,
		reserved:  memBytes{all: memEntry},
		hash:      hashing{hash: opts.Algorithm.Hash()},
	}
	m.reserved.all += memEntry
	if m.uploads == nil {
		m.uploads = make(map[string]*memUpload)
	}
	m.uploads[u.id] = u
	return &memLease{memUpload: u, store: m}, nil
}

func (m *MemStore) ResumeUpload(_ context.Context, repo, id string) (Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, ErrUploadBusy
	}
	l := &memLease{memUpload: u, store: m, startSize: u.blob.size}
	u.leased = true
	m.idle.Remove(u.element)
	return l, nil
}

func (m *MemStore) UploadSize(_ context.Context, repo, id string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return 0, err
	}
	if !u.leased { // a client that asks will go on
		u.since = time.Now()
		m.idle.MoveToBack(u.element)
	}
	return u.known, nil
}

func (m *MemStore) CancelUpload(_ context.Context, repo, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return err
	}
	m.end(u)
	return nil
}

// upload finds a session. It must be called with mu held.
func (m *MemStore) upload(repo, id string) (*memUpload, error) {
	m.expire()
	u, ok := m.uploads[id]
	if !ok || u.repo != repo {
		return nil, ErrBlobUploadUnknown
	}
	return u, nil
}

// expire ends the sessions that were idle for too long. It must be called with
// mu held.
func (m *MemStore) expire() {
	for e := m.idle.Front(); e != nil; e = m.idle.Front() {
		u := e.Value.(*memUpload)
		if time.Since(u.since) < m.Limits.uploadIdle() {
			return
		}
		m.end(u)
	}
}

// end takes a session out of the store. Its bytes are given back now, or when
// its lease ends. It must be called with mu held.
func (m *MemStore) end(u *memUpload) {
	u.gone.Store(true)
	delete(m.uploads, u.id)
	if !u.leased {
		m.idle.Remove(u.element)
		m.release(u)
	}
}

// release gives back what an upload has. It must be called with mu held.
func (m *MemStore) release(u *memUpload) {
	m.reserved.all -= u.reserved.all
	m.reserved.filed -= u.reserved.filed
	u.reserved = memBytes{}
}

func (l *memLease) ID() string { return l.id }

func (l *memLease) Size() int64 {
	if l.closed {
		return l.size
	}
	return l.blob.size
}

// ended reports whether there is nothing left to do for this lease.
func (l *memLease) ended() bool { return l.closed || l.gone.Load() }

func (l *memLease) ReadFrom(r io.Reader) (total int64, err error) {
	defer l.hash.end()
	for {
		if l.ended() {
			return total, ErrBlobUploadUnknown
		}
		if !l.saved && l.startSize > 0 {
			l.hash.take(hashOp{save: &l.startHash}, false)
		}
		l.saved = true
		if l.blob.file != nil {
			n, err := l.readToFile(r)
			return total + n, err
		}
		read := l.begin
		if last := l.blob.last(); len(last) < cap(last) {
			read = l.fill
		} else if l.spills() {
			if err := l.spill(); err != nil {
				return total, err
			}
			continue
		}
		p, err := read(r)
		if len(p) > 0 {
			l.blob.extend(len(p))
			l.hash.take(hashOp{piece: p}, total >= hashAside)
		}
		total += int64(len(p))
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// fill reads to where the bytes stay, after the end of the last segment.
func (l *memLease) fill(r io.Reader) ([]byte, error) {
	last := l.blob.last()
	p := last[len(last):cap(last)]
	n, err := readSome(r, p)
	return p[:n], err
}

// begin reads to a new segment. It is made when there is something to put in
// it, and of its size if that is all there is.
func (l *memLease) begin(r io.Reader) ([]byte, error) {
	first := firsts.Get().(*[maxFirst]byte)
	defer firsts.Put(first)
	n := 0
	var err error
	for n < len(first) && err == nil {
		var more int
		more, err = readSome(r, first[n:])
		n += more
	}
	if n == 0 {
		return nil, err
	}
	b := &l.blob
	size := int64(n)
	if err != io.EOF || b.size > 0 { // more may come
		size = max(2*size, min(max(b.size, minSegment), maxSegment))
	}
	size, full := l.store.reserve(l.memUpload, int64(n), size, false)
	if full != nil {
		return nil, full
	}
	segment := make([]byte, size)
	b.segments = append(b.segments, segment[:0])
	copy(segment, first[:n])
	return segment[:n], err
}

// maxFirst is how much of a segment is read before it is made, in bytes.
const maxFirst = 16 << 10

var firsts = sync.Pool{New: func() any { return new([maxFirst]byte) }}

// readSome reads something, unless r gives nothing for too long.
func readSome(r io.Reader, p []byte) (n int, err error) {
	for range 100 {
		if n, err = r.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// last returns the last segment.
func (b *memBlob) last() []byte {
	if len(b.segments) == 0 {
		return nil
	}
	return b.segments[len(b.segments)-1]
}

// extend takes the n bytes after the end of the last segment for content.
func (b *memBlob) extend(n int) {
	last := &b.segments[len(b.segments)-1]
	*last = (*last)[:len(*last)+n]
	b.size += int64(n)
}

// hashing is the hash of what comes in. Where that is much, a goroutine computes
// it: one processor reads the connection, another hashes, and may still when
// the request is answered.
type hashing struct {
	hash hash.Hash
	ops  chan hashOp   // to the goroutine; nil without one
	done chan struct{} // closed when the latest goroutine has ended; nil without one
}

// hashOp is to hash a piece, or to save the hash's state.
type hashOp struct {
	piece []byte // must not be changed
	save  *[]byte
}

func (op hashOp) apply(h hash.Hash) {
	if op.save != nil {
		*op.save, _ = h.(encoding.BinaryMarshaler).MarshalBinary() // those of the standard library never fail
		return
	}
	h.Write(op.piece)
}

const (
	hashAside = 256 << 10 // bytes from which on a goroutine is worth it
	hashOps   = 64        // that may wait; their bytes are in memory anyway
)

// take does op after all before it: aside, or at once if nothing waits.
func (h *hashing) take(op hashOp, aside bool) {
	if h.ops == nil {
		if !aside && !h.behind() {
			op.apply(h.hash)
			return
		}
		ops, done, before := make(chan hashOp, hashOps), make(chan struct{}), h.done
		h.ops, h.done = ops, done
		go func() {
			defer close(done)
			if before != nil {
				<-before
			}
			for op := range ops {
				op.apply(h.hash)
			}
		}()
	}
	h.ops <- op
}

// behind reports whether something is still to be hashed.
func (h *hashing) behind() bool {
	if h.done == nil {
		return false
	}
	select {
	case <-h.done:
		return false
	default:
		return true
	}
}

// end lets the goroutine end once it has done all.
func (h *hashing) end() {
	if h.ops != nil {
		close(h.ops)
		h.ops = nil
	}
}

// wait waits until all is hashed.
func (h *hashing) wait() {
	h.end()
	if h.done != nil {
		<-h.done
	}
}

// reserve counts up to size further bytes, in memory or in a file, and at least
// least, for an upload whose lease the caller has. It returns how many.
func (m *MemStore) reserve(u *memUpload, least, size int64, filed bool) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	content := m.load().bytes
	if err := m.room(content, least, filed); err != nil {
		return 0, err
	}
	if limit := m.Limits.TotalBytes; limit > 0 {
		size = min(size, limit-content.all-m.reserved.all)
	}
	if limit := m.Limits.MemoryBytes; limit > 0 && !filed {
		size = min(size, limit-content.memory()-m.reserved.memory())
	}
	u.known = u.blob.size
	u.reserved = u.reserved.plus(size, filed)
	m.reserved = m.reserved.plus(size, filed)
	return size, nil
}

func (l *memLease) Commit(_ context.Context, d digest.Digest) error {
	if l.ended() {
		return ErrBlobUploadUnknown
	}
	if err := l.verify(d); err != nil {
		return err
	}
	b := l.blob.trimmed()
	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.gone.Load() {
		return ErrBlobUploadUnknown
	}
	// From here on the bytes are the blob's: they are not counted twice.
	had := l.reserved
	m.release(l.memUpload)
	err := m.update(func(c *memContent) error {
		c.link(l.repo, d, b)
		return nil
	})
	if err != nil {
		l.reserved = had
		m.reserved.all += had.all
		m.reserved.filed += had.filed
		return err
	}
	m.end(l.memUpload)
	return nil
}

// verify compares the digest of the session's bytes with d.
func (l *memLease) verify(d digest.Digest) error {
	l.hash.wait()
	h := l.hash.hash
	if a := d.Algorithm(); a != l.algorithm {
		if !a.Available() {
			return errBadAlgorithm
		}
		// The client chose another algorithm than it had announced, if any.
		h = a.Hash()
		if _, err := (&memReader{memBlob: &l.blob}).WriteTo(h); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return ErrDigestInvalid
	}
	return nil
}

func (l *memLease) Rollback() error {
	b := &l.blob
	if l.ended() || b.size == l.startSize {
		return nil // what was published is not to be touched
	}
	l.hash.wait()
	l.hash.hash.Reset()
	if l.startSize > 0 {
		if err := l.hash.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
			return err
		}
	}
	var start, freed int64
	n := 0
	if b.file != nil {
		start, freed = l.startSize, b.size-l.startSize
	}
	for ; start < l.startSize; n++ {
		segment := &b.segments[n]
		*segment = (*segment)[:min(int64(len(*segment)), l.startSize-start)]
		start += int64(len(*segment))
	}
	for _, segment := range b.segments[n:] {
		freed += int64(cap(segment))
	}
	clear(b.segments[n:])
	b.segments = b.segments[:n]
	b.size = l.startSize

	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.known = b.size
	l.reserved = l.reserved.plus(-freed, b.file != nil)
	l.store.reserved = l.store.reserved.plus(-freed, b.file != nil)
	return nil
}

func (l *memLease) Close() error {
	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed, l.leased, l.size = true, false, l.blob.size
	if l.gone.Load() {
		m.release(l.memUpload)
		return nil
	}
	l.known = l.blob.size
	l.since = time.Now()
	l.element = m.idle.PushBack(l.memUpload)
	return nil
}

// newUUID returns a random UUID (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	for i, field := range [...][3]int{{0, 0, 4}, {9, 4, 6}, {14, 6, 8}, {19, 8, 10}, {24, 10, 16}} {
		if i > 0 {
			s[field[0]-1] = '-'
		}
		hex.Encode(s[field[0]:], b[field[1]:field[2]])
	}
	return string(s[:])
}

// Manifests

func (m *MemStore) GetManifest(_ context.Context, repo string, d digest.Digest) (Manifest, error) {
	r, err := m.load().repo(repo)
	if err != nil {
		return Manifest{}, err
	}
	mf, ok := r.manifests.get(string(d))
	if !ok {
		return Manifest{}, ErrManifestUnknown
	}
	return mf.Manifest, nil
}

func (m *MemStore) GetTag(_ context.Context, repo, tag string) (Manifest, error) {
	r, err := m.load().repo(repo)
	if err != nil {
		return Manifest{}, err
	}
	d, ok := r.tags.get(tag)
	if !ok {
		return Manifest{}, ErrManifestUnknown
	}
	mf, _ := r.manifests.get(string(d)) // r is one value: a tag's manifest is in it
	return mf.Manifest, nil
}

func (m *MemStore) PutManifest(_ context.Context, repo string, mf Manifest, tags []string, allow func(tag string, current digest.Digest) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(func(c *memContent) error {
		r, _ := c.repo(repo)
		if allow != nil {
			for _, tag := range tags {
				current, _ := r.tags.get(tag)
				if err := allow(tag, current); err != nil {
					return err
				}
			}
		}
		// What is under a digest never changes, its type neither.
		if _, ok := r.manifests.get(string(mf.Digest)); !ok {
			r.manifests = r.manifests.with(string(mf.Digest), &memManifest{Manifest: mf})
			c.bytes.all += mf.memBytes()
			r.refer(mf)
		}
		for _, tag := range tags {
			if r.untag(tag) {
				c.bytes.all -= memEntry
			}
			r.tag(tag, mf.Digest)
			c.bytes.all += memEntry
		}
		c.set(repo, r)
		return nil
	})
}

func (m *MemStore) DeleteManifest(_ context.Context, repo string, d digest.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(func(c *memContent) error {
		r, err := c.repo(repo)
		if err != nil {
			return err
		}
		mf, ok := r.manifests.get(string(d))
		if !ok {
			return ErrManifestUnknown
		}
		for tag := range mf.tags.after("") {
			r.tags = r.tags.without(tag)
			c.bytes.all -= memEntry
		}
		r.manifests = r.manifests.without(string(d))
		c.bytes.all -= mf.memBytes()
		r.unrefer(mf.Manifest)
		c.set(repo, r)
		return nil
	})
}

func (m *MemStore) DeleteTag(_ context.Context, repo, tag string, allow func(tag string, current digest.Digest) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.update(func(c *memContent) error {
		r, err := c.repo(repo)
		if err != nil {
			return err
		}
		d, ok := r.tags.get(tag)
		if !ok {
			return fmt.Errorf("%w: tag does not exist", ErrManifestUnknown)
		}
		if allow != nil {
			if err := allow(tag, d); err != nil {
				return err
			}
		}
		r.untag(tag)
		c.bytes.all -= memEntry
		c.set(repo, r)
		return nil
	})
}

// tag points a new tag at a manifest that is there.
func (r *memRepo) tag(tag string, d digest.Digest) {
	r.tags = r.tags.with(tag, d)
	mf, _ := r.manifests.get(string(d))
	r.manifests = r.manifests.with(string(d), &memManifest{mf.Manifest, mf.tags.with(tag, struct{}{})})
}

// untag takes a tag away, and reports whether it was there.
func (r *memRepo) untag(tag string) bool {
	d, ok := r.tags.get(tag)
	if !ok {
		return false
	}
	r.tags = r.tags.without(tag)
	mf, _ := r.manifests.get(string(d))
	r.manifests = r.manifests.with(string(d), &memManifest{mf.Manifest, mf.tags.without(tag)})
	return true
}

// refer lists m as a referrer of its subject.
func (r *memRepo) refer(m Manifest) {
	if m.Subject == "" {
		return
	}
	list, _ := r.referrers.get(string(m.Subject))
	r.referrers = r.referrers.with(string(m.Subject), list.with(string(m.Digest), m.Referrer))
}

func (r *memRepo) unrefer(m Manifest) {
	if m.Subject == "" {
		return
	}
	list, _ := r.referrers.get(string(m.Subject))
	if list = list.without(string(m.Digest)); list.len > 0 {
		r.referrers = r.referrers.with(string(m.Subject), list)
		return
	}
	r.referrers = r.referrers.without(string(m.Subject))
}

func (m *MemStore) Tags(_ context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r, err := m.load().repo(repo)
		if err != nil {
			yield("", err)
			return
		}
		for tag := range r.tags.after(after) {
			if !yield(tag, nil) {
				return
			}
		}
	}
}

func (m *MemStore) Referrers(_ context.Context, repo string, subject, after digest.Digest) iter.Seq2[Referrer, error] {
	return func(yield func(Referrer, error) bool) {
		r, _ := m.load().repo(repo)
		list, _ := r.referrers.get(string(subject))
		for _, referrer := range list.after(string(after)) {
			if !yield(referrer, nil) {
				return
			}
		}
	}
}

func (m *MemStore) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name := range m.load().repos.after(after) {
			if !yield(name, nil) {
				return
			}
		}
	}
}
