// SPDX-License-Identifier: Apache-2.0

// The journal of a repository: the changes that its index.json lacks.

package ocidir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/opencontainers/go-digest"
)

// journalFile is the name of the journal, a file of lines beside index.json: a
// header, then a batch each.
const journalFile = ".index.journal"

// journalHeader is the first line of a journal.
type journalHeader struct {
	Version int           `json:"journal"`
	Base    digest.Digest `json:"base"` // of the index.json that it continues
}

const journalVersion = 1

// batch is a line of a journal: changes that are acknowledged together, or the
// mark of a fold.
type batch struct {
	Changes []record  `json:"changes,omitempty"`
	Fold    *foldMark `json:"fold,omitempty"`
}

// foldMark says that an index.json contains the first batches of the journal.
// It is written before that index.json is put in place: the journal continues either.
type foldMark struct {
	Index   digest.Digest `json:"index"`
	Batches int           `json:"batches"` // without marks
}

// record is a change to a repository. To make it twice is to make it once.
type record struct {
	Op     op            `json:"op"`
	Digest digest.Digest `json:"digest,omitempty"`

	// Of a push.
	MediaType string    `json:"mediaType,omitempty"`
	Size      int64     `json:"size,omitempty"`
	Content   []byte    `json:"content,omitempty"` // unless the repository has it
	Blob      bool      `json:"blob,omitempty"`    // its file is a blob too
	Time      time.Time `json:"time,omitzero"`

	Tags []string `json:"tags,omitempty"` // of a push, or to delete
}

// isValid reports whether a record can have been written by a Store.
func (r record) isValid() bool {
	for _, tag := range r.Tags {
		if !validTag.MatchString(tag) {
			return false
		}
	}
	return r.Op == opUntag || r.Digest.Validate() == nil
}

// op is the operation of a record.
type op string

const (
	opPush       op = "push"       // of a manifest, or of tags for it
	opDelete     op = "delete"     // of a manifest
	opUntag      op = "untag"      // of tags
	opKeepBlob   op = "keepBlob"   // a push of a blob whose file was condemned, or has another use
	opDeleteBlob op = "deleteBlob" // of a blob
	opList       op = "list"       // a fold that writes or removes the file of a list of referrers, which is no blob
)

// journal is a journal that can be continued. Its file is open only while a line is
// written: there may be many repositories.
type journal struct {
	dir     rootDir
	name    string
	size    int64 // of its whole lines
	batches int   // without marks
	failed  error // that ended it: the file can't be trusted any more
}

// errDamaged is returned for a journal with a damaged line before whole ones.
var errDamaged = errors.New("a damaged line before others")

// createJournal creates a journal with the given lines. It is durable once the
// folder is synced.
func createJournal(dir rootDir, name string, base digest.Digest, batches ...[]byte) (*journal, error) {
	data, err := appendLine(nil, journalHeader{journalVersion, base})
	if err != nil {
		return nil, err
	}
	for _, b := range batches {
		data = append(data, b...)
	}
	f, err := dir.create(name)
	if err != nil {
		return nil, err
	}
	if err := writeAndClose(f, data); err != nil {
		return nil, errors.Join(err, dir.remove(name))
	}
	return &journal{dir: dir, name: name, size: int64(len(data)), batches: len(batches)}, nil
}

// append appends a line and syncs it. On an error the journal is as before, or it
// has failed.
func (j *journal) append(line []byte) error {
	if j.failed != nil {
		return j.failed
	}
	f, err := j.dir.root.OpenFile(j.name, os.O_WRONLY, 0)
	if err != nil {
		if isMissing(err) { // another tool has removed it
			j.failed = err
		}
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(line, j.size); err != nil {
		if f.Truncate(j.size) != nil {
			j.failed = err
		}
		return err
	}
	if err := datasync(f); err != nil {
		// The system may have dropped the bytes, and report success the
		// next time.
		j.failed = err
		f.Truncate(j.size)
		return err
	}
	j.size += int64(len(line))
	return nil
}

// journalContent is what a journal says.
type journalContent struct {
	header  journalHeader
	batches []batch
	marks   []foldMark
	size    int64 // of its whole lines
}

// contained returns the number of batches that an index.json contains, 0 if no mark
// says so.
func (c *journalContent) contained(index digest.Digest) (batches int) {
	for _, m := range c.marks {
		if m.Index == index {
			return m.Batches
		}
	}
	return 0
}

// readJournal reads the journal in dir, nil if there is none. The last line may be
// cut short: it was not acknowledged.
func readJournal(fsys fs.FS, dir string) (*journalContent, error) {
	name := path.Join(dir, journalFile)
	f, err := openRegular(fsys, name)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var c journalContent
	if err := c.read(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &c, nil
}

// read adds the lines of r, without the last one if it is cut short.
func (c *journalContent) read(r io.Reader) error {
	torn := false
	return eachLine(r, func(line []byte) error {
		if _, ok := parseLine(line); !ok {
			torn = true
			return nil
		}
		if torn {
			return errDamaged
		}
		c.size += int64(len(line))
		return c.addLine(line)
	})
}

// addLine adds a whole line.
func (c *journalContent) addLine(line []byte) error {
	if c.header.Version == 0 {
		if !decodeLine(line, &c.header) || c.header.Version != journalVersion {
			return errors.New("not a journal of this version")
		}
		return nil
	}
	var b batch
	if !decodeLine(line, &b) {
		return errors.New("not a line of a journal")
	}
	for _, r := range b.Changes {
		if !r.isValid() {
			return fmt.Errorf("an invalid change %q", r.Op)
		}
	}
	if b.Fold != nil {
		c.marks = append(c.marks, *b.Fold)
		return nil
	}
	c.batches = append(c.batches, b)
	return nil
}
