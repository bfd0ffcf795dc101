// SPDX-License-Identifier: Apache-2.0

// The collection of one repository.

package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// batch is how many manifests or blobs a store is asked to collect at once. Stores
// write a batch together, or several at once.
const batch = 100

// repo is a repository during its collection.
type repo struct {
	*collection
	name      string
	rules     []*Rule // that match the repository
	manifests map[digest.Digest]*manifest
	order     []*manifest // by digest
	referrers map[digest.Digest][]*manifest
	tags      []*thing
}

// manifest is a manifest of the repository, and what it names.
type manifest struct {
	digest    digest.Digest
	size      int64
	time      time.Time
	subject   digest.Digest
	blobs     []uint64 // hashes of them
	manifests []digest.Digest

	reason string // why it is kept, "" if it is not
	rule   string // that does not keep it, "" if there is none

	// The number of manifests that are garbage, not yet deleted, and lead to it; and of
	// those that name it.
	leading, naming int

	asked, gone bool // the store was asked to delete it, and did
}

// collectRepo deletes the garbage of a repository: tags first, then manifests before
// those that they name, then blobs.
func (c *collection) collectRepo(ctx context.Context, name string) error {
	r := &repo{collection: c, name: name, manifests: make(map[digest.Digest]*manifest), referrers: make(map[digest.Digest][]*manifest)}
	for i := range c.Rules {
		if c.Rules[i].matchesRepo(name) {
			r.rules = append(r.rules, &c.Rules[i])
		}
	}
	for _, step := range []func(context.Context) error{r.readManifests, r.readTags, r.deleteTags, r.mark, r.deleteManifests, r.deleteBlobs} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// readManifests reads all manifests.
func (r *repo) readManifests(ctx context.Context) error {
	var blobs []uint64 // of a manifest, reused
	var children []digest.Digest
	for info, err := range r.store.Manifests(ctx, r.name, "") {
		r.pause()
		if err != nil {
			return err
		}
		stored, err := r.getManifest(ctx, info.Digest)
		if errors.Is(err, registry.ErrManifestUnknown) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		blobs, children = blobs[:0], children[:0]
		subject, err := registry.EachReference(stored.MediaType, stored.Content,
			func(d []byte) { blobs = append(blobs, maphash.Bytes(r.seed, d)) },
			func(d []byte) { children = append(children, digest.Digest(d)) })
		if err != nil {
			return err
		}
		m := &manifest{digest: info.Digest, size: info.Size, time: info.Time, subject: subject, blobs: unique(blobs), manifests: unique(children)}
		r.manifests[m.digest] = m
		r.order = append(r.order, m)
		if m.subject != "" {
			r.referrers[m.subject] = append(r.referrers[m.subject], m)
		}
	}
	return nil
}

// getManifest returns a manifest that the store has listed.
// Errors: registry.ErrManifestUnknown if it was deleted meanwhile, and another one if it is
// there but is damaged: what it names must not be deleted, so that it can be pushed again.
func (r *repo) getManifest(ctx context.Context, d digest.Digest) (registry.Manifest, error) {
	for range 10 { // or it was pushed again just after it was not found
		m, err := r.store.GetManifest(ctx, r.name, d)
		if !errors.Is(err, registry.ErrManifestUnknown) {
			return m, err
		}
		if _, statErr := r.store.StatManifest(ctx, r.name, d); errors.Is(statErr, registry.ErrUnsupported) {
			return m, err
		} else if statErr != nil {
			return m, statErr
		}
	}
	return registry.Manifest{}, fmt.Errorf("manifest %s is damaged: push it again, or delete it", d)
}

// unique returns a copy of a list without duplicates, and sorts the list.
func unique[T cmp.Ordered](list []T) []T {
	slices.Sort(list)
	return slices.Clone(slices.Compact(list))
}

// readTags reads all tags, and applies the rules to them.
func (r *repo) readTags(ctx context.Context) error {
	for tag, err := range r.store.Tags(ctx, r.name, "") {
		r.pause()
		if err != nil {
			return err
		}
		m, err := r.store.GetTag(ctx, r.name, tag)
		if errors.Is(err, registry.ErrManifestUnknown) || errors.Is(err, registry.ErrNameUnknown) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		t := &thing{tag: tag, digest: m.Digest, keep: true, time: r.now}
		if known, ok := r.manifests[m.Digest]; ok { // or it was pushed just now
			t.time = known.time
		}
		r.tags = append(r.tags, t)
	}
	r.decide(r.tags)
	return nil
}

func (r *repo) decide(things []*thing) {
	decide(r.rules, things, r.now, func(d digest.Digest) time.Time {
		if r.Pulled == nil {
			return time.Time{}
		}
		return r.Pulled(r.name, d)
	})
}

// errMoved rejects the deletion of a tag.
var errMoved = errors.New("the tag was moved")

// deleteTags deletes tags that a rule does not keep.
func (r *repo) deleteTags(ctx context.Context) error {
	for _, t := range r.tags {
		r.pause()
		d := Decision{Repository: r.name, Tag: t.tag, Digest: t.digest, Keep: t.keep, Reason: ReasonNoRule}
		if t.rule != nil {
			d.Reason = t.rule.Name
		}
		if !t.keep && !r.DryRun {
			err := r.store.DeleteTag(ctx, r.name, t.tag, func(_ string, current digest.Digest) error {
				if current != t.digest {
					return errMoved
				}
				return nil
			})
			switch {
			case errors.Is(err, errMoved):
				t.keep, d.Keep, d.Reason = true, true, ReasonUsed
			case err != nil && !errors.Is(err, registry.ErrManifestUnknown) && !errors.Is(err, registry.ErrNameUnknown):
				return err
			}
		}
		if !t.keep {
			r.report.Tags++
		}
		r.decided(d)
	}
	return nil
}

// mark finds out which manifests are kept, and why.
func (r *repo) mark(context.Context) error {
	for _, t := range r.tags {
		r.pause()
		if m, ok := r.manifests[t.digest]; ok && t.keep {
			r.keep(m, ReasonLive, ReasonLive)
		}
	}
	var untagged []*thing
	for _, m := range r.order {
		r.pause()
		if m.reason == "" {
			_, hasSubject := r.manifests[m.subject]
			untagged = append(untagged, &thing{digest: m.digest, time: m.time, dangling: m.subject != "" && !hasSubject})
		}
	}
	r.decide(untagged)
	for _, t := range untagged {
		r.pause()
		m := r.manifests[t.digest]
		switch {
		case t.rule != nil && t.keep:
			r.keep(m, t.rule.Name, ReasonNamed)
		case t.rule != nil:
			m.rule = t.rule.Name
		case t.rule == nil && r.KeepUntagged:
			r.keep(m, ReasonNoRule, ReasonNamed)
		}
	}
	for _, t := range untagged {
		r.pause()
		if m := r.manifests[t.digest]; m.reason == "" && !m.time.Before(r.since) {
			r.report.Young++
			r.keep(m, ReasonYoung, ReasonNamed)
		}
	}
	return nil
}

// keep keeps a manifest for a reason, and what it leads to for another one.
func (r *repo) keep(m *manifest, reason, reasonOfOthers string) {
	if m.reason != "" {
		return
	}
	m.reason = reason
	for todo := []*manifest{m}; len(todo) > 0; {
		m, todo = todo[len(todo)-1], todo[:len(todo)-1]
		for _, n := range append(r.children(m), r.referrers[m.digest]...) {
			if n.reason == "" {
				n.reason = reasonOfOthers
				todo = append(todo, n)
			}
		}
	}
}

// deleteManifests deletes garbage, level by level: manifests that no other leads to, then
// those that only they led to. If the store keeps one because it was used meanwhile, all
// that it leads to is kept.
func (r *repo) deleteManifests(ctx context.Context) error {
	for _, m := range r.order {
		r.pause()
		if m.reason == "" {
			for _, child := range r.children(m) {
				child.leading++
				child.naming++
			}
			for _, referrer := range r.referrersAfter(m) {
				referrer.leading++
			}
		}
	}
	cyclic := false // a referrer that leads to its own subject, by others, is left
	level := r.ready(nil, r.order, cyclic)
	for {
		if len(level) == 0 && !cyclic {
			cyclic = true
			level = r.ready(nil, r.order, cyclic)
		}
		if len(level) == 0 {
			break
		}
		var next []*manifest
		for len(level) > 0 {
			r.pause()
			n := min(batch, len(level))
			gone, err := r.deleteSome(ctx, level[:n])
			if err != nil {
				return err
			}
			level = level[n:]
			for _, m := range gone {
				children, referrers := r.children(m), r.referrersAfter(m)
				for _, child := range children {
					child.leading--
					child.naming--
				}
				for _, referrer := range referrers {
					referrer.leading--
				}
				next = r.ready(r.ready(next, children, cyclic), referrers, cyclic)
			}
		}
		level = next
	}
	for _, m := range r.order {
		r.pause()
		if !m.gone {
			r.decided(Decision{Repository: r.name, Digest: m.digest, Size: m.size, Keep: true, Reason: m.reason})
		}
	}
	return nil
}

// ready adds those to a level that can be deleted now.
func (r *repo) ready(level, some []*manifest, cyclic bool) []*manifest {
	for _, m := range some {
		r.pause()
		if m.reason == "" && !m.asked && m.naming == 0 && (m.leading == 0 || cyclic) {
			m.asked = true
			level = append(level, m)
		}
	}
	return level
}

// children returns the manifests of the repository that m names.
func (r *repo) children(m *manifest) []*manifest {
	var all []*manifest
	for _, d := range m.manifests {
		if child, ok := r.manifests[d]; ok {
			all = append(all, child)
		}
	}
	return all
}

// referrersAfter returns the referrers of m that are deleted after it. An index that names
// its own subject is deleted before.
func (r *repo) referrersAfter(m *manifest) []*manifest {
	var after []*manifest
	for _, referrer := range r.referrers[m.digest] {
		if !slices.Contains(referrer.manifests, m.digest) {
			after = append(after, referrer)
		}
	}
	return after
}

// deleteSome deletes manifests, and returns those that do not exist any more.
func (r *repo) deleteSome(ctx context.Context, some []*manifest) (gone []*manifest, err error) {
	var digests []digest.Digest
	for _, m := range some {
		if m.reason == "" { // or another of its level, a referrer's subject, was kept
			digests = append(digests, m.digest)
		}
	}
	deleted, err := r.collect(ctx, digests, r.store.CollectManifests)
	if err != nil {
		return nil, err
	}
	for _, d := range digests {
		m := r.manifests[d]
		if !deleted[d] {
			r.report.Young++
			r.keep(m, ReasonUsed, ReasonUsed)
			continue
		}
		m.gone = true
		gone = append(gone, m)
		r.report.Manifests++
		r.report.Bytes += m.size
		r.decided(Decision{Repository: r.name, Digest: d, Size: m.size, Reason: cmp.Or(m.rule, ReasonGarbage)})
	}
	return gone, nil
}

// collect has the store delete content, and returns that which was deleted. With
// DryRun, it deletes nothing and returns all of it.
func (r *repo) collect(ctx context.Context, content []digest.Digest, f func(context.Context, string, []digest.Digest, time.Time) ([]registry.Info, error)) (map[digest.Digest]bool, error) {
	deleted := make(map[digest.Digest]bool, len(content))
	if r.DryRun {
		for _, d := range content {
			deleted[d] = true
		}
		return deleted, nil
	}
	if len(content) == 0 {
		return deleted, nil
	}
	infos, err := f(ctx, r.name, content, r.since)
	for _, info := range infos {
		deleted[info.Digest] = true
	}
	return deleted, err
}

// deleteBlobs deletes the blobs that no kept manifest names.
func (r *repo) deleteBlobs(ctx context.Context) error {
	clear(r.named)
	for _, m := range r.order {
		r.pause()
		if m.reason != "" {
			for _, blob := range m.blobs {
				r.named[blob] = struct{}{}
			}
		}
	}
	var garbage []registry.Info
	flush := func() error {
		digests := make([]digest.Digest, len(garbage))
		for i, info := range garbage {
			digests[i] = info.Digest
		}
		deleted, err := r.collect(ctx, digests, r.store.CollectBlobs)
		for _, info := range garbage {
			d := Decision{Repository: r.name, Digest: info.Digest, Blob: true, Size: info.Size, Keep: true, Reason: ReasonUsed}
			if deleted[info.Digest] {
				d.Keep, d.Reason = false, ReasonGarbage
				r.report.Blobs++
				r.report.Bytes += info.Size
			} else {
				r.report.Young++
			}
			r.decided(d)
		}
		garbage = garbage[:0]
		return err
	}
	for info, err := range r.store.Blobs(ctx, r.name, "") {
		r.pause()
		if err != nil {
			return err
		}
		d := Decision{Repository: r.name, Digest: info.Digest, Blob: true, Size: info.Size, Keep: true, Reason: ReasonNamed}
		_, named := r.named[maphash.String(r.seed, string(info.Digest))]
		switch {
		case named:
			r.decided(d)
		case !info.Time.Before(r.since):
			d.Reason = ReasonYoung
			r.report.Young++
			r.decided(d)
		default:
			if garbage = append(garbage, info); len(garbage) == batch {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}
