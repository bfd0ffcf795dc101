// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/redact"
)

// Finding is a violation of the distribution-spec by a client.
type Finding struct {
	// Entry is the request that violates the spec.
	Entry Entry
	// Section is the section of the spec that states the requirement.
	Section string
	// Must is set if the requirement is a MUST or MUST NOT; otherwise it is a
	// SHOULD or SHOULD NOT.
	Must bool
	// Text describes the violation.
	Text string
}

// String returns the finding as one line: the request, the violation, the level
// and section of the requirement.
func (f Finding) String() string {
	level := "SHOULD"
	if f.Must {
		level = "MUST"
	}
	return fmt.Sprintf("%s %s: %s (%s, %s)", f.Entry.Method, redact.Printable(f.Entry.Path), redact.Printable(f.Text), level, f.Section)
}

// Lint checks the recorded requests against the distribution-spec's requirements
// on clients, and returns the violations in the order of the requests. It checks
// the requirements whose violation a registry can see:
//
//   - manifests: Accept and Content-Type, and the referrers tag if the registry
//     does not support referrers;
//   - blobs: Content-Type and Content-Range, the order and size of chunks, the
//     digest and its algorithm, uploads left open;
//   - the Location of uploads and the Link of lists: see IgnoredLocations and
//     IgnoredLinks;
//   - credentials sent to the target of a redirect.
//
// Call it when the client has finished: an upload in progress is reported as
// abandoned. To fail a test on any finding:
//
//	for _, finding := range journal.Lint() {
//		t.Error(finding)
//	}
func (j *Journal) Lint() []Finding {
	l := linter{entries: j.Entries()}
	for i, e := range l.entries {
		l.checkManifest(i, e)
		l.checkBody(e)
		l.checkUpload(i, e)
		l.checkReferrers(i, e)
		l.checkRedirect(i, e)
	}
	for _, e := range j.IgnoredLocations() {
		l.add(e, `"POST then PUT"`, false, "ignores the session's Location")
	}
	for _, e := range j.IgnoredLinks() {
		l.add(e, `"Listing Tags"`, false, "ignores the Link of the preceding page")
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int { return a.Entry.Number - b.Entry.Number })
	return l.findings
}

type linter struct {
	entries  []Entry
	findings []Finding
}

func (l *linter) add(e Entry, section string, must bool, format string, args ...any) {
	l.findings = append(l.findings, Finding{e, section, must, fmt.Sprintf(format, args...)})
}

// checkManifest checks the pull or push of a manifest.
func (l *linter) checkManifest(i int, e Entry) {
	switch e.Op {
	case registry.OpManifestGet, registry.OpManifestHead:
		if e.accept == "" || e.accept == "*/*" {
			l.add(e, `"Pulling manifests"`, false, "no Accept with the supported media types")
		}
	case registry.OpManifestPut:
		mediaType, params, _ := strings.Cut(e.contentType, ";")
		switch {
		case mediaType == "":
			l.add(e, `"Pushing Manifests"`, false, "no Content-Type")
		case params != "":
			l.add(e, `"Pushing Manifests"`, false, "Content-Type has parameters")
		}
		if mediaType != "" && e.mediaType != "" && mediaType != e.mediaType {
			l.add(e, `"Pushing Manifests"`, true, "Content-Type differs from the manifest's mediaType")
		}
		if e.subject == "" || e.Status != http.StatusCreated || e.ociSubject != "" {
			return
		}
		// The registry does not support referrers: the client must update the
		// list.
		if !l.anyLater(i, func(later Entry) bool {
			return later.Op == registry.OpManifestPut && later.Repo == e.Repo && later.Tag == referrersTag(e.subject)
		}) {
			l.add(e, `"Pushing Manifests with Subject"`, true, "no OCI-Subject in the response, and no push of the referrers tag follows")
		}
	}
}

// referrersTag returns the tag of a subject's referrers list (section "Referrers
// Tag Schema").
func referrersTag(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// anyLater reports whether a request after the one at index i matches.
func (l *linter) anyLater(i int, match func(Entry) bool) bool {
	return slices.ContainsFunc(l.entries[i+1:], match)
}

var specRange = regexp.MustCompile(`^[0-9]+-[0-9]+$`)

// checkBody checks a request that pushes a blob or a chunk of one.
func (l *linter) checkBody(e Entry) {
	switch e.Op {
	case registry.OpBlobPush, registry.OpUploadPatch, registry.OpUploadPut:
	default:
		return
	}
	if e.Received > 0 && e.contentType != "application/octet-stream" {
		l.add(e, pushSection(e.Op), false, "content of a blob has Content-Type %q", e.contentType)
	}
	if e.Op == registry.OpUploadPut && e.Digest == "" {
		l.add(e, `"Pushing a blob in chunks"`, true, "closing PUT without a digest")
	}
	if e.Op == registry.OpUploadPatch && e.ContentRange == "" && e.Received > 0 {
		l.add(e, `"Pushing a blob in chunks"`, false, "chunk without a Content-Range")
	}
	if e.ContentRange != "" && !specRange.MatchString(e.ContentRange) {
		l.add(e, `"Pushing a blob in chunks"`, true, "malformed Content-Range %q, want the form 0-9", e.ContentRange)
	}
}

// pushSection returns the section of the spec on a way to push a blob.
func pushSection(op registry.Op) string {
	switch op {
	case registry.OpBlobPush:
		return `"Single POST"`
	case registry.OpUploadPut:
		return `"POST then PUT"`
	}
	return `"Pushing a blob in chunks"`
}

// checkUpload checks an upload session from the request that opened it.
func (l *linter) checkUpload(i int, e Entry) {
	opens := e.Op == registry.OpUploadStart || e.Op == registry.OpBlobMount || e.Op == registry.OpBlobPush
	u, err := url.Parse(e.Location)
	if !opens || e.Status != http.StatusAccepted || err != nil {
		return
	}
	id := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	var acknowledged int64 // bytes
	var chunks []Entry
	closed := false
	for _, later := range l.entries[i+1:] {
		if later.UploadID != id {
			continue
		}
		start, _, _ := strings.Cut(later.ContentRange, "-")
		if n, err := strconv.ParseInt(start, 10, 64); err == nil && n > acknowledged {
			l.add(later, `"Pushing a blob in chunks"`, true, "chunk at byte %d, but the registry has %d bytes", n, acknowledged)
		}
		switch later.Op {
		case registry.OpUploadPatch:
			if later.Status == http.StatusAccepted {
				acknowledged += later.Received
				chunks = append(chunks, later)
			}
		case registry.OpUploadPut:
			if later.Status == http.StatusCreated {
				if later.Received > 0 {
					chunks = append(chunks, later)
				}
				if a := later.Digest.Algorithm(); a != digest.SHA256 && e.Op == registry.OpUploadStart && e.Algorithm != a {
					l.add(e, `"Pushing a blob in chunks"`, false, "no digest-algorithm, but the blob has a %s digest", a)
				}
				closed = true
			}
		case registry.OpUploadCancel:
			closed = true
		}
	}
	for n, c := range chunks {
		if n < len(chunks)-1 && c.Received < e.chunkMin {
			l.add(c, `"Pushing a blob in chunks"`, false, "chunk of %d bytes is smaller than OCI-Chunk-Min-Length %d", c.Received, e.chunkMin)
		}
	}
	if !closed {
		l.add(e, `"Cancel a blob upload"`, false, "upload is neither completed nor cancelled")
	}
}

// checkReferrers checks a request for referrers that the registry does not
// support.
func (l *linter) checkReferrers(i int, e Entry) {
	if e.Op != registry.OpReferrers || e.Status != http.StatusNotFound {
		return
	}
	if !l.anyLater(i, func(later Entry) bool {
		return (later.Op == registry.OpManifestGet || later.Op == registry.OpManifestHead) && later.Repo == e.Repo && later.Tag == referrersTag(e.Digest)
	}) {
		l.add(e, `"Unavailable Referrers API"`, true, "404 response, and no pull of the referrers tag follows")
	}
}

// checkRedirect checks the request that follows a redirect to another host.
func (l *linter) checkRedirect(i int, e Entry) {
	u, err := url.Parse(e.Location)
	if e.Status < 300 || e.Status > 399 || err != nil || u.Host == "" || u.Host == e.Host || e.Auth == "" {
		return
	}
	for _, later := range l.entries[i+1:] {
		switch {
		case later.Host != u.Host:
		case later.Auth != "" && later.target == u.RequestURI():
			l.add(later, `"API"`, true, "credentials for %s sent to the target of its redirect", e.Host)
			return
		case later.Status == http.StatusUnauthorized:
			return // the host requests credentials of its own
		}
	}
}
