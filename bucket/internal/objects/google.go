// SPDX-License-Identifier: Apache-2.0

// Google Cloud Storage, by its JSON API
// (https://cloud.google.com/storage/docs/json_api) and, to read content, its XML API.

package objects

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// googleBucket is a bucket of Google Cloud Storage. The version of an object is its
// generation. Google's own client links gRPC and its protocols, which are half of a
// program that uses it. Each request is sent once, as in s3Bucket, except for the
// requests of a Writer.
type googleBucket struct {
	client   *http.Client
	tokens   oauth2.TokenSource // nil: requests are anonymous, or client authorizes them
	signer   *googleSigner      // nil: the bucket can't sign URLs
	endpoint string             // of the API, without a path
	name     string
	close    func()

	// seen is the Unix time in seconds of a response that showed that the bucket
	// exists: see note.
	seen atomic.Int64
}

// googleObject is the part of an object's resource that is used.
type googleObject struct {
	Name       string    `json:"name"`
	Size       int64     `json:"size,string"`
	Generation int64     `json:"generation,string"`
	Updated    time.Time `json:"updated"`
}

// NewGCS returns a bucket that client can access, which must add credentials to
// requests.
func NewGCS(client *http.Client, bucket string) Bucket {
	return newGoogle(client, bucket, googleEndpoint(""))
}

func newGoogle(client *http.Client, bucket, endpoint string) *googleBucket {
	c := *client
	// The response 308 to a part of an upload is no redirect.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &googleBucket{client: &c, name: bucket, endpoint: endpoint, close: func() {}}
}

// note converts the result of an operation on an object. Google reports in the same
// way that an object does not exist and that the bucket doesn't, so note lists
// the bucket, unless another operation has succeeded within the last minute.
func (b *googleBucket) note(ctx context.Context, err error) error {
	if err == nil {
		b.seen.Store(time.Now().Unix())
	}
	if err != ErrNotExist || time.Now().Unix()-b.seen.Load() < 60 {
		return err
	}
	if _, _, err := b.List(ctx, ListQuery{Prefix: "\x7f"}, 1); err != nil { // no key begins so
		return err
	}
	b.seen.Store(time.Now().Unix())
	return ErrNotExist
}

// googleKey escapes a key as gocloud.dev/blob/gcsblob does, which earlier versions
// used.
func googleKey(key string) string {
	return escapeKey(key, func(runes []rune, i int) bool {
		return runes[i] == '\n' || runes[i] == '\r' || afterDots(runes, i)
	})
}

// objectPath returns the path of an object.
func (b *googleBucket) objectPath(key string) string {
	return b.listPath() + "/" + url.PathEscape(googleKey(key))
}

// contentPath returns the path of an object's content.
func (b *googleBucket) contentPath(key string) string {
	return "/" + escapeSigned(b.name) + "/" + escapeSigned(googleKey(key))
}

// listPath returns the path of the list of objects.
func (b *googleBucket) listPath() string {
	return "/storage/v1/b/" + url.PathEscape(b.name) + "/o"
}

// uploadPath returns the path for writes.
func (b *googleBucket) uploadPath() string { return "/upload" + b.listPath() }

func googleVersion(generation int64) string { return strconv.FormatInt(generation, 10) }

func (b *googleBucket) Conditional() bool { return true }

func (b *googleBucket) Close() error {
	b.close()
	return nil
}

func (b *googleBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if n == 0 {
		return getNothing(ctx, b, key, offset)
	}
	r, err := b.get(ctx, key, offset, n)
	if e := (*googleError)(nil); errors.As(err, &e) && e.status == http.StatusRequestedRangeNotSatisfiable {
		if offset > 0 {
			return nil, ErrOffset
		}
		r, err = b.get(ctx, key, 0, -1) // the object is empty, or was: no range of it is valid
		if err == nil && n > 0 {
			r.ReadCloser = readCloser{io.LimitReader(r.ReadCloser, n), r.ReadCloser}
		}
	}
	return r, b.note(ctx, err)
}

// get makes a request for a range that is not empty. It uses the XML API, whose
// responses have the time of the object.
func (b *googleBucket) get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	// The store verifies what it reads, and no object is compressed.
	header := http.Header{"Accept-Encoding": {"identity"}}
	ranged := offset > 0 || n > 0
	if n > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+n-1))
	} else if ranged {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := b.do(ctx, googleRequest{
		method: http.MethodGet,
		url:    b.endpoint + b.contentPath(key),
		header: header,
	})
	if err != nil {
		return nil, err
	}
	o := Object{Key: key, Size: resp.ContentLength, Version: resp.Header.Get("X-Goog-Generation")}
	o.Time, err = http.ParseTime(resp.Header.Get("Last-Modified"))
	if err == nil && ranged {
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		o.Size, err = strconv.ParseInt(total, 10, 64)
	}
	if err != nil || o.Size < 0 || ranged != (resp.StatusCode == http.StatusPartialContent) {
		resp.Body.Close()
		return nil, fmt.Errorf("objects: unexpected response to a read of %s: %s, range %q, modified %q, %d bytes", key,
			resp.Status, resp.Header.Get("Content-Range"), resp.Header.Get("Last-Modified"), resp.ContentLength)
	}
	return &Reader{resp.Body, o}, nil
}

func (b *googleBucket) Stat(ctx context.Context, key string) (Object, error) {
	var o googleObject
	err := b.call(ctx, googleRequest{
		method: http.MethodGet,
		url:    b.endpoint + b.objectPath(key) + "?fields=size,generation,updated",
	}, &o)
	if err := b.note(ctx, err); err != nil {
		return Object{}, err
	}
	return Object{Key: key, Size: o.Size, Time: o.Updated, Version: googleVersion(o.Generation)}, nil
}

// ifGeneration returns parameters that make an operation on an object fail unless the
// condition holds.
func ifGeneration(c Condition) (url.Values, error) {
	q := make(url.Values)
	if c.Absent {
		q.Set("ifGenerationMatch", "0")
	} else if c.Version != "" {
		if _, err := strconv.ParseInt(c.Version, 10, 64); err != nil {
			return nil, fmt.Errorf("objects: invalid version %q", c.Version)
		}
		q.Set("ifGenerationMatch", c.Version)
	}
	return q, nil
}

func (b *googleBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	if c.Absent && c.Version != "" {
		return "", ErrCondition
	}
	q, err := ifGeneration(c)
	if err != nil {
		return "", err
	}
	o, err := b.put(ctx, key, data, q)
	switch err := b.note(ctx, err); {
	case err == ErrNotExist && c.Version != "":
		return "", ErrCondition
	case err != nil:
		return "", err
	}
	return googleVersion(o.Generation), nil
}

// castagnoli is the polynomial of Google's checksums.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// googleSum returns a checksum in Google's form.
func googleSum(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// put writes an object in one request. Google compares the bytes with the checksum.
func (b *googleBucket) put(ctx context.Context, key string, data []byte, q url.Values) (o googleObject, err error) {
	head, tail, form := googleForm(googleKey(key), crc32.Checksum(data, castagnoli))
	q.Set("uploadType", "multipart")
	q.Set("fields", "generation")
	err = b.call(ctx, googleRequest{
		method: http.MethodPost,
		url:    b.endpoint + b.uploadPath() + "?" + q.Encode(),
		header: http.Header{"Content-Type": {form}},
		body:   [][]byte{head, data, tail},
	}, &o)
	return o, err
}

// Copy may take several requests, each of which continues the one before.
func (b *googleBucket) Copy(ctx context.Context, to, from string, size int64) error {
	q := url.Values{"fields": {"done,rewriteToken"}}
	for {
		var progress struct {
			Done  bool   `json:"done"`
			Token string `json:"rewriteToken"`
		}
		err := b.call(ctx, googleRequest{
			method: http.MethodPost,
			url:    b.endpoint + b.objectPath(from) + "/rewriteTo" + strings.TrimPrefix(b.objectPath(to), "/storage/v1") + "?" + q.Encode(),
		}, &progress)
		if err != nil || progress.Done {
			return b.note(ctx, err)
		}
		if progress.Token == "" {
			return errors.New("objects: Google has neither completed a copy nor said how to continue it")
		}
		q.Set("rewriteToken", progress.Token)
	}
}

func (b *googleBucket) Delete(ctx context.Context, key, version string) error {
	q, err := ifGeneration(Condition{Version: version})
	if err != nil {
		return err
	}
	err = b.call(ctx, googleRequest{method: http.MethodDelete, url: b.endpoint + b.objectPath(key) + "?" + q.Encode()}, nil)
	if err := b.note(ctx, err); err != ErrNotExist {
		return err
	}
	return nil
}

func (b *googleBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	params := url.Values{
		"fields":     {"nextPageToken,items(name,size,updated)"},
		"maxResults": {strconv.Itoa(n)},
	}
	for name, value := range map[string]string{
		"prefix":      googleKey(q.Prefix),
		"startOffset": googleKey(q.After), // the key itself is in the list then
		"pageToken":   q.Token,
	} {
		if value != "" {
			params.Set(name, value)
		}
	}
	var listed struct {
		Items []googleObject `json:"items"`
		Next  string         `json:"nextPageToken"`
	}
	err := b.call(ctx, googleRequest{method: http.MethodGet, url: b.endpoint + b.listPath() + "?" + params.Encode()}, &listed)
	if err == ErrNotExist {
		return nil, "", errNoBucket
	} else if err != nil {
		return nil, "", err
	}
	page := make([]Object, 0, len(listed.Items))
	for _, o := range listed.Items {
		if key := unescapeKey(o.Name, googleKey); key > q.After {
			page = append(page, Object{Key: key, Size: o.Size, Time: o.Updated})
		}
	}
	return page, listed.Next, nil
}

// AbortWriters does nothing: Google discards unfinished objects after a week.
func (b *googleBucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	return 0, ctx.Err()
}
