// SPDX-License-Identifier: Apache-2.0

// The last versions of an index.json, for merges.

package ocidir

import (
	"slices"
	"time"
)

// version is a state of index.json from which another tool may have begun.
type version struct {
	*layout
	at       time.Time // when it was read or written
	afterGap bool      // versions before it were forgotten
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

// keepVersion remembers a version of index.json.
func (r *repo) keepVersion(l *layout) {
	if n := len(r.versions); n > 0 && r.versions[n-1].hash == l.hash {
		return
	}
	r.versions = append(r.versions, version{layout: l, at: time.Now()})
	limit := min(maxVersions, max(4, maxVersionSize/max(1, l.content.Len())))
	for len(r.versions) > limit {
		r.forgetVersion()
	}
}

// forgetVersion forgets the version, except the oldest and the newest, whose
// neighbours are the closest in time.
func (r *repo) forgetVersion() {
	v := r.versions
	closest := 1
	for i := 2; i < len(v)-1; i++ {
		if v[i+1].at.Sub(v[i-1].at) < v[closest+1].at.Sub(v[closest-1].at) {
			closest = i
		}
	}
	v[closest+1].afterGap = true
	r.versions = slices.Delete(v, closest, closest+1)
}

// forgetVersions forgets the versions that are too old.
func (r *repo) forgetVersions(now time.Time) {
	r.versions = slices.DeleteFunc(r.versions, func(v version) bool { return now.Sub(v.at) > versionLife })
}

// mergeBase returns the version that another tool has read before it wrote theirs:
// that with the fewest differences, since a tool keeps what it does not change. If
// it may have read one in a gap before that, mergeBase returns the one before the
// gap: the changes since then are repeated.
func mergeBase(versions []version, theirs *layout) *layout {
	best, fewest := -1, 0
	for i := len(versions) - 1; i >= 0; i-- {
		if n := difference(versions[i].layout, theirs); best < 0 || n < fewest {
			best, fewest = i, n
		}
	}
	if versions[best].afterGap && best > 0 && fewest > 0 {
		best--
	}
	return versions[best].layout
}
