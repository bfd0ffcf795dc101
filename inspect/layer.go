// SPDX-License-Identifier: Apache-2.0

// The files in a layer.

package inspect

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// A layer has no index, so each page of its files is read from its start.
const (
	maxLayers = 2                // that are read at once
	maxLayer  = 2 << 30          // bytes of a layer, decompressed, that are read
	layerTime = 20 * time.Second // for which it is read
	pageFiles = 500
	maxFile   = 256 << 10 // bytes of a file that are shown
)

// file is a file in a layer.
type file struct {
	Number int    `json:"number"` // in the layer, from 1
	Name   string `json:"name"`
	Type   string `json:"type"` // file, dir, link, hardlink, device, fifo or other
	Mode   string `json:"mode"`
	Size   int64  `json:"size"`
	Link   string `json:"link,omitempty"`
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Time   int64  `json:"time,omitempty"` // Unix time in s
}

// layer is a page of the files of a layer.
type layer struct {
	Items []file `json:"items"`
	Next  int    `json:"next,omitempty"`  // the parameter after of the next page
	Error string `json:"error,omitempty"` // why the files end here
}

var errLimit = errors.New("the limit of what the page reads of a layer has been reached")

// getLayer returns the files of a layer after a number whose names contain q.
func (i *Inspector) getLayer(r *http.Request) (any, error) {
	after, _ := strconv.Atoi(r.URL.Query().Get("after"))
	q := strings.ToLower(r.URL.Query().Get("q"))
	result := layer{Items: []file{}}
	err := i.readLayer(r, func(number int, h *tar.Header, _ io.Reader) bool {
		if number <= after || !strings.Contains(strings.ToLower(h.Name), q) {
			return true
		}
		if len(result.Items) == pageFiles {
			result.Next = result.Items[pageFiles-1].Number
			return false
		}
		result.Items = append(result.Items, newFile(number, h))
		return true
	})
	if err != nil && !errors.As(err, new(layerError)) && len(result.Items) == 0 {
		return nil, err
	}
	if err != nil {
		result.Error = layerText(err)
	}
	return result, nil
}

// getFile returns the beginning of a file in a layer.
func (i *Inspector) getFile(r *http.Request) (any, error) {
	number, err := strconv.Atoi(r.URL.Query().Get("number"))
	if err != nil {
		return nil, badRequest("number is not the number of a file")
	}
	var found *text
	err = i.readLayer(r, func(n int, h *tar.Header, content io.Reader) bool {
		if n < number {
			return true
		}
		data, err := io.ReadAll(io.LimitReader(content, maxFile+1))
		found = newText(data, maxFile, h.Size)
		if err != nil {
			found.Error = layerText(err)
		}
		return false
	})
	switch {
	case found != nil:
		return found, nil
	case errors.As(err, new(layerError)):
		return nil, badRequest("the layer can't be read that far: " + layerText(err))
	case err != nil:
		return nil, err
	}
	return nil, &registry.Error{Status: http.StatusNotFound, Message: "the layer has no such file"}
}

// newText returns data as text, if it is text.
func newText(data []byte, limit int, size int64) *text {
	t := &text{Size: size, Truncated: len(data) > limit}
	if t.Truncated {
		data = data[:limit]
		for range utf8.UTFMax - 1 { // half a character
			if r, n := utf8.DecodeLastRune(data); r == utf8.RuneError && n == 1 {
				data = data[:len(data)-1]
			}
		}
	}
	t.Binary = !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0
	if !t.Binary {
		t.Text = string(data)
	}
	return t
}

// readLayer calls f for each file of the layer that the parameters repo and digest name,
// until it returns false. Errors that are no layerError are those of the registry.
func (i *Inspector) readLayer(r *http.Request, f func(number int, h *tar.Header, content io.Reader) bool) error {
	req, err := request(registry.OpBlobGet, http.MethodGet, r.URL.Query().Get("repo"), "/blobs/"+r.URL.Query().Get("digest"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), layerTime)
	defer cancel()
	if err := i.allow(ctx, auth.Pull, req); err != nil {
		return err
	}
	select {
	case i.layers <- struct{}{}:
		defer func() { <-i.layers }()
	case <-ctx.Done():
		return &registry.Error{Status: http.StatusServiceUnavailable, Message: "other layers are being read"}
	}
	blob, err := i.store.OpenBlob(ctx, req.Repo, req.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	stored := &storedReader{r: blob}
	// broken returns the error of reading the layer: the store's, if that has failed.
	broken := func(err error) error {
		if stored.err != nil {
			return stored.err
		}
		return layerError{err}
	}
	content, err := i.decompress(stored)
	if err != nil {
		return broken(err)
	}
	defer content.Close()
	limited := &limitedReader{ctx, content, i.maxLayer}
	files := tar.NewReader(reader(func(p []byte) (int, error) {
		n, err := limited.Read(p)
		if err != nil && err != io.EOF {
			err = broken(err)
		}
		return n, err
	}))
	for number := 1; ; number++ {
		h, err := files.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("file %d: %w", number, broken(err))
		}
		if !f(number, h, files) {
			return nil
		}
	}
}

// layerError is an error of the content of a layer, or of its size. The text of others may
// tell how a store has failed.
type layerError struct{ error }

func (e layerError) Unwrap() error { return e.error }

// layerText returns the text of an error of readLayer for the page.
func layerText(err error) string {
	if errors.As(err, new(layerError)) {
		return clip(err.Error())
	}
	return publicText(err)
}

// storedReader keeps the error of a store.
type storedReader struct {
	r   io.Reader
	err error
}

func (s *storedReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// reader is a function that is an io.Reader.
type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// decompress returns the content of a layer. It goes by the first bytes, since the media
// types of layers are many and not always right.
func (i *Inspector) decompress(blob io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(blob, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		if i.Zstd == nil {
			return nil, errors.New("layers compressed with zstd can't be shown here")
		}
		return i.Zstd(b)
	}
	return io.NopCloser(b), nil
}

// limitedReader reads until a limit, and until its context ends.
type limitedReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.ctx.Err() != nil || l.left <= 0 {
		return 0, errLimit
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// newFile returns what the page shows of a file.
func newFile(number int, h *tar.Header) file {
	f := file{
		Number: number,
		Name:   clip(h.Name),
		Mode:   h.FileInfo().Mode().String(),
		Size:   h.Size,
		Link:   clip(h.Linkname),
		UID:    h.Uid,
		GID:    h.Gid,
	}
	if year := h.ModTime.Year(); year > 0 && year < 10000 {
		f.Time = h.ModTime.Unix()
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		f.Type = "file"
	case tar.TypeDir:
		f.Type = "dir"
	case tar.TypeSymlink:
		f.Type = "link"
	case tar.TypeLink:
		f.Type = "hardlink"
	case tar.TypeChar, tar.TypeBlock:
		f.Type = "device"
	case tar.TypeFifo:
		f.Type = "fifo"
	default:
		f.Type = "other"
	}
	return f
}
