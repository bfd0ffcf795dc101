// SPDX-License-Identifier: Apache-2.0

// Seeking in content whose handler can't.

package registry

import (
	"errors"
	"io"
)

// content is an io.ReadSeekCloser for a reader that can't seek. It buffers
// nothing: it seeks forward by reading, and backward by opening the reader again.
type content struct {
	open   func() (io.ReadCloser, error)
	rc     io.ReadCloser // nil: not open
	size   int64
	at     int64 // the position of rc
	offset int64 // the position of the next Read
}

// measure determines the size by reading to the end. Unless only the size is
// needed, it opens the content again, so that an error occurs before the response
// begins.
func (c *content) measure(sizeOnly bool) error {
	var err error
	c.size, err = io.Copy(io.Discard, c.rc)
	if err = errors.Join(err, c.Close()); err != nil || sizeOnly {
		return err
	}
	c.rc, err = c.open()
	return err
}

func (c *content) Read(p []byte) (int, error) {
	if c.offset >= c.size {
		return 0, io.EOF
	}
	if c.rc == nil || c.offset < c.at {
		c.Close()
		rc, err := c.open()
		if err != nil {
			return 0, err
		}
		c.rc, c.at = rc, 0
	}
	if c.at < c.offset {
		n, err := io.CopyN(io.Discard, c.rc, c.offset-c.at)
		if c.at += n; err != nil {
			return 0, shorter(err)
		}
	}
	n, err := c.rc.Read(p[:min(int64(len(p)), c.size-c.offset)])
	c.at += int64(n)
	c.offset = c.at
	if c.offset < c.size {
		err = shorter(err)
	}
	return n, err
}

// shorter replaces an io.EOF, if it comes before the size was reached.
func shorter(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.offset
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	c.offset = offset
	return offset, nil
}

func (c *content) Close() error {
	if c.rc == nil {
		return nil
	}
	err := c.rc.Close()
	c.rc = nil
	return err
}
