// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// TestFileKeys uses keys that are no paths of files.
func TestFileKeys(t *testing.T) {
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
