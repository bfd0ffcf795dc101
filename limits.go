// SPDX-License-Identifier: Apache-2.0

// The limits of requests, and of a MemStore.

package registry

import "time"

// Limits bounds requests and responses. A request that exceeds a limit is
// rejected in full; the error names the limit. A zero field means its default.
type Limits struct {
	// ManifestBytes is the size of the largest manifest: 4 MiB by default, the
	// minimum that the spec demands (section "Pushing Manifests"). A larger one
	// is rejected with 413.
	ManifestBytes int64

	// BlobBytes is the size of the largest blob; unlimited by default. A larger
	// one is rejected with 413.
	BlobBytes int64

	// PageNames is the maximum number of names in a response of the tag list
	// and the catalog; unlimited by default. Some clients (cuelabs' ociclient,
	// which requests 1,000) treat a page with fewer names than they requested
	// as the last, despite its Link.
	PageNames int

	// ReferrersBytes is the size of the largest response of the referrers
	// list: 4 MiB by default. A response with one descriptor may exceed it.
	ReferrersBytes int

	// InFlightBytes bounds the memory that manifests and lists of all requests
	// in progress take together. By default it is an eighth of the limit of a
	// [MemStore] that the registry serves, and at least enough for one manifest
	// of ManifestBytes; unlimited for other stores. A request that would exceed
	// it is rejected with 429.
	InFlightBytes int64
}

func (l Limits) manifestBytes() int64 {
	if l.ManifestBytes > 0 {
		return l.ManifestBytes
	}
	return 4 << 20
}

func (l Limits) referrersBytes() int {
	if l.ReferrersBytes > 0 {
		return l.ReferrersBytes
	}
	return 4 << 20
}

// MemLimits bounds a [MemStore]. A zero field means its default.
type MemLimits struct {
	// TotalBytes bounds the bytes that the store holds, uploads in progress and
	// a share for each name included; unlimited by default. Content that would
	// exceed it is rejected with ErrTooLarge.
	TotalBytes int64

	// MemoryBytes is the part of TotalBytes that may be in memory; all of it by
	// default. Blobs of a MiB and more that arrive when half of it is used are
	// kept in temporary files, which have no name and disappear with the
	// process. Content that must be in memory and would exceed it is rejected
	// with ErrTooLarge. It requires a system on which an open file can be
	// removed.
	MemoryBytes int64

	// Collect, unless nil, is called before content is rejected because it would
	// exceed TotalBytes or MemoryBytes, to delete content that nobody needs. If it
	// returns true, it has freed memory. The push waits for it. Several pushes may
	// call it at once. See retention.Evict.
	Collect func() bool

	// Uploads is the maximum number of uploads in progress; unlimited by
	// default. A further one is rejected with ErrTooManyUploads.
	Uploads int

	// UploadIdle is how long an upload is kept while no request uses it: one
	// hour by default.
	UploadIdle time.Duration
}

// memory returns the number of bytes that the store may have in memory, 0 if it
// is unlimited.
func (l MemLimits) memory() int64 {
	if l.MemoryBytes > 0 && (l.TotalBytes <= 0 || l.MemoryBytes < l.TotalBytes) {
		return l.MemoryBytes
	}
	return max(l.TotalBytes, 0)
}

func (l MemLimits) uploadIdle() time.Duration {
	if l.UploadIdle > 0 {
		return l.UploadIdle
	}
	return time.Hour
}
