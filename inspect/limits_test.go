// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// TestLayers lists layers that are not what they seem. In each, the page gets the files until
// the fault, and its reason.
func TestLayers(t *testing.T) {
	archive := func(write func(w *tar.Writer)) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		write(w)
		w.Close()
		return b.Bytes()
	}
	file := func(w *tar.Writer, name, content string) {
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		io.WriteString(w, content)
	}
	zip := func(content []byte) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(content)
		w.Close()
		return b.Bytes()
	}
	one := archive(func(w *tar.Writer) { file(w, "a", "b") })
	big := archive(func(w *tar.Writer) {
		file(w, "a", "b")
		file(w, "big", strings.Repeat("\x00", 8<<20))
		file(w, "c", "d")
	})
	for _, c := range []struct {
		name    string
		content []byte
		files   int
		err     string
	}{
		{"archive", one, 1, ""},
		{"gzip", zip(one), 1, ""},
		{"empty", nil, 0, ""},
		{"text", []byte(strings.Repeat("no archive ", 100)), 0, "invalid tar header"},
		{"gzip_of_gzip", zip(zip(one)), 0, "unexpected EOF"},
		{"short", big[:1<<20], 2, "unexpected EOF"},
		{"broken_gzip", zip(one)[:40], 0, "unexpected EOF"},
		{"bad_gzip_header", []byte{0x1f, 0x8b, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0}, 0, "gzip: invalid header"},
		{"two_bytes_of_gzip", []byte{0x1f, 0x8b}, 0, "EOF"},
		{"bomb", zip(big), 2, errLimit.Error()},
		{"large", big, 2, errLimit.Error()},
		{"zstd_without_a_decompressor", []byte{0x28, 0xb5, 0x2f, 0xfd, 0}, 0, "zstd"},
		{"many_files", archive(func(w *tar.Writer) {
			for n := range 1500 {
				file(w, fmt.Sprint(n), "")
			}
		}), pageFiles, ""},
		{"pax_records", archive(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: strings.Repeat("n", 100_000), Linkname: strings.Repeat("l", 100_000), Typeflag: tar.TypeSymlink, PAXRecords: map[string]string{"A.b": strings.Repeat("x", 100_000)}})
		}), 1, ""},
		{"numbers", archive(func(w *tar.Writer) {
			w.WriteHeader(&tar.Header{Name: "a", Uid: math.MaxInt32, Gid: math.MaxInt32, ModTime: time.Unix(1<<40, 0), Format: tar.FormatGNU})
			w.WriteHeader(&tar.Header{Name: "b", Uid: -1, ModTime: time.Unix(math.MinInt32, 0), Format: tar.FormatGNU, Typeflag: 'Z'})
		}), 2, ""},
		{"names", archive(func(w *tar.Writer) {
			file(w, "\xff\xfe", "")
			file(w, "../../etc/passwd", "")
			file(w, "\u202eexe", "")
		}), 3, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(registry.MemStore)
			d := digest.FromBytes(c.content)
			qt.Assert(t, qt.IsNil(registry.PushBlob(context.Background(), s, "a", d, bytes.NewReader(c.content))))
			i := New(s, Options{})
			i.maxLayer = 4 << 20
			h := i.Handler(registry.New())
			status, got := get(h, "api/layer?repo=a&digest="+string(d))
			qt.Assert(t, qt.Equals(status, 200), qt.Commentf(got))
			var l layer
			qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(got), &l)))
			qt.Check(t, qt.HasLen(l.Items, c.files))
			qt.Check(t, qt.StringContains(l.Error, c.err))
			qt.Check(t, qt.Equals(l.Error == "", c.err == ""), qt.Commentf(l.Error))
			qt.Check(t, qt.IsTrue(len(got) < 1<<20))
			for _, number := range []string{"1", "2", "0", "-1", "9999999", "99999999999999999999"} {
				status, _ := get(h, "api/file?repo=a&number="+number+"&digest="+string(d))
				qt.Check(t, qt.IsTrue(status == 200 || status == 400 || status == 404), qt.Commentf("file %s: %d", number, status))
			}
		})
	}
}

// brokenStore has blobs that can't be read.
type brokenStore struct {
	registry.MemStore
	after int // bytes; -1 if they can't even be opened
}

var errBroken = errors.New("read /var/lib/berth/blobs/x: input/output error")

func (s *brokenStore) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if s.after < 0 {
		return nil, errBroken
	}
	blob, err := s.MemStore.OpenBlob(ctx, repo, d)
	return &brokenBlob{blob, s.after}, err
}

type brokenBlob struct {
	io.ReadSeekCloser
	left int
}

func (b *brokenBlob) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errBroken
	}
	n, err := b.ReadSeekCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// TestBrokenStores checks that the page does not tell how a store has failed.
func TestBrokenStores(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for range 10 {
		w.WriteHeader(&tar.Header{Name: "a", Size: 1000})
		w.Write(make([]byte, 1000))
	}
	w.Close()
	for _, after := range []int{-1, 0, 2, 600, 2000} {
		for _, path := range []string{"layer", "file"} {
			t.Run(fmt.Sprintf("%s_after_%d_bytes", path, after), func(t *testing.T) {
				s := &brokenStore{after: after}
				d := digest.FromBytes(b.Bytes())
				qt.Assert(t, qt.IsNil(registry.PushBlob(context.Background(), s, "a", d, bytes.NewReader(b.Bytes()))))
				_, got := get(New(s, Options{}).Handler(registry.New()), "api/"+path+"?repo=a&number=1&digest="+string(d))
				if strings.Contains(got, "/var/lib") {
					t.Errorf("the page gets %s", got)
				}
				if path == "layer" || after < 1536 {
					qt.Check(t, qt.StringContains(got, "the registry's store has failed"))
				}
			})
		}
	}
}

// TestLargeManifests checks how much of the content of many large manifests a list reads.
func TestLargeManifests(t *testing.T) {
	s := &countingStore{}
	for n := range 60 {
		fill(t, s, "a", map[string]string{fmt.Sprint("v", n): fmt.Sprintf(`{"n":%d,"annotations":{"a":"%s"}}`, n, strings.Repeat("a", 4_000_000))})
	}
	h := New(s, Options{}).Handler(registry.New())
	for _, path := range []string{"api/repository?repo=a", "api/untagged?repo=a", "api/manifest?repo=a&ref=v1"} {
		s.read = 0
		status, _ := get(h, path)
		qt.Check(t, qt.Equals(status, 200))
		// Some are read at once.
		if most := int64(2*maxRead + 20*4_000_000); s.read > most {
			t.Errorf("%s reads %d bytes, more than %d", path, s.read, most)
		}
	}
}

// countingStore counts the bytes of manifests that are read.
type countingStore struct {
	registry.MemStore
	read int64 // atomic
}

func (s *countingStore) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	m, err := s.MemStore.GetManifest(ctx, repo, d)
	atomic.AddInt64(&s.read, int64(len(m.Content)))
	return m, err
}

func (s *countingStore) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	m, err := s.MemStore.GetTag(ctx, repo, tag)
	atomic.AddInt64(&s.read, int64(len(m.Content)))
	return m, err
}

// TestStreams checks which records a page gets that has seen some.
func TestStreams(t *testing.T) {
	i := New(new(registry.MemStore), Options{})
	h := i.Handler(registry.New())
	for range 5 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	}
	for _, c := range []struct {
		name, id string
		want     int
	}{
		{"new_page", "", 5},
		{"after_a_break", i.timeline.server + "-3", 2},
		{"nothing_new", i.timeline.server + "-5", 0},
		{"before_a_restart", "other-3", 5},
		{"long_before_a_restart", "other-500", 5},
		{"number_only", "3", 5},
		{"too_large", i.timeline.server + "-99999999999999999999999", 5},
		{"largest", i.timeline.server + "-18446744073709551615", 0},
		{"negative", i.timeline.server + "--1", 5},
		{"text", "x\ny", 5},
	} {
		for _, header := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/header=%v", c.name, header), func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				cancel() // after a message
				r := httptest.NewRequest("GET", Path+"events", nil).WithContext(ctx)
				if header {
					r.Header.Set("Last-Event-ID", c.id)
				} else {
					q := r.URL.Query()
					q.Set("after", c.id)
					r.URL.RawQuery = q.Encode()
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				_, data, _ := strings.Cut(w.Body.String(), "data: ")
				var m message
				qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(data), &m)))
				qt.Check(t, qt.HasLen(m.Records, c.want))
				qt.Check(t, qt.Equals(m.Server, i.timeline.server))
				qt.Check(t, qt.Equals(m.Missed, 0))
			})
		}
	}
}

// TestBusySecond records some of the requests of a second, and tells a page how many of them
// it does not have.
func TestBusySecond(t *testing.T) {
	i := New(new(registry.MemStore), Options{})
	var last uint64
	second := i.timeline.started.Add(time.Hour)
	for _, c := range []struct {
		name          string
		after         time.Duration
		requests      int
		event         registry.Event
		records, sent int // of them
	}{
		{"as many as there are records of a second", 0, 1000, registry.Event{Status: 200}, 1000, firstBatch},
		{"more of the second", 999 * time.Millisecond, 500, registry.Event{Status: 200}, 0, 0},
		{"failed ones", 0, 10, registry.Event{Status: 404}, 10, 10},
		{"aborted ones", 0, 490, registry.Event{Status: 0}, 490, busySize},
		{"too many failed ones", 0, 10, registry.Event{Status: 500}, 0, 0},
		{"changes", 0, 500, registry.Event{Status: 201, Changed: true}, 500, busySize},
		{"too many changes", 0, 10, registry.Event{Status: 201, Changed: true}, 0, 0},
		{"one that ends in the next second", 0, 1, registry.Event{Status: 200, Duration: 1100 * time.Millisecond}, 1, 1},
		{"one that has begun before", -time.Minute, 1, registry.Event{Status: 200}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := i.timeline.last
			records, _, _ := i.timeline.since(before)
			qt.Assert(t, qt.HasLen(records, 0))
			c.event.HTTP, c.event.Time = httptest.NewRequest("GET", "/v2/", nil), second.Add(c.after)
			for range c.requests {
				i.Record(c.event)
			}
			records, _, _ = i.timeline.since(before)
			qt.Check(t, qt.HasLen(records, c.records))
			qt.Check(t, qt.Equals(i.timeline.last, before+uint64(c.requests)))
			limit, keep := batchSize, busySize
			if last == 0 {
				limit, keep = firstBatch, firstBatch
			}
			unseen := int(i.timeline.last - last)
			missed, err := i.send(t.Context(), httptest.NewRecorder(), records, i.timeline.last, &last, limit, keep)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(missed, unseen-c.sent))
		})
	}
}

// TestManyStreams checks that the number of open pages is limited, and that Close ends them.
func TestManyStreams(t *testing.T) {
	i := New(new(registry.MemStore), Options{})
	ended := make(chan int, maxStreams)
	for range maxStreams {
		go func() {
			status, _ := getOpen(i)
			ended <- status
		}()
	}
	for len(i.streams) < maxStreams {
		time.Sleep(time.Millisecond)
	}
	status, _ := getOpen(i)
	qt.Check(t, qt.Equals(status, 503))
	i.Close()
	for range maxStreams {
		qt.Check(t, qt.Equals(<-ended, 200))
	}
}

// getOpen gets the stream until it ends.
func getOpen(i *Inspector) (int, string) {
	w := httptest.NewRecorder()
	i.ServeHTTP(w, httptest.NewRequest("GET", Path+"events", nil))
	return w.Code, w.Body.String()
}

// TestFindingsOfLargeRequests checks requests whose bodies are larger than could be read again.
func TestFindingsOfLargeRequests(t *testing.T) {
	i := New(new(registry.MemStore), Options{})
	for range 100 {
		r := httptest.NewRequest("PUT", "/v2/a/blobs/uploads/x?digest="+string(digest.FromString("")), nil)
		req, _ := registry.ParseRequest(r)
		i.Record(registry.Event{HTTP: r, Request: req, Status: 201, BytesIn: 100 << 30, Time: time.Now()})
	}
	status, _ := get(i, "api/findings")
	qt.Check(t, qt.Equals(status, 200))
}
