// SPDX-License-Identifier: Apache-2.0

// Bodies of a tape that is being recorded.

package registrytest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxInline is the size of the largest body that is kept in memory, and that can be
// inline on a tape.
const maxInline = 1 << 20

// spool keeps a body that passes through it: in memory, or in a file if it is large.
// It is safe for concurrent use, since a transport may send a request's body while its response
// arrives.
type spool struct {
	dir      string // for the file
	hashOnly bool   // use no file: a large body is lost, but for its digest

	mu       sync.Mutex
	buf      bytes.Buffer
	file     *os.File
	hash     hash.Hash
	size     int64
	complete bool // the body has ended
	frozen   bool // the exchange has ended: ignore the rest
	gone     bool // the body has become a blob, or was lost
	err      error
}

func newSpool(dir string) *spool { return &spool{dir: dir, hash: sha256.New()} }

// read notes the result of a Read.
func (s *spool) read(p []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen || s.err != nil {
		return
	}
	s.size += int64(len(p))
	s.hash.Write(p)
	s.complete = s.complete || err == io.EOF
	if s.gone {
		return
	}
	if s.file == nil && s.buf.Len()+len(p) > maxInline {
		if s.hashOnly {
			s.drop()
			return
		}
		if s.file, s.err = os.CreateTemp(s.dir, "body-"); s.err == nil {
			_, s.err = s.file.Write(s.buf.Bytes())
			s.buf = bytes.Buffer{}
		}
	}
	if s.file == nil {
		s.buf.Write(p)
	} else if s.err == nil {
		_, s.err = s.file.Write(p)
	}
}

// reset starts again: the transport sends the request again.
func (s *spool) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		return
	}
	s.drop()
	s.hash.Reset()
	s.size, s.complete, s.gone = 0, false, false
}

// drop forgets the body, but not its size and digest.
func (s *spool) drop() {
	s.gone = true
	s.buf = bytes.Buffer{}
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
		s.file = nil
	}
}

// freeze ends the spool, and reports whether it has the whole body, which has the given
// size unless that is -1.
func (s *spool) freeze(size int64) (complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = true
	return s.complete || s.size == size
}

// data returns the body, if it is in memory.
func (s *spool) data() (data []byte, ok bool) {
	if s.file != nil || s.gone {
		return nil, false
	}
	return s.buf.Bytes(), true
}

func (s *spool) digest() digest.Digest { return digest.NewDigest(digest.SHA256, s.hash) }

// sentBody is the body of a request, as the transport reads it.
type sentBody struct {
	io.ReadCloser
	spool *spool
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.spool.read(p[:n], err)
	return n, err
}

// receivedBody is the body of a response, as the client reads it.
type receivedBody struct {
	io.ReadCloser
	spool  *spool
	length int64           // -1 if it is unknown
	end    func(err error) // called once, with the error that ended the body

	mu    sync.Mutex // a test may end while the client reads
	ended bool
}

func (b *receivedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(p)
}

func (b *receivedBody) read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.ended {
		return n, err
	}
	b.spool.read(p[:n], err)
	// Not only at io.EOF: with the last byte, the client has what it needs to end the
	// test.
	if err != nil || b.spool.size == b.length {
		b.ended = true
		b.end(err)
	}
	return n, err
}

// Close reads the rest of the body, so that the tape has all of it, however far the
// client read.
func (b *receivedBody) Close() error {
	if !b.mu.TryLock() { // Close is to end a Read
		return b.ReadCloser.Close()
	}
	defer b.mu.Unlock()
	buf := make([]byte, 32<<10)
	for !b.ended {
		b.read(buf)
	}
	return b.ReadCloser.Close()
}

// tapeStage is a folder for the blobs of a tape that is being recorded.
type tapeStage struct{ dir string }

func (s tapeStage) path(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func (s tapeStage) has(d digest.Digest) bool {
	_, err := os.Stat(s.path(d))
	return err == nil
}

// keep makes a body a blob. Its digest is want if the content has that one.
func (s tapeStage) keep(body *spool, want digest.Digest) (digest.Digest, error) {
	d := body.digest()
	if body.gone {
		return d, nil
	}
	err := s.create(d, func(w io.Writer) error {
		if data, ok := body.data(); ok {
			_, err := w.Write(data)
			return err
		}
		if _, err := body.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := io.Copy(w, body.file)
		return err
	})
	body.drop()
	if err != nil || want == "" || want.Algorithm() == digest.SHA256 {
		return d, err
	}
	switch err := s.join(want, []digest.Digest{d}); err {
	case nil:
		return want, nil
	case errOtherDigest:
		return d, nil
	default:
		return d, err
	}
}

var errOtherDigest = errors.New("the content has another digest")

// join makes a blob of the concatenation of others. It fails with errOtherDigest if
// its digest is not d.
func (s tapeStage) join(d digest.Digest, parts []digest.Digest) error {
	return s.create(d, func(w io.Writer) error {
		for _, part := range parts {
			f, err := os.Open(s.path(part))
			if err != nil {
				return err
			}
			_, err = io.Copy(w, f)
			f.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// create makes a blob of what write writes, unless it exists.
func (s tapeStage) create(d digest.Digest, write func(io.Writer) error) error {
	if !d.Algorithm().Available() {
		return fmt.Errorf("unknown algorithm %s", d.Algorithm())
	}
	if s.has(d) {
		return nil
	}
	path := s.path(d)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, "blob-")
	if err != nil {
		return err
	}
	verifier := d.Verifier()
	err = write(io.MultiWriter(f, verifier))
	if err == nil && !verifier.Verified() {
		err = errOtherDigest
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// section returns the digest of a part of a blob.
func (s tapeStage) section(d digest.Digest, offset, size int64) (digest.Digest, error) {
	f, err := os.Open(s.path(d))
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest.FromReader(io.NewSectionReader(f, offset, size))
}

// sendable returns a copy of req to send to the registry, whose body is kept by the
// spool, which is nil without one.
func sendable(req *http.Request, dir string) (*http.Request, *spool) {
	out := req.Clone(req.Context())
	// A compressed body could hide a secret.
	out.Header.Set("Accept-Encoding", "identity")
	if req.Body == nil || req.Body == http.NoBody {
		return out, nil
	}
	sent := newSpool(dir)
	out.Body = &sentBody{req.Body, sent}
	if req.GetBody != nil {
		out.GetBody = func() (io.ReadCloser, error) {
			body, err := req.GetBody()
			sent.reset()
			return &sentBody{body, sent}, err
		}
	}
	return out, sent
}
