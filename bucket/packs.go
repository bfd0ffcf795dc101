// SPDX-License-Identifier: Apache-2.0

// Packs: the descriptors of many referrers in few objects.

package bucket

import (
	"context"
	"encoding/json"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// A pack holds the descriptors of those referrers of a subject whose digests have
// the same first digit. Packs are a cache: the descriptor of an incarnation of a
// manifest never changes, and the subject's list says which of them exist. A list that
// had to read many manifests writes packs for the next one; after many pushes of
// referrers, such a list is made in advance.
type pack map[string]packed // by digest and incarnation

type packed struct {
	ArtifactType string `json:"artifactType,omitempty"`
	Descriptor   []byte `json:"descriptor"`
}

// minPacked is the number of referrers from which on packs pay.
const minPacked = 32

func (e referrerEntry) packKey() string { return string(e.digest) + " " + e.incarnation }

// packName returns the name of the pack that a referrer belongs to.
func (e referrerEntry) packName() string {
	hex := e.digest[strings.IndexByte(string(e.digest), ':')+1:]
	return string(hex[:min(1, len(hex))])
}

// referrerList reads the referrers of a subject.
type referrerList struct {
	store   *Store
	repo    string
	subject digest.Digest

	packs   map[string]pack // those that were read, by name
	changed map[string]bool // those that lack what was read since
	missing int             // referrers that were in no pack
}

// read returns the referrers of entries. One that does not exist has no descriptor.
func (l *referrerList) read(ctx context.Context, entries []referrerEntry) ([]registry.Referrer, error) {
	if len(entries) >= minPacked {
		if err := l.readPacks(ctx, entries); err != nil {
			return nil, err
		}
	}
	referrers := make([]registry.Referrer, len(entries))
	var missing []int
	for i, e := range entries {
		p, ok := l.packs[e.packName()][e.packKey()]
		if !ok {
			missing = append(missing, i)
		}
		referrers[i] = registry.Referrer{Digest: e.digest, ArtifactType: p.ArtifactType, Descriptor: p.Descriptor}
	}
	var mu sync.Mutex
	err := each(missing, func(i int) error {
		e := entries[i]
		m, err := l.store.statManifest(ctx, l.repo, e.digest)
		if err == errNotFound || err == nil && m.Incarnation != e.incarnation {
			return nil
		}
		if err != nil {
			return err
		}
		referrers[i].ArtifactType, referrers[i].Descriptor = m.ArtifactType, m.Descriptor
		mu.Lock()
		defer mu.Unlock()
		if p, ok := l.packs[e.packName()]; ok {
			p[e.packKey()] = packed{m.ArtifactType, m.Descriptor}
			l.changed[e.packName()] = true
			l.missing++
		}
		return nil
	})
	return referrers, err
}

// readPacks reads the packs of entries.
func (l *referrerList) readPacks(ctx context.Context, entries []referrerEntry) error {
	if l.packs == nil {
		l.packs, l.changed = make(map[string]pack), make(map[string]bool)
	}
	var names []string
	for _, e := range entries {
		if name := e.packName(); l.packs[name] == nil {
			l.packs[name] = make(pack)
			names = append(names, name)
		}
	}
	var mu sync.Mutex
	return each(names, func(name string) error {
		p := make(pack)
		data, _, err := l.store.get(ctx, packsPrefix(l.repo, l.subject)+name)
		if err == errNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if json.Unmarshal(data, &p) != nil {
			return nil // it will be written again
		}
		mu.Lock()
		defer mu.Unlock()
		l.packs[name] = p
		return nil
	})
}

// maxCountedSubjects bounds the memory of pushCounts.
const maxCountedSubjects = 1000

// pushCounts counts the referrers that this process has pushed to subjects since it
// has listed them.
type pushCounts struct {
	mu        sync.Mutex
	bySubject map[string]*pushCount
}

type pushCount struct{ pushed, listed int }

// add counts a push, and reports whether the subject should be listed now.
func (c *pushCounts) add(subject string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.bySubject[subject]
	if n == nil {
		if c.bySubject == nil || len(c.bySubject) >= maxCountedSubjects {
			c.bySubject = make(map[string]*pushCount)
		}
		n = new(pushCount)
		c.bySubject[subject] = n
	}
	n.pushed++
	if n.pushed < max(minPacked, n.listed/16) {
		return false
	}
	n.pushed, n.listed = 0, n.listed+n.pushed
	return true
}

// countReferrer counts the push of a referrer, and sees to the packs of its subject.
func (s *Store) countReferrer(ctx context.Context, repo string, subject digest.Digest) {
	if !s.pushed.add(repo + " " + string(subject)) {
		return
	}
	s.later(func() {
		for range s.Referrers(ctx, repo, subject, "") { // writes the packs
		}
	})
}

// repack writes the packs that have changed, if that is worth it.
func (l *referrerList) repack(ctx context.Context) {
	if l.missing < minPacked/2 {
		return
	}
	ctx = context.WithoutCancel(ctx)
	l.store.later(func() {
		for name := range l.changed {
			if data, err := json.Marshal(l.packs[name]); err == nil {
				l.store.put(ctx, packsPrefix(l.repo, l.subject)+name, data)
			}
		}
	})
}
