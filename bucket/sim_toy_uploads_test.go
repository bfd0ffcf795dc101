// SPDX-License-Identifier: Apache-2.0

// Uploads to the toy.

package bucket_test

import (
	"bytes"
	"context"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// toyLease is the lease of a session, which others may have too: the first to end
// wins.
type toyLease struct {
	t        *toy
	ctx      context.Context
	repo, id string
	st       toyUpload
	new      bool
	buf      []byte
	closed   bool
}

func (l *toyLease) key() string { return l.repo + " " + l.id }
func (l *toyLease) ID() string  { return l.id }
func (l *toyLease) Size() int64 { return l.st.Size + int64(len(l.buf)) }

func (t *toy) CreateUpload(ctx context.Context, repo string, _ registry.UploadOptions) (registry.Upload, error) {
	return &toyLease{t: t, ctx: context.WithoutCancel(ctx), repo: repo, id: toyUUID(), new: true}, nil
}

func (t *toy) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	l := &toyLease{t: t, ctx: context.WithoutCancel(ctx), repo: repo, id: id}
	st, _, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	if st.Uploads[l.key()] == nil {
		return nil, registry.ErrBlobUploadUnknown
	}
	l.st = *st.Uploads[l.key()]
	return l, nil
}

func (t *toy) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	l, err := t.ResumeUpload(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	return l.Size(), nil
}

func (t *toy) CancelUpload(ctx context.Context, repo, id string) error {
	return t.change(ctx, func(st *toyState) error {
		if st.Uploads[repo+" "+id] == nil {
			return registry.ErrBlobUploadUnknown
		}
		delete(st.Uploads, repo+" "+id)
		return nil
	})
}

func (l *toyLease) ReadFrom(r io.Reader) (int64, error) {
	n := len(l.buf)
	data, err := io.ReadAll(r)
	l.buf = append(l.buf, data...)
	return int64(len(l.buf) - n), err
}

func (l *toyLease) Rollback() error {
	l.buf = nil
	return nil
}

// write writes the bytes of the lease to an object.
func (l *toyLease) write() (parts []string, err error) {
	if len(l.buf) == 0 {
		return l.st.Parts, nil
	}
	key := "data/" + toyUUID()
	if len(l.buf) > 1<<20 {
		w := l.t.b.NewWriter(l.ctx, key)
		if _, err = io.Copy(w, bytes.NewReader(l.buf)); err == nil {
			err = w.Close()
		}
		if err != nil {
			w.Abort()
		}
	} else {
		_, err = l.t.b.Put(l.ctx, key, l.buf, objects.Condition{})
	}
	return append(slices.Clip(l.st.Parts), key), unavailable(err)
}

// same returns an error unless the session is as it was when the lease began.
func (l *toyLease) same(st *toyState) error {
	switch now := st.Uploads[l.key()]; {
	case l.new && now == nil:
		return nil
	case now == nil:
		return registry.ErrBlobUploadUnknown
	case now.Published != l.st.Published || !slices.Equal(now.Parts, l.st.Parts):
		return registry.ErrUploadBusy
	}
	return nil
}

func (l *toyLease) Commit(ctx context.Context, d digest.Digest) error {
	if l.st.Published != "" {
		if l.st.Published == d {
			l.buf, l.closed = nil, true
			return nil
		}
		return registry.ErrBlobUploadUnknown
	}
	before, err := l.t.join(l.ctx, l.st.Parts)
	if err != nil {
		return err
	}
	if digest.FromBytes(append(before, l.buf...)) != d {
		return registry.ErrDigestInvalid
	}
	parts, err := l.write()
	if err != nil {
		return err
	}
	err = l.t.change(l.ctx, func(st *toyState) error {
		if err := l.same(st); err != nil {
			return err
		}
		st.Uploads[l.key()] = &toyUpload{Size: l.st.Size, Published: d}
		st.repo(l.repo).Blobs[d] = parts
		return nil
	})
	l.closed = err == nil
	return err
}

func (l *toyLease) Close() error {
	if l.closed || !l.new && len(l.buf) == 0 {
		return nil
	}
	l.closed = true
	if l.st.Published != "" {
		return registry.ErrUploadBusy
	}
	parts, err := l.write()
	if err != nil {
		return err
	}
	return l.t.change(l.ctx, func(st *toyState) error {
		if err := l.same(st); err != nil {
			return err
		}
		st.Uploads[l.key()] = &toyUpload{Parts: parts, Size: l.Size()}
		return nil
	})
}
