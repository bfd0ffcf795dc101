// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// canLock reports whether lockFile locks.
const canLock = runtime.GOOS != "windows"

// newEntry returns the entry with a number.
func newEntry(seq uint64) *entry {
	return &entry{seq: seq, data: fmt.Appendf(nil, `{"id":"%d","target":{"repository":%q}}`, seq, strings.Repeat("a", 100))}
}

// open opens a journal, and returns the numbers of its entries.
func open(t *testing.T, dir string) (j *journal, seqs []uint64, next uint64, damaged int) {
	t.Helper()
	j, entries, next, damaged, err := openJournal(dir)
	qt.Assert(t, qt.IsNil(err))
	for _, e := range entries {
		seqs = append(seqs, e.seq)
		qt.Assert(t, qt.Equals(e.event.ID, fmt.Sprint(e.seq)))
	}
	return j, seqs, next, damaged
}

// files returns the names of the files of a journal.
func files(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+journalSuffix))
	qt.Assert(t, qt.IsNil(err))
	return names
}

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	j, seqs, next, _ := open(t, dir)
	qt.Check(t, qt.HasLen(seqs, 0))
	qt.Check(t, qt.Equals(next, 1))
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(1), newEntry(2), newEntry(3)}, 0)))
	qt.Assert(t, qt.IsNil(j.write(nil, 1)))
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(4)}, 2)))
	if canLock {
		_, _, _, _, err := openJournal(dir)
		qt.Check(t, qt.ErrorMatches(err, ".*the journal is in use"))
	}
	qt.Assert(t, qt.IsNil(j.close(false)))

	j, entries, next, damaged, err := openJournal(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(entries, 2))
	qt.Check(t, qt.Equals(entries[0].seq, 3))
	qt.Check(t, qt.Equals(next, 5))
	qt.Check(t, qt.Equals(damaged, 0))
	// The first write has all entries, and replaces the file.
	old := files(t, dir)
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(3), newEntry(4), newEntry(5)}, 2)))
	qt.Check(t, qt.HasLen(files(t, dir), 1))
	qt.Check(t, qt.Not(qt.DeepEquals(files(t, dir), old)))
	qt.Assert(t, qt.IsNil(j.write(nil, 4)))
	qt.Assert(t, qt.IsNil(j.close(false)))

	j, seqs, next, _ = open(t, dir)
	qt.Check(t, qt.DeepEquals(seqs, []uint64{5}))
	qt.Check(t, qt.Equals(next, 6))
	qt.Assert(t, qt.IsNil(j.close(true)))
	qt.Check(t, qt.HasLen(files(t, dir), 0))
}

// TestJournalCompaction checks that a journal does not grow with the events that were
// delivered.
func TestJournalCompaction(t *testing.T) {
	dir := t.TempDir()
	j, _, _, _ := open(t, dir)
	for seq := uint64(1); seq <= 20000; seq += 100 {
		var batch []*entry
		for i := range uint64(100) {
			batch = append(batch, newEntry(seq+i))
		}
		qt.Assert(t, qt.IsNil(j.write(batch, max(seq, 50)-50)))
		qt.Assert(t, qt.IsTrue(len(files(t, dir)) <= 2))
	}
	qt.Assert(t, qt.IsNil(j.close(false)))
	j, seqs, next, _ := open(t, dir)
	qt.Check(t, qt.HasLen(seqs, 20000-(19901-50)))
	qt.Check(t, qt.Equals(next, 20001))
	qt.Assert(t, qt.IsNil(j.close(false)))
}

// TestJournalCut cuts a journal at each byte: the lines before must be read.
func TestJournalCut(t *testing.T) {
	dir := t.TempDir()
	j, _, _, _ := open(t, dir)
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(1), newEntry(2), newEntry(3)}, 0)))
	qt.Assert(t, qt.IsNil(j.close(false)))
	name := files(t, dir)[0]
	data, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	for n := range data {
		qt.Assert(t, qt.IsNil(os.WriteFile(name, data[:n], 0o600)))
		j, seqs, _, damaged := open(t, dir)
		qt.Assert(t, qt.HasLen(seqs, bytes.Count(data[:n], []byte("\n"))))
		qt.Assert(t, qt.Equals(damaged, 0))
		qt.Assert(t, qt.IsNil(j.close(false)))
	}
	for n := range data { // another byte costs one line, or two
		damagedData := bytes.Clone(data)
		damagedData[n] ^= 1
		qt.Assert(t, qt.IsNil(os.WriteFile(name, damagedData, 0o600)))
		j, seqs, _, _ := open(t, dir)
		qt.Assert(t, qt.IsTrue(len(seqs) == 2 || len(seqs) == 1 || n == len(data)-1), qt.Commentf("byte %d: %v", n, seqs))
		qt.Assert(t, qt.IsNil(j.close(false)))
	}
}

// TestJournalError checks that after an error a new file gets all events.
func TestJournalError(t *testing.T) {
	dir := t.TempDir()
	j, _, _, _ := open(t, dir)
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(1), newEntry(2)}, 0)))
	j.current.Close()
	qt.Assert(t, qt.IsNotNil(j.write([]*entry{newEntry(3)}, 1)))
	qt.Check(t, qt.IsTrue(j.broken()))
	qt.Assert(t, qt.IsNil(j.write([]*entry{newEntry(2), newEntry(3)}, 1)))
	qt.Check(t, qt.HasLen(files(t, dir), 1))
	qt.Assert(t, qt.IsNil(j.close(false)))
	j, seqs, _, _ := open(t, dir)
	qt.Check(t, qt.DeepEquals(seqs, []uint64{2, 3}))
	qt.Assert(t, qt.IsNil(j.close(false)))
}

// TestDiskFailure checks that events are sent while the journal can't be written, and
// are in it again afterwards.
func TestDiskFailure(t *testing.T) {
	dir := t.TempDir()
	down := make(chan struct{})
	e := &endpoint{respond: func(n int, _ []byte) *http.Response {
		if n > 0 {
			<-down
		}
		return nil
	}}
	var log bytes.Buffer
	s := start(t, e, Options{Journal: dir, Logger: slog.New(slog.NewTextHandler(&log, nil)), Batch: 1})
	// A file where the next one belongs.
	blocker := filepath.Join(dir, fmt.Sprintf("%016x%s", 0, journalSuffix))
	qt.Assert(t, qt.IsNil(os.Mkdir(blocker, 0o700)))
	push(s, 0)
	push(s, 1)
	for s.Stats().Delivered == 0 {
		time.Sleep(time.Millisecond)
	}
	qt.Assert(t, qt.IsNil(os.Remove(blocker)))
	for len(files(t, dir)) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	close(down)
	closeSender(t, s)
	checkTags(t, e.events(t), 2)
	qt.Check(t, qt.StringContains(log.String(), "in memory only"))
	qt.Check(t, qt.StringContains(log.String(), "can be written again"))
	qt.Check(t, qt.HasLen(files(t, dir), 0))
}

// TestDurable checks that an event is in the journal when Observe returns.
func TestDurable(t *testing.T) {
	dir := t.TempDir()
	release := make(chan struct{})
	e := &endpoint{respond: func(int, []byte) *http.Response { <-release; return nil }}
	s := start(t, e, Options{Journal: dir, Durable: true})
	for n := range 5 {
		push(s, n)
		data, err := os.ReadFile(files(t, dir)[0])
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.StringContains(string(data), fmt.Sprintf(`"tag":"v%d"`, n)))
	}
	close(release)
	closeSender(t, s)
	checkTags(t, e.events(t), 5)
	qt.Check(t, qt.HasLen(files(t, dir), 0))
}
