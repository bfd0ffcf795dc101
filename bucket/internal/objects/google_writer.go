// SPDX-License-Identifier: Apache-2.0

// Writing large objects to Google Cloud Storage, by resumable uploads
// (https://cloud.google.com/storage/docs/performing-resumable-uploads).

package objects

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// googleWriter writes an object: in one piece if it is no larger than a chunk, and
// otherwise with a resumable upload. It repeats requests, which does no harm: each
// byte of an upload has the same position and value each time, and no other writer
// has the same key.
type googleWriter struct {
	chunkWriter
	b   *googleBucket
	key string
	crc uint32 // of all that was written

	// The goroutine that sends a chunk owns these while it runs.
	session string // the URL of the upload; "" before the first chunk
	offset  int64  // where the next chunk begins
}

func (b *googleBucket) NewWriter(ctx context.Context, key string) Writer {
	return &googleWriter{b: b, key: key, chunkWriter: newChunkWriter(ctx)}
}

func (w *googleWriter) Write(p []byte) (int, error) {
	n, err := w.fill(p, func() error { return w.flush(false) })
	w.crc = crc32.Update(w.crc, castagnoli, p[:n])
	return n, err
}

// flush begins to send the chunk, once the one before it has been sent.
func (w *googleWriter) flush(last bool) error {
	if err := w.wait(); err != nil {
		return err
	}
	w.start(func(chunk *[chunkSize]byte, n int) error { return w.send(chunk, n, last) })
	return nil
}

// send sends a chunk. It runs in a goroutine.
func (w *googleWriter) send(chunk *[chunkSize]byte, n int, last bool) error {
	if w.session == "" {
		if err := w.begin(); err != nil {
			return err
		}
	}
	end := w.offset + int64(n)
	total := "*"
	if last {
		total = strconv.FormatInt(end, 10)
	}
	repeated := false
	for futile := 0; futile < partAttempts; {
		attempts := 0
		kept, complete, err := w.put(chunk[n-int(end-w.offset):n], total)
		for err != nil && w.mayRepeat(err, &attempts) { // find out how many bytes have arrived
			repeated = true
			kept, complete, err = w.put(nil, total)
		}
		switch {
		case err == ErrNotExist:
			return errors.New("objects: Google has lost an upload")
		case err != nil:
			return err
		case complete && !last, !complete && (kept < w.offset || kept > end):
			return fmt.Errorf("objects: Google has %d bytes of an upload, not %d to %d", kept, w.offset, end)
		}
		if complete || !last && kept == end {
			w.offset = end
			if !repeated { // otherwise net/http may still be reading it for an earlier attempt
				chunks.Put(chunk)
			}
			return nil
		}
		if kept > w.offset {
			futile = 0
		} else {
			futile++
		}
		w.offset = kept
		repeated = true
	}
	return errors.New("objects: Google keeps no bytes of an upload")
}

// mayRepeat counts an attempt that has failed, and reports whether another one may
// follow, for which it waits.
func (w *googleWriter) mayRepeat(err error, attempts *int) bool {
	*attempts++
	var e *googleError
	if errors.As(err, &e) && e.status < 500 && e.status != http.StatusTooManyRequests &&
		e.status != http.StatusRequestTimeout && !e.limited() {
		return false
	}
	if errors.Is(err, ErrRejected) || err == ErrNotExist || err == ErrCondition || *attempts >= partAttempts {
		return false
	}
	return w.backOff(*attempts)
}

// begin begins the upload. A session that nobody uses does no harm.
func (w *googleWriter) begin() error {
	q := url.Values{"uploadType": {"resumable"}, "name": {googleKey(w.key)}, "fields": {"generation"}}
	for attempts := 0; ; {
		resp, err := w.b.do(w.ctx, googleRequest{
			method: http.MethodPost,
			url:    w.b.endpoint + w.b.uploadPath() + "?" + q.Encode(),
			header: http.Header{"X-Upload-Content-Type": {contentType}},
		})
		if err == nil {
			resp.Body.Close()
			if w.session = resp.Header.Get("Location"); w.session == "" {
				return errors.New("objects: Google has begun an upload without a location")
			}
			return nil
		}
		if err = w.b.note(w.ctx, err); !w.mayRepeat(err, &attempts) {
			return err
		}
	}
}

// put sends bytes from w.offset on or, without bytes, asks for the upload's progress. It
// returns how many bytes of the object Google has, and whether the object is complete.
func (w *googleWriter) put(p []byte, total string) (kept int64, complete bool, err error) {
	position := "*"
	if len(p) > 0 {
		position = fmt.Sprintf("%d-%d", w.offset, w.offset+int64(len(p))-1)
	}
	header := http.Header{"Content-Range": {"bytes " + position + "/" + total}}
	if total != "*" {
		header.Set("X-Goog-Hash", "crc32c="+googleSum(w.crc))
	}
	resp, err := w.b.do(w.ctx, googleRequest{method: http.MethodPut, url: w.session, header: header, body: [][]byte{p}})
	if err != nil {
		return 0, false, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusPermanentRedirect {
		return 0, true, nil
	}
	have := resp.Header.Get("Range")
	if have == "" { // no bytes
		return 0, false, nil
	}
	_, end, _ := strings.Cut(have, "-")
	kept, err = strconv.ParseInt(end, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("objects: Google says that it has the bytes %q", have)
	}
	return kept + 1, false, nil
}

// Close completes the object. If it fails, the object may exist nevertheless.
func (w *googleWriter) Close() error { return w.close(w.finish, w.Abort) }

func (w *googleWriter) finish() error {
	if w.sending == nil && w.session == "" {
		return w.putAll()
	}
	if err := w.flush(true); err != nil {
		return err
	}
	return w.wait()
}

// putAll writes an object that is no larger than a chunk.
func (w *googleWriter) putAll() error {
	data := w.filled()
	for attempts := 0; ; {
		_, err := w.b.put(w.ctx, w.key, data, make(url.Values))
		if err == nil && attempts == 0 && w.chunk != nil { // as in send
			chunks.Put(w.chunk)
		}
		if err = w.b.note(w.ctx, err); err == nil || !w.mayRepeat(err, &attempts) {
			w.chunk = nil
			return err
		}
	}
}

// Abort discards the object. Google discards the bytes that it has after a week.
func (w *googleWriter) Abort() { w.stop() }
