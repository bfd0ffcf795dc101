// SPDX-License-Identifier: Apache-2.0

// The double of a bucket that replicas share in a simulation.

package bucket_test

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// double is object storage with the semantics of S3: reads and lists see each
// write at once, and writes are conditional. Replicas use it through handles, which
// add time and faults. Its methods take no time.
type double struct {
	skew       time.Duration // of its clock
	condDelete bool          // it has conditional deletes

	mu      sync.Mutex
	objects map[string]doubleObject
	keys    []string // of objects, in order
	writers map[int]doubleWriter
	started int // writers
}

type doubleObject struct {
	data    []byte
	version string
	written time.Time
}

// doubleWriter is an unfinished object.
type doubleWriter struct {
	key   string
	begun time.Time
}

func newDouble() *double {
	return &double{condDelete: true, objects: make(map[string]doubleObject), writers: make(map[int]doubleWriter)}
}

// versionSeed makes versions depend on nothing but the content, as an ETag does: a
// key that gets its old bytes again has its old version.
var versionSeed = maphash.MakeSeed()

func (d *double) now() time.Time { return time.Now().Add(d.skew).Truncate(time.Second) }

func (o doubleObject) facts(key string) objects.Object {
	return objects.Object{Key: key, Size: int64(len(o.data)), Time: o.written, Version: o.version}
}

// read returns an object. Its data must not be changed.
func (d *double) read(key string) (doubleObject, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.objects[key]
	if !ok {
		return doubleObject{}, objects.ErrNotExist
	}
	return o, nil
}

// put writes an object if the condition holds. It keeps data.
func (d *double) put(key string, data []byte, c objects.Condition) (version string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, exists := d.objects[key]
	if c.Absent && exists || c.Version != "" && (!exists || old.version != c.Version) {
		return "", objects.ErrCondition
	}
	if !exists {
		i, _ := slices.BinarySearch(d.keys, key)
		d.keys = slices.Insert(d.keys, i, key)
	}
	o := doubleObject{data, strconv.FormatUint(maphash.Bytes(versionSeed, data), 36), d.now()}
	d.objects[key] = o
	return o.version, nil
}

func (d *double) remove(key, version string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.objects[key]
	switch {
	case !ok:
		return nil
	case d.condDelete && version != "" && o.version != version:
		return objects.ErrCondition
	}
	delete(d.objects, key)
	i, _ := slices.BinarySearch(d.keys, key)
	d.keys = slices.Delete(d.keys, i, i+1)
	return nil
}

func (d *double) copy(to, from string) error {
	o, err := d.read(from)
	if err == nil {
		_, err = d.put(to, o.data, objects.Condition{})
	}
	return err
}

// list returns a page. A token is the last key of the page before.
func (d *double) list(q objects.ListQuery, n int) (page []objects.Object, next string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := max(q.After, q.Token)
	i, found := slices.BinarySearch(d.keys, max(q.Prefix, after))
	if found && d.keys[i] == after {
		i++
	}
	for ; i < len(d.keys) && strings.HasPrefix(d.keys[i], q.Prefix); i++ {
		if len(page) == n {
			return page, page[n-1].Key
		}
		o := d.objects[d.keys[i]].facts(d.keys[i])
		o.Version = ""
		page = append(page, o)
	}
	return page, ""
}

// beginWriter records an unfinished object.
func (d *double) beginWriter(key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.started++
	d.writers[d.started] = doubleWriter{key, d.now()}
	return d.started
}

// endWriter forgets an unfinished object, and reports whether it was there.
func (d *double) endWriter(id int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.writers[id]
	delete(d.writers, id)
	return ok
}

func (d *double) abortWriters(prefix string, before time.Time) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, w := range d.writers {
		if strings.HasPrefix(w.key, prefix) && w.begun.Before(before) {
			delete(d.writers, id)
			n++
		}
	}
	return n
}

// snapshot returns all objects, and the keys of the unfinished ones.
func (d *double) snapshot() (all map[string][]byte, unfinished []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all = make(map[string][]byte)
	for key, o := range d.objects {
		all[key] = bytes.Clone(o.data)
	}
	for _, w := range d.writers {
		unfinished = append(unfinished, w.key)
	}
	slices.Sort(unfinished)
	return all, unfinished
}
