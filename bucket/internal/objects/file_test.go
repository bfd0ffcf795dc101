// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// TestFileKeys uses keys that are no paths of files.
func TestFileKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing in it is concurrent")
	}
	ctx := context.Background()
	b := open(t, "file://"+t.TempDir())
	var keys []string
	for _, name := range []string{
		"x", "x.", "x.attrs", "x.attrs.attrs", "x.attrs-1", "xattrs", "_.attrs",
		"a__0x41__", "a__0x41__0x42__", "a___0x41___", "a__0x41_", "a__0xzz__", "a__0x-1__", "aA",
		strings.Repeat("l", 200), strings.Repeat("l", 201), strings.Repeat("l", 234), strings.Repeat("l", 235),
		strings.Repeat("l", 255), strings.Repeat("l", 194) + ".attrs", strings.Repeat("l", 195) + ".attrs",
		strings.Repeat("l", 240) + ".attrs", strings.Repeat("__0x41__", 30) + "l",
	} {
		keys = append(keys, "file/"+name, "dir/"+name+"/file", "both/"+name+"/"+name)
	}
	slices.Sort(keys)
	for _, key := range keys {
		_, err := b.Put(ctx, key, []byte("before"), objects.Condition{Absent: true})
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", key))
		_, err = b.Put(ctx, key, []byte("before"), objects.Condition{Absent: true})
		qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition))
		w := b.NewWriter(ctx, key)
		_, err = io.WriteString(w, key)
		qt.Check(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(w.Close()))
	}
	list := func(q objects.ListQuery) (got []string) {
		page, _, err := b.List(ctx, q, 1000)
		qt.Assert(t, qt.IsNil(err))
		for _, o := range page {
			got = append(got, o.Key)
		}
		return got
	}
	qt.Assert(t, qt.DeepEquals(list(objects.ListQuery{}), keys))
	for _, key := range keys {
		r, err := b.Get(ctx, key, 0, -1)
		qt.Assert(t, qt.IsNil(err))
		data, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(r.Close()))
		qt.Check(t, qt.Equals(string(data), key))
		qt.Check(t, qt.Equals(r.Key, key))
		o, err := b.Stat(ctx, key)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(o.Key, key))
		for end := range len(key) {
			prefix := key[:end]
			want := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !strings.HasPrefix(key, prefix) })
			if got := list(objects.ListQuery{Prefix: prefix}); !slices.Equal(got, want) {
				t.Fatalf("prefix %q: %q; want %q", prefix, got, want)
			}
		}
	}
	for _, key := range keys {
		qt.Assert(t, qt.IsNil(b.Copy(ctx, key+"-copy", key, 1)))
		qt.Assert(t, qt.IsNil(b.Delete(ctx, key+"-copy", "")))
		qt.Assert(t, qt.IsNil(b.Delete(ctx, key, "")))
	}
	qt.Assert(t, qt.HasLen(list(objects.ListQuery{}), 0))
}

// TestFileOddPrefixes uses keys that escape characters, with any prefix of them.
func TestFileOddPrefixes(t *testing.T) {
	ctx := context.Background()
	b := open(t, "file://"+t.TempDir())
	for _, key := range []string{"a//b", "a/../b", "pre\\fix/x", "ctl\x01/x", "..a/x", "dots../x", "trail/", "ü/ß"} {
		_, err := b.Put(ctx, key, []byte(key), objects.Condition{})
		qt.Assert(t, qt.IsNil(err))
		for end := range key {
			page, _, err := b.List(ctx, objects.ListQuery{Prefix: key[:end]}, 1000)
			qt.Assert(t, qt.IsNil(err))
			found := slices.ContainsFunc(page, func(o objects.Object) bool { return o.Key == key })
			qt.Check(t, qt.IsTrue(found), qt.Commentf("%q is not in the list of %q", key, key[:end]))
		}
		qt.Check(t, qt.IsNil(b.Delete(ctx, key, "")))
	}
	_, err := b.Put(ctx, "..", nil, objects.Condition{})
	qt.Check(t, qt.ErrorIs(err, objects.ErrRejected))
}

// TestFileSignedURL signs as gocloud.dev/blob/fileblob verifies.
func TestFileSignedURL(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	qt.Assert(t, qt.IsNil(os.WriteFile(secret, []byte("secret"), 0o600)))
	b := open(t, "file://"+t.TempDir()+"?base_url=/show%3Fa=b&secret_key_path="+secret)
	signed, err := b.SignedURL(context.Background(), "a b/c", time.Minute)
	qt.Assert(t, qt.IsNil(err))
	u, err := url.Parse(signed)
	qt.Assert(t, qt.IsNil(err))
	q := u.Query()
	qt.Check(t, qt.Equals(u.Path+" "+q.Get("a")+" "+q.Get("obj")+" "+q.Get("method"), "/show b a b/c GET"))
	mac := hmac.New(sha256.New, []byte("secret"))
	io.WriteString(mac, "expiry="+q.Get("expiry")+"&method=GET&obj=a+b%2Fc")
	qt.Check(t, qt.Equals(q.Get("signature"), base64.RawURLEncoding.EncodeToString(mac.Sum(nil))))
}

// TestFileOpen opens directories with the parameters of their URLs.
func TestFileOpen(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	qt.Assert(t, qt.IsNil(os.WriteFile(empty, nil, 0o600)))
	for _, test := range []struct{ suffix, err string }{
		{"", ""},
		{"?metadata=skip&no_tmp_dir=1&dir_file_mode=448", ""},
		{"/new?create_dir=1", ""},
		{"/missing", "objects: .*no such file.*"},
		{"/empty", "objects: .* is not a directory"},
		{"?metadata=", "objects: metadata=: .*"},
		{"?dir_file_mode=x", "objects: invalid value for dir_file_mode.*"},
		{"?base_url=/show", "objects: base_url and secret_key_path require each other"},
		{"?base_url=/show&secret_key_path=" + empty, "objects: secret_key_path: the file is empty"},
		{"?key=k", "objects: unknown parameter .*"},
	} {
		u, err := url.Parse("file://" + dir + test.suffix)
		qt.Assert(t, qt.IsNil(err))
		b, err := objects.Open(context.Background(), u)
		if test.err != "" {
			qt.Check(t, qt.ErrorMatches(err, test.err), qt.Commentf(test.suffix))
			continue
		}
		qt.Assert(t, qt.IsNil(err), qt.Commentf(test.suffix))
		_, err = b.Put(context.Background(), "a/b", []byte("bytes"), objects.Condition{})
		qt.Check(t, qt.IsNil(err))
	}
}
