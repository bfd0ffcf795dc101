// SPDX-License-Identifier: Apache-2.0

// The immutable value that holds a MemStore's content.

package registry

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/tree"
)

// memContent is a store's content, uploads excluded.
type memContent struct {
	repos tree.Map[*memRepo]
	blobs tree.Map[*memOwners]  // by digest
	files tree.Map[*storedBlob] // the blobs on disk
	bytes memBytes              // roughly what all this costs

	uses []*lastUse // of the content that a change uses, noted when it has taken effect
}

// memBytes counts bytes.
type memBytes struct {
	all    int64
	onDisk int64 // part of all
}

func (n memBytes) memory() int64 { return n.all - n.onDisk }

// plus adds bytes in memory, or in a file.
func (n memBytes) plus(more int64, onDisk bool) memBytes {
	n.all += more
	if onDisk {
		n.onDisk += more
	}
	return n
}

// memOwners is a blob with the repositories that have it. It is never changed.
type memOwners struct {
	*storedBlob
	repos tree.Set
}

// memRepo is the content of a repository. It is never changed: a change makes a
// new one.
type memRepo struct {
	name      string
	blobs     tree.Map[*memLink]     // by digest
	manifests tree.Map[*memManifest] // by digest
	tags      tree.Map[digest.Digest]
	referrers tree.Map[tree.Map[Referrer]] // by the subject's digest, then the referrer's
}

// memLink is a blob in a repository.
type memLink struct {
	*storedBlob
	used lastUse
}

// lastUse is when content was used, for Collector, in nanoseconds since 1970. The
// values before and after a change share it.
type lastUse struct{ atomic.Int64 }

// touch notes a use now. Of several at the same time, the latest counts.
func (u *lastUse) touch() {
	now := time.Now().UnixNano()
	for {
		last := u.Load()
		if last >= now || u.CompareAndSwap(last, now) {
			return
		}
	}
}

func (u *lastUse) time() time.Time { return time.Unix(0, u.Load()) }

// since reports whether the content was used at a time or later.
func (u *lastUse) since(t time.Time) bool { return u.Load() >= t.UnixNano() }

func (l *memLink) info(d digest.Digest) Info {
	return Info{Digest: d, Size: l.size, Time: l.used.time()}
}

type memManifest struct {
	Manifest
	tags tree.Set // that point at it
	used *lastUse
}

// entryOverhead is roughly the memory that an entry (a repository, a tag, a link
// to a blob) takes in addition to its own bytes.
const entryOverhead = 512

func (m *memManifest) cost() int64 {
	n := len(m.Content) + len(m.MediaType) + entryOverhead
	if m.Subject != "" { // its descriptor and type are kept separately
		n += entryOverhead + len(m.Referrer.Descriptor) + len(m.Referrer.ArtifactType)
	}
	return int64(n)
}

func (m *memManifest) info() Info {
	return Info{Digest: m.Digest, Size: int64(len(m.Content)), Time: m.used.time()}
}

// repo returns a repository, an empty one if it does not exist. Errors: ErrNameUnknown.
func (c memContent) repo(name string) (memRepo, error) {
	r, ok := c.repos.Get(name)
	if !ok {
		return memRepo{name: name}, ErrNameUnknown
	}
	return *r, nil
}

// set replaces a repository, or removes it if it is empty.
func (c *memContent) set(r memRepo) {
	_, had := c.repos.Get(r.name)
	has := r.blobs.Len() > 0 || r.manifests.Len() > 0
	switch {
	case has:
		c.repos = c.repos.With(r.name, &r)
		if !had {
			c.bytes.all += entryOverhead
		}
	case had:
		c.repos = c.repos.Without(r.name)
		c.bytes.all -= entryOverhead
	}
}

// link returns the blob d of a repository.
// Errors: ErrNameUnknown, ErrBlobUnknown.
func (c memContent) link(repo string, d digest.Digest) (*memLink, error) {
	r, err := c.repo(repo)
	if err != nil {
		return nil, err
	}
	l, ok := r.blobs.Get(string(d))
	if !ok {
		return nil, ErrBlobUnknown
	}
	return l, nil
}

// manifest returns a manifest of a repository.
// Errors: ErrNameUnknown, ErrManifestUnknown.
func (c memContent) manifest(repo string, d digest.Digest) (*memManifest, error) {
	r, err := c.repo(repo)
	if err != nil {
		return nil, err
	}
	m, ok := r.manifests.Get(string(d))
	if !ok {
		return nil, ErrManifestUnknown
	}
	return m, nil
}

// addBlob makes b readable through repo, and reports whether the store has kept
// it: bytes that it has already are not kept twice.
func (c *memContent) addBlob(repo string, d digest.Digest, b *storedBlob) (isNew bool) {
	r, _ := c.repo(repo)
	owners, known := c.blobs.Get(string(d))
	if !known {
		owners = &memOwners{storedBlob: b}
		c.bytes = c.bytes.plus(b.size, b.onDisk())
		if b.onDisk() {
			c.files = c.files.With(string(d), b)
		}
	}
	_, linked := r.blobs.Get(string(d))
	l := &memLink{storedBlob: owners.storedBlob} // a clone keeps the old one, and its time
	l.used.touch()
	c.uses = append(c.uses, &l.used)
	r.blobs = r.blobs.With(string(d), l)
	c.set(r)
	if !linked {
		c.blobs = c.blobs.With(string(d), &memOwners{owners.storedBlob, owners.repos.With(r.name)})
		c.bytes.all += entryOverhead
	}
	return !known
}

// deleteBlobs deletes blobs of a repository. It returns those that no repository has
// any more.
// Errors: ErrNameUnknown, ErrBlobUnknown if one of them does not exist.
func (c *memContent) deleteBlobs(repo string, blobs []digest.Digest) (unused []*storedBlob, err error) {
	keys := make([]string, len(blobs))
	for i, d := range blobs {
		if _, err := c.link(repo, d); err != nil {
			return nil, err
		}
		keys[i] = string(d)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	r, err := c.repo(repo)
	if err != nil {
		return nil, err
	}
	r.blobs = r.blobs.Without(keys...)
	c.set(r)
	c.bytes.all -= entryOverhead * int64(len(keys))

	unshared := keys[:0]
	for _, key := range keys {
		owners, _ := c.blobs.Get(key)
		if owners.repos.Len() > 1 {
			c.blobs = c.blobs.With(key, &memOwners{owners.storedBlob, owners.repos.Without(repo)})
			continue
		}
		unshared = append(unshared, key)
		unused = append(unused, owners.storedBlob)
		c.bytes = c.bytes.plus(-owners.size, owners.onDisk())
	}
	c.blobs = c.blobs.Without(unshared...)
	c.files = c.files.Without(unshared...)
	return unused, nil
}

// putManifest is MemStore.PutManifest.
func (c *memContent) putManifest(repo string, m Manifest, tags []string, allow AllowFunc) error {
	r, _ := c.repo(repo)
	if allow != nil {
		for _, tag := range tags {
			current, _ := r.tags.Get(tag)
			if err := allow(tag, current); err != nil {
				return err
			}
		}
	}
	if err := c.nameChildren(r, m); err != nil {
		return err
	}
	m.Blobs, m.Manifests, m.Sparse = nil, nil, false
	entry := &memManifest{Manifest: m, used: new(lastUse)}
	entry.used.touch()
	c.uses = append(c.uses, entry.used)
	if old, ok := r.manifests.Get(string(m.Digest)); ok {
		if err := m.CheckSame(old.Manifest); err != nil {
			return err
		}
		entry.Manifest, entry.tags = old.Manifest, old.tags
	} else {
		c.bytes.all += entry.cost()
		r.addReferrer(m)
	}
	r.manifests = r.manifests.With(string(m.Digest), entry)
	for _, tag := range tags {
		if r.deleteTag(tag) {
			c.bytes.all -= entryOverhead
		}
		r.addTag(tag, m.Digest)
		c.bytes.all += entryOverhead
	}
	c.set(r)
	return nil
}

// nameChildren looks up the content of its repository that m names.
// Errors: ErrManifestBlobUnknown if the repository lacks some of it.
func (c *memContent) nameChildren(r memRepo, m Manifest) error {
	for _, d := range m.Blobs {
		if l, ok := r.blobs.Get(string(d)); ok {
			c.uses = append(c.uses, &l.used)
		} else if !m.Sparse {
			return fmt.Errorf("%w: blob %s", ErrManifestBlobUnknown, d)
		}
	}
	for _, d := range m.Manifests {
		if child, ok := r.manifests.Get(string(d)); ok {
			c.uses = append(c.uses, child.used)
		} else if !m.Sparse {
			return fmt.Errorf("%w: manifest %s", ErrManifestBlobUnknown, d)
		}
	}
	return nil
}

// deleteManifest is MemStore.DeleteManifest.
func (c *memContent) deleteManifest(repo string, d digest.Digest) error {
	m, err := c.manifest(repo, d)
	if err != nil {
		return err
	}
	r, _ := c.repo(repo)
	for tag := range m.tags.All() {
		r.tags = r.tags.Without(tag)
		c.bytes.all -= entryOverhead
	}
	r.manifests = r.manifests.Without(string(d))
	c.bytes.all -= m.cost()
	r.deleteReferrer(m.Manifest)
	c.set(r)
	return nil
}

// deleteTag is MemStore.DeleteTag.
func (c *memContent) deleteTag(repo, tag string, allow AllowFunc) error {
	r, err := c.repo(repo)
	if err != nil {
		return err
	}
	d, ok := r.tags.Get(tag)
	if !ok {
		return fmt.Errorf("%w: tag does not exist", ErrManifestUnknown)
	}
	if allow != nil {
		if err := allow(tag, d); err != nil {
			return err
		}
	}
	r.deleteTag(tag)
	c.bytes.all -= entryOverhead
	c.set(r)
	return nil
}

// addTag points a new tag at a manifest of the repository.
func (r *memRepo) addTag(tag string, d digest.Digest) {
	r.tags = r.tags.With(tag, d)
	m, _ := r.manifests.Get(string(d))
	r.manifests = r.manifests.With(string(d), &memManifest{m.Manifest, m.tags.With(tag), m.used})
}

// deleteTag deletes a tag, and reports whether it existed.
func (r *memRepo) deleteTag(tag string) bool {
	d, ok := r.tags.Get(tag)
	if !ok {
		return false
	}
	r.tags = r.tags.Without(tag)
	m, _ := r.manifests.Get(string(d))
	r.manifests = r.manifests.With(string(d), &memManifest{m.Manifest, m.tags.Without(tag), m.used})
	return true
}

// addReferrer lists m as a referrer of its subject.
func (r *memRepo) addReferrer(m Manifest) {
	if m.Subject == "" {
		return
	}
	list, _ := r.referrers.Get(string(m.Subject))
	r.referrers = r.referrers.With(string(m.Subject), list.With(string(m.Digest), m.Referrer))
}

func (r *memRepo) deleteReferrer(m Manifest) {
	if m.Subject == "" {
		return
	}
	list, _ := r.referrers.Get(string(m.Subject))
	if list = list.Without(string(m.Digest)); list.Len() > 0 {
		r.referrers = r.referrers.With(string(m.Subject), list)
		return
	}
	r.referrers = r.referrers.Without(string(m.Subject))
}
