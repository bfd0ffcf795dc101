// SPDX-License-Identifier: Apache-2.0

// The last versions of an index.json, for merges.

package ocidir

import (
	"maps"
	"slices"
	"time"
)

// version is a state of index.json from which another tool may have begun.
type version struct {
	*layout
	from, to time.Time       // when it was in place
	touched  map[string]bool // the tags that changed from the version before
}

const (
	// versionLife is how long versions are kept: a tool may take that long to
	// copy an image, from reading index.json to writing it.
	versionLife = 15 * time.Minute

	// The number of versions is at most maxVersions, and fewer for a repository
	// with more than maxVersionSize manifests in all of them.
	maxVersions    = 16
	maxVersionSize = 100_000
)

// quickEdit is how long a tool may take that adds no manifest: to delete or to move
// a tag.
const quickEdit = 10 * time.Second

// keepVersion remembers a version of index.json, which is in place.
func (r *repo) keepVersion(l *layout) {
	now := time.Now()
	if n := len(r.versions); n > 0 {
		if r.versions[n-1].to = now; r.versions[n-1].hash == l.hash {
			return
		}
	}
	r.versions = append(r.versions, version{l, now, now, r.touched})
	r.touched = nil
	limit := min(maxVersions, max(4, maxVersionSize/max(1, l.content.Len())))
	for len(r.versions) > limit {
		r.forgetVersion()
	}
}

// touch notes that tags have changed.
func (r *repo) touch(records []record) {
	for _, record := range records {
		for _, tag := range record.Tags {
			if r.touched == nil {
				r.touched = make(map[string]bool)
			}
			r.touched[tag] = true
		}
	}
}

// forgetVersion forgets the version, except the oldest and the newest, whose
// neighbours are the closest in time.
func (r *repo) forgetVersion() {
	v := r.versions
	closest := 1
	for i := 2; i < len(v)-1; i++ {
		if v[i+1].from.Sub(v[i-1].to) < v[closest+1].from.Sub(v[closest-1].to) {
			closest = i
		}
	}
	next := &v[closest+1]
	next.touched = union(v[closest].touched, next.touched)
	r.versions = slices.Delete(v, closest, closest+1)
}

// union returns the elements of both sets.
func union(a, b map[string]bool) map[string]bool {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]bool)
	}
	maps.Copy(all, b)
	return all
}

// forgetVersions forgets the versions that were replaced too long ago.
func (r *repo) forgetVersions(now time.Time) {
	if n := len(r.versions); n > 0 && r.current != nil && r.current.hash == r.versions[n-1].hash {
		r.versions[n-1].to = now
	}
	r.versions = slices.DeleteFunc(r.versions, func(v version) bool { return now.Sub(v.to) > versionLife })
}

// mergeBase returns the version that another tool has read before it wrote theirs,
// and the tags that were changed since: that with the fewest differences, since a
// tool keeps what it does not change. A tool that adds no manifest has read one that
// was in place shortly before.
//
// If versions between two were forgotten, the tool may have read one of them: the
// earlier one is taken.
func mergeBase(versions []version, theirs *layout) (base *layout, touched map[string]bool) {
	first := 0
	if newest := versions[len(versions)-1]; !addsManifest(newest.layout, theirs) {
		limit := theirs.info.ModTime().Add(-quickEdit)
		for first < len(versions)-1 && versions[first+1].from.Before(limit) {
			first++
		}
	}
	best, fewest := -1, 0
	for i := len(versions) - 1; i >= first; i-- {
		if n := difference(versions[i].layout, theirs); best < 0 || n < fewest {
			best, fewest = i, n
		}
	}
	if fewest > 0 && best > first && versions[best].from.Sub(versions[best-1].to) > 0 {
		best--
	}
	for _, v := range versions[best+1:] {
		touched = union(touched, v.touched)
	}
	return versions[best].layout, touched
}

// addsManifest reports whether theirs has a manifest that l lacks.
func addsManifest(l, theirs *layout) bool {
	for d := range theirs.allManifests() {
		if !l.uses(d).has(asManifest) {
			return true
		}
	}
	return false
}
