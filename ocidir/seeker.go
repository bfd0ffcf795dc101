// SPDX-License-Identifier: Apache-2.0

// Seekable content, even from file systems whose files can't seek.

package ocidir

import (
	"errors"
	"io"
	"io/fs"
)

// openSeeker opens a file for random access.
func openSeeker(fsys fs.FS, name string) (io.ReadSeekCloser, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	if s, ok := f.(io.ReadSeekCloser); ok {
		return s, nil
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &reopener{fsys: fsys, name: name, size: info.Size(), file: f}, nil
}

// reopener gives random access to a file that can only be read from its start,
// such as one in a zip: to seek back, it opens the file again.
type reopener struct {
	fsys fs.FS
	name string
	size int64

	file   fs.File
	at     int64 // position in file
	offset int64 // of the next Read
}

func (r *reopener) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.offset < r.at {
		f, err := r.fsys.Open(r.name)
		if err != nil {
			return 0, err
		}
		r.file.Close()
		r.file, r.at = f, 0
	}
	if r.at < r.offset {
		n, err := io.CopyN(io.Discard, r.file, r.offset-r.at)
		if r.at += n; err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p)
	r.at += int64(n)
	r.offset = r.at
	return n, err
}

func (r *reopener) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, errors.New("ocidir: invalid seek")
	}
	r.offset = offset
	return offset, nil
}

func (r *reopener) Close() error { return r.file.Close() }
