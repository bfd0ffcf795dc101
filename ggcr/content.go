// SPDX-License-Identifier: Apache-2.0

// Content of a handler that can't seek.

package registry

import (
	"errors"
	"io"
)

// content makes a reader one that can seek, holding nothing of it: forward by
// reading, backward by opening it again.
type content struct {
	open   func() (io.ReadCloser, error)
	rc     io.ReadCloser // nil: not open
	size   int64
	at     int64 // where rc is
	offset int64 // where the next Read is
}

// measure finds the size by reading to the end. Unless that was all, the
// content is opened again: an error must be known before a response begins.
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

// shorter returns an error in place of an io.EOF before the size was reached.
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
