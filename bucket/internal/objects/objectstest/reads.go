// SPDX-License-Identifier: Apache-2.0

// Tests of reading and copying.

package objectstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// tryGet is get for other goroutines than the test's own.
func (t *tester) tryGet(key string) (string, objects.Object, error) {
	r, err := t.bucket.Get(t.ctx, key, 0, -1)
	if err != nil {
		return "", objects.Object{}, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), r.Object, err
}

// fails checks that a Get fails because of its offset.
func (t *tester) fails(key string, offset, n int64) {
	t.Helper()
	r, err := t.bucket.Get(t.ctx, key, offset, n)
	if err == nil {
		r.Close()
		t.Fatalf("Get(%q, %d, %d) does not fail", key, offset, n)
	}
	qt.Assert(t, qt.ErrorIs(err, objects.ErrOffset))
}

func testRanges(t *tester) {
	data := random(1000)
	t.put("k", string(data))
	stat := t.stat("k")
	qt.Assert(t, qt.Equals(stat.Key, "k"))
	qt.Assert(t, qt.Equals(stat.Size, 1000))
	for _, r := range []struct{ offset, n, want int64 }{
		{0, -1, 1000},
		{0, 1000, 1000},
		{0, 5000, 1000},
		{0, 10, 10},
		{0, 0, 0},
		{10, 0, 0},
		{10, 5, 5},
		{990, -1, 10},
		{990, 10, 10},
		{990, 100, 10},
		{999, 1, 1},
	} {
		got, o := t.getRange("k", r.offset, r.n)
		if string(got) != string(data[r.offset:r.offset+r.want]) {
			t.Errorf("offset %d, n %d: %d bytes, not the %d expected", r.offset, r.n, len(got), r.want)
		}
		qt.Check(t, qt.Equals(o.Key, "k"))
		qt.Check(t, qt.Equals(o.Size, 1000))
		qt.Check(t, qt.Equals(o.Version, stat.Version))
		qt.Check(t, qt.Equals(o.Time.Unix(), stat.Time.Unix()))
	}
	for _, n := range []int64{-1, 0, 1} {
		t.fails("k", 1000, n)
		t.fails("k", 2000, n)
	}

	// A reader need not be read to its end.
	r, err := t.bucket.Get(t.ctx, "k", 0, -1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Close()))
}

func testEmpty(t *tester) {
	t.put("k", "")
	t.write("w", nil)
	for _, key := range []string{"k", "w"} {
		qt.Assert(t, qt.Equals(t.stat(key).Size, 0))
		for _, n := range []int64{-1, 0, 1, 1000} {
			got, o := t.getRange(key, 0, n)
			qt.Check(t, qt.Equals(len(got), 0))
			qt.Check(t, qt.Equals(o.Size, 0))
			qt.Check(t, qt.Equals(o.Version, t.stat(key).Version))
			t.fails(key, 1, n)
		}
	}
	qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, "c", "k", 0)))
	t.is("c", "")
}

func testMissing(t *tester) {
	t.absent("k")
	t.put("k/below", "bytes")
	t.absent("k")
	for _, r := range [][2]int64{{0, 10}, {0, 0}, {10, 0}, {10, 5}, {10, -1}} {
		_, err := t.bucket.Get(t.ctx, "k", r[0], r[1])
		qt.Check(t, qt.ErrorIs(err, objects.ErrNotExist))
	}
	qt.Check(t, qt.ErrorIs(t.bucket.Copy(t.ctx, "to", "k", 5), objects.ErrNotExist))
	t.absent("to")
}

// testCancelled makes calls with a context that has ended.
func testCancelled(t *tester) {
	t.put("k", "bytes")
	version := t.stat("k").Version
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	for name, f := range map[string]func() error{
		"Get":       func() error { _, err := t.bucket.Get(ctx, "k", 0, -1); return err },
		"Stat":      func() error { _, err := t.bucket.Stat(ctx, "k"); return err },
		"Put":       func() error { _, err := t.bucket.Put(ctx, "k", []byte("x"), objects.Condition{}); return err },
		"PutAbsent": func() error { _, err := t.bucket.Put(ctx, "a", nil, objects.Condition{Absent: true}); return err },
		"PutVersion": func() error {
			_, err := t.bucket.Put(ctx, "k", nil, objects.Condition{Version: version})
			return err
		},
		"Copy":   func() error { return t.bucket.Copy(ctx, "a", "k", 5) },
		"Delete": func() error { return t.bucket.Delete(ctx, "k", "") },
		"List":   func() error { _, _, err := t.bucket.List(ctx, objects.ListQuery{}, 10); return err },
		"Close":  func() error { return t.bucket.NewWriter(ctx, "a").Close() },
	} {
		err := f()
		qt.Check(t, qt.ErrorIs(err, context.Canceled), qt.Commentf(name))
		qt.Check(t, qt.IsTrue(unknown(err)), qt.Commentf("%s: %v", name, err))
	}
	t.is("k", "bytes")
	t.absent("a")
}

// testTimes compares times of the bucket's clock, which need not be this
// machine's.
func testTimes(t *tester) {
	var before time.Time
	check := func(key string) {
		t.Helper()
		stat := t.stat(key)
		_, got := t.get(key)
		list := t.list(objects.ListQuery{Prefix: key}, 10)
		qt.Assert(t, qt.Equals(len(list), 1))
		qt.Check(t, qt.Equals(got.Time.Unix(), stat.Time.Unix()))
		qt.Check(t, qt.Equals(list[0].Time.Unix(), stat.Time.Unix()))
		if !before.IsZero() {
			if d := time.Duration(stat.Time.Unix()-before.Unix()) * time.Second; d < 0 || d > 2*time.Second {
				t.Errorf("%q was written %v after the one before", key, d)
			}
		}
		before = stat.Time
	}
	t.put("1", "bytes")
	check("1")
	t.put("2", "bytes")
	check("2")
	t.write("3", []byte("bytes"))
	check("3")
	// The copy is to be newer even if times are in seconds.
	time.Sleep(1100*time.Millisecond - time.Duration(time.Now().Nanosecond()))
	qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, "4", "1", 5)))
	check("4")
	if t.stat("4").Time.Unix() == t.stat("1").Time.Unix() {
		t.Error("a copy has the time of its source")
	}
	t.put("1", "other bytes")
	check("1")
}

func testCopy(t *tester) {
	keys := []string{"a+b", "a b", "a%b", "a%20b", "a=b", "aüb", "a&b", "a?b", "a#b", "a~b", "a!*'()b", "a,b;c:d@e$f", "d/e f/g+h"}
	for i, key := range keys {
		t.put("plain", fmt.Sprint("bytes ", i))
		qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, key, "plain", t.stat("plain").Size)), qt.Commentf("%q", key))
		t.is(key, fmt.Sprint("bytes ", i))
		qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, key+" copy", key, t.stat(key).Size)), qt.Commentf("%q", key))
		t.is(key+" copy", fmt.Sprint("bytes ", i))
	}
	list := keysOf(t.list(objects.ListQuery{}, 1000))
	qt.Assert(t, qt.Equals(len(list), 2*len(keys)+1))
	for _, key := range keys {
		qt.Check(t, qt.SliceContains(list, key))
		qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, key, "")))
		t.absent(key)
	}
}

func testCopyReplaces(t *tester) {
	large := random(9 << 20)
	t.write("from", large)
	t.put("to", "other bytes")
	before := t.stat("to").Version
	qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, "to", "from", int64(len(large)))))
	t.same("to", large)
	t.same("from", large)
	qt.Assert(t, qt.Not(qt.Equals(t.stat("to").Version, before)))
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "from", "")))
	t.same("to", large)
}

func testSignedURL(t *tester) {
	const key = "a b+c%d"
	t.put(key, "bytes")
	u, err := t.bucket.SignedURL(t.ctx, key, time.Minute)
	if errors.Is(err, objects.ErrUnsupported) {
		t.Skip(err)
	}
	qt.Assert(t, qt.IsNil(err))
	if !strings.HasPrefix(u, "http") {
		t.Skip("not a URL of HTTP: ", u)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(u)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusOK))
	qt.Assert(t, qt.Equals(string(data), "bytes"))
}
