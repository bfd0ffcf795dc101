// SPDX-License-Identifier: Apache-2.0

// Opening a directory, and signing URLs of its files.

package objects

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// OpenFile opens the directory of a URL such as file:///path, with the parameters of
// gocloud.dev/blob/fileblob, except that metadata can only be skipped: objects have none.
func OpenFile(u *url.URL) (Bucket, error) {
	b := &fileBucket{mode: 0o777}
	q := u.Query()
	create := take(q, "create_dir") != ""
	b.near = take(q, "no_tmp_dir") != ""
	if q.Has("metadata") && q.Get("metadata") != "skip" {
		return nil, fmt.Errorf("objects: metadata=%s: objects have no metadata, so only metadata=skip is possible", q.Get("metadata"))
	}
	q.Del("metadata")
	if s := take(q, "dir_file_mode"); s != "" {
		mode, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("objects: invalid value for dir_file_mode: %q", s)
		}
		b.mode = fs.FileMode(mode)
	}
	var err error
	if b.signer, err = newFileSigner(take(q, "base_url"), take(q, "secret_key_path")); err != nil {
		return nil, err
	}
	if err := rejectUnknown(q); err != nil {
		return nil, err
	}
	path := u.Path
	if u.Host == "." || os.PathSeparator != '/' { // file://./relative, file:///c:/path
		path = strings.TrimPrefix(path, "/")
	}
	if b.dir, err = filepath.Abs(filepath.FromSlash(path)); err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	info, err := os.Stat(b.dir)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(b.dir, b.mode); err == nil {
			info, err = os.Stat(b.dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("objects: %s is not a directory", b.dir)
	}
	return b, nil
}

// fileSigner signs URLs like the URLSignerHMAC of gocloud.dev/blob/fileblob, so that a
// server can verify them with that.
type fileSigner struct {
	base   *url.URL
	secret []byte
}

// newFileSigner returns nil if there is neither a URL nor a secret.
func newFileSigner(base, secretPath string) (*fileSigner, error) {
	if base == "" && secretPath == "" {
		return nil, nil
	}
	if base == "" || secretPath == "" {
		return nil, errors.New("objects: base_url and secret_key_path require each other")
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("objects: base_url: %w", err)
	}
	secret, err := os.ReadFile(secretPath)
	if err == nil && len(secret) == 0 {
		err = errors.New("the file is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("objects: secret_key_path: %w", err)
	}
	return &fileSigner{u, secret}, nil
}

func (b *fileBucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	if b.signer == nil {
		return "", fmt.Errorf("%w: URLs of files require base_url and secret_key_path", ErrUnsupported)
	}
	signed := url.Values{
		"obj":    {fileKey(key)},
		"expiry": {strconv.FormatInt(time.Now().Add(expires).Unix(), 10)},
		"method": {http.MethodGet},
	}
	mac := hmac.New(sha256.New, b.signer.secret)
	mac.Write([]byte(signed.Encode()))
	u := *b.signer.base
	q := u.Query()
	for name := range signed {
		q.Set(name, signed.Get(name))
	}
	q.Set("signature", base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	u.RawQuery = q.Encode()
	return u.String(), nil
}
