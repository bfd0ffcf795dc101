// SPDX-License-Identifier: Apache-2.0

// The journal: files that hold the events of the queue.

package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A journal is a directory of files that are appended to, one after the other. A line
// is the CRC-32C of the rest in 8 hexadecimal digits, a space, and a record in JSON:
// an event with its number, or the number of the last event that was delivered. Events
// are delivered in the order of their numbers, and records are in that order, so a
// file can be deleted when its last event is delivered: marks in it concern only
// events in it and in files before it.
//
// A journal is used by one goroutine at a time.
type journal struct {
	dir     string
	lock    *os.File
	files   []journalFile // without the current one
	current *os.File      // nil before the first record, and after an error
	file    journalFile   // the current one
	size    int64         // of the current file
	next    uint64        // the number in the name of the next file
	marked  uint64        // the last event that is marked as delivered
}

// journalFile is a file of the journal.
type journalFile struct {
	name string
	last uint64 // the number of the last event in it, or in those before it
}

// maxFile is the size from which on a file is not appended to.
const maxFile = 1 << 20

// journalSuffix is the end of the names of files.
const journalSuffix = ".journal"

// record is a line.
type record struct {
	Seq       uint64          `json:"seq,omitempty"`
	Event     json.RawMessage `json:"event,omitempty"`
	Delivered uint64          `json:"delivered,omitempty"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openJournal opens or makes the journal in dir. It returns the events that are not
// marked as delivered, the number of the next one, and the number of damaged lines,
// other than the last of a file, which a crash may have cut off.
func openJournal(dir string) (j *journal, entries []*entry, next uint64, damaged int, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, 0, 0, err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, nil, 0, 0, err
	}
	j = &journal{dir: dir, lock: lock}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	names, err := filepath.Glob(filepath.Join(dir, "*"+journalSuffix)) // sorted
	if err != nil {
		return nil, nil, 0, 0, err
	}
	last := uint64(0)
	for _, name := range names {
		n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), journalSuffix), 16, 64)
		if err != nil {
			continue // not a file of the journal
		}
		j.next = n + 1
		read, delivered, bad, err := readFile(name)
		if err != nil {
			return nil, nil, 0, 0, err
		}
		damaged += bad
		j.marked = max(j.marked, delivered)
		f := journalFile{name: name, last: last}
		for _, e := range read {
			if e.seq > last { // else a copy, made after an error
				last = e.seq
				entries = append(entries, e)
			}
			f.last = max(f.last, e.seq)
		}
		j.files = append(j.files, f)
	}
	entries = slices.DeleteFunc(entries, func(e *entry) bool { return e.seq <= j.marked })
	return j, entries, max(last, j.marked) + 1, damaged, nil
}

// readFile reads a file.
func readFile(name string) (entries []*entry, delivered uint64, damaged int, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, 0, 0, err
	}
	for len(data) > 0 {
		line, rest, complete := bytes.Cut(data, []byte("\n"))
		data = rest
		r, ok := parseLine(line)
		switch {
		case !complete: // cut off
		case !ok:
			damaged++
		case r.Event != nil:
			e := &entry{seq: r.Seq, data: r.Event}
			if err := json.Unmarshal(r.Event, &e.event); err != nil {
				damaged++
				continue
			}
			entries = append(entries, e)
		default:
			delivered = max(delivered, r.Delivered)
		}
	}
	return entries, delivered, damaged, nil
}

func parseLine(line []byte) (r record, ok bool) {
	sum, payload, _ := bytes.Cut(line, []byte(" "))
	n, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(n) != crc32.Checksum(payload, castagnoli) {
		return record{}, false
	}
	return r, json.Unmarshal(payload, &r) == nil
}

// appendLine appends a record to b.
func appendLine(b []byte, r record) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(payload, castagnoli))
	b = append(b, payload...)
	return append(b, '\n'), nil
}

// broken reports whether there is no file to append to. Then the next call of write
// must have all events that are not delivered.
func (j *journal) broken() bool { return j.current == nil }

// write appends entries, and marks all up to the number delivered. It syncs the file if
// there are entries: a mark that is lost makes some be delivered again. After an error
// the file is given up: the kernel may have dropped the bytes.
func (j *journal) write(entries []*entry, delivered uint64) (err error) {
	if len(entries) == 0 && delivered <= j.marked {
		return nil
	}
	whole := j.broken()
	if whole || j.size >= maxFile {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			j.giveUp()
		}
	}()
	var b []byte
	for _, e := range entries {
		if b, err = appendLine(b, record{Seq: e.seq, Event: e.data}); err != nil {
			return err
		}
		j.file.last = e.seq
	}
	if delivered > j.marked {
		if b, err = appendLine(b, record{Delivered: delivered}); err != nil {
			return err
		}
	}
	n, err := j.current.Write(b)
	j.size += int64(n)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		if err := j.current.Sync(); err != nil {
			return err
		}
	}
	j.marked = max(j.marked, delivered)
	j.remove(func(f journalFile) bool { return whole || f.last <= j.marked })
	return nil
}

// rotate starts a new file.
func (j *journal) rotate() error {
	name := filepath.Join(j.dir, fmt.Sprintf("%016x%s", j.next, journalSuffix))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.next++
	if err := syncDir(j.dir); err != nil {
		f.Close()
		os.Remove(name)
		return err
	}
	if j.current != nil {
		j.giveUp()
	}
	j.current, j.file, j.size = f, journalFile{name: name}, 0
	if n := len(j.files); n > 0 {
		j.file.last = j.files[n-1].last
	}
	return nil
}

// giveUp closes the current file.
func (j *journal) giveUp() {
	j.current.Close()
	j.files = append(j.files, j.file)
	j.current, j.file, j.size = nil, journalFile{}, 0
}

// remove removes files other than the current one.
func (j *journal) remove(unneeded func(journalFile) bool) {
	j.files = slices.DeleteFunc(j.files, func(f journalFile) bool {
		if !unneeded(f) {
			return false
		}
		err := os.Remove(f.name)
		return err == nil || errors.Is(err, os.ErrNotExist)
	})
}

// close closes the journal. If no events are left, it removes the files.
func (j *journal) close(empty bool) error {
	if j.current != nil {
		j.giveUp()
	}
	if empty {
		j.remove(func(journalFile) bool { return true })
	}
	return j.lock.Close()
}

// syncDir makes the names in a directory durable, on systems that can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) && !errors.Is(err, os.ErrInvalid) {
		return err
	}
	return nil
}
