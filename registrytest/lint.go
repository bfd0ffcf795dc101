// SPDX-License-Identifier: Apache-2.0

package registrytest

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
)

// Finding is something that the spec asks of clients and a client did not do.
type Finding struct {
	// Entry is the request, or the last one that shows it.
	Entry Entry
	// Section is the spec's, or an RFC's.
	Section string
	// Must tells a MUST or MUST NOT from a SHOULD or SHOULD NOT.
	Must bool
	// Text says what was wrong.
	Text string
}

// String returns the finding as a line.
func (f Finding) String() string {
	level := "SHOULD"
	if f.Must {
		level = "MUST"
	}
	return fmt.Sprintf("%s %s: %s (%s, %s)", f.Entry.Method, f.Entry.Path, f.Text, level, f.Section)
}

// Lint returns what the client did against the distribution-spec's demands on
// clients, as far as a registry can see it, in the order of the requests.
func (j *Journal) Lint() []Finding {
	l := linter{entries: j.Entries()}
	for i, e := range l.entries {
		l.manifest(i, e)
		l.chunk(i, e)
		l.upload(i, e)
		l.referrers(i, e)
		l.redirect(i, e)
	}
	for _, e := range j.LocationsChanged() {
		l.add(e, `"POST then PUT"`, false, "not the Location that the registry gave")
	}
	for _, e := range j.LinksChanged() {
		l.add(e, `"Listing Tags"`, false, "not the Link that the registry gave")
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int { return a.Entry.number - b.Entry.number })
	return l.findings
}

type linter struct {
	entries  []Entry
	findings []Finding
}

func (l *linter) add(e Entry, section string, must bool, format string, args ...any) {
	l.findings = append(l.findings, Finding{e, section, must, fmt.Sprintf(format, args...)})
}

// manifest looks at the pull or push of a manifest.
func (l *linter) manifest(i int, e Entry) {
	switch e.Op {
	case registry.OpManifestGet, registry.OpManifestHead:
		if e.accept == "" || e.accept == "*/*" {
			l.add(e, `"Pulling manifests"`, false, "no Accept that says which manifests the client supports")
		}
	case registry.OpManifestPut:
		mediaType, params, _ := strings.Cut(e.contentType, ";")
		switch {
		case mediaType == "":
			l.add(e, `"Pushing Manifests"`, false, "no Content-Type")
		case params != "":
			l.add(e, `"Pushing Manifests"`, false, "a Content-Type with parameters")
		}
		if mediaType != "" && e.mediaType != "" && mediaType != e.mediaType {
			l.add(e, `"Pushing Manifests"`, true, "its Content-Type is not the manifest's mediaType")
		}
		if e.subject == "" || e.Status != http.StatusCreated || e.ociSubject != "" {
			return
		}
		// What follows must update the list that the registry doesn't keep.
		if !l.later(i, func(later Entry) bool {
			return later.Op == registry.OpManifestPut && later.Repo == e.Repo && later.Tag == referrersTag(e.subject)
		}) {
			l.add(e, `"Pushing Manifests with Subject"`, true, "no OCI-Subject, and no push of the referrers tag after it")
		}
	}
}

// referrersTag is the tag of section "Referrers Tag Schema".
func referrersTag(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

func (l *linter) later(i int, match func(Entry) bool) bool {
	return slices.ContainsFunc(l.entries[i+1:], match)
}

var specRange = regexp.MustCompile(`^[0-9]+-[0-9]+$`)

// chunk looks at the body of a blob, or of a part of one.
func (l *linter) chunk(_ int, e Entry) {
	switch e.Op {
	case registry.OpBlobPush, registry.OpUploadPatch, registry.OpUploadPut:
	default:
		return
	}
	if e.Received > 0 && e.contentType != "application/octet-stream" {
		l.add(e, section(e.Op), false, "a blob's bytes with Content-Type %q", e.contentType)
	}
	if e.Op == registry.OpUploadPut && e.Digest == "" {
		l.add(e, `"Pushing a blob in chunks"`, true, "no digest in the closing PUT")
	}
	if e.Op == registry.OpUploadPatch && e.ContentRange == "" && e.Received > 0 {
		l.add(e, `"Pushing a blob in chunks"`, false, "a chunk without Content-Range")
	}
	if e.ContentRange != "" && !specRange.MatchString(e.ContentRange) {
		l.add(e, `"Pushing a blob in chunks"`, true, "Content-Range %q has not the form of 0-9", e.ContentRange)
	}
}

func section(op registry.Op) string {
	switch op {
	case registry.OpBlobPush:
		return `"Single POST"`
	case registry.OpUploadPut:
		return `"POST then PUT"`
	}
	return `"Pushing a blob in chunks"`
}

// upload looks at a session from the request that opened it.
func (l *linter) upload(i int, e Entry) {
	opens := e.Op == registry.OpUploadStart || e.Op == registry.OpBlobMount || e.Op == registry.OpBlobPush
	u, err := url.Parse(e.Location)
	if !opens || e.Status != http.StatusAccepted || err != nil {
		return
	}
	id := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	var sent int64 // bytes acknowledged
	var chunks []Entry
	closed := false
	for _, later := range l.entries[i+1:] {
		if later.UploadID != id {
			continue
		}
		start, _, _ := strings.Cut(later.ContentRange, "-")
		if n, err := strconv.ParseInt(start, 10, 64); err == nil && n > sent {
			l.add(later, `"Pushing a blob in chunks"`, true, "a chunk at byte %d, when the registry has %d", n, sent)
		}
		switch later.Op {
		case registry.OpUploadPatch:
			if later.Status == http.StatusAccepted {
				sent += later.Received
				chunks = append(chunks, later)
			}
		case registry.OpUploadPut:
			if later.Status == http.StatusCreated {
				if later.Received > 0 {
					chunks = append(chunks, later)
				}
				if a := later.Digest.Algorithm(); a != digest.SHA256 && e.Op == registry.OpUploadStart && e.Algorithm != a {
					l.add(e, `"Pushing a blob in chunks"`, false, "no digest-algorithm for a blob that is then named by %s", a)
				}
				closed = true
			}
		case registry.OpUploadCancel:
			closed = true
		}
	}
	for n, c := range chunks {
		if n < len(chunks)-1 && c.Received < e.chunkMin {
			l.add(c, `"Pushing a blob in chunks"`, false, "a chunk of %d bytes, when OCI-Chunk-Min-Length is %d", c.Received, e.chunkMin)
		}
	}
	if !closed {
		l.add(e, `"Cancel a blob upload"`, false, "an upload that is neither closed nor cancelled")
	}
}

// referrers looks at a query that the registry does not know.
func (l *linter) referrers(i int, e Entry) {
	if e.Op != registry.OpReferrers || e.Status != http.StatusNotFound {
		return
	}
	if !l.later(i, func(later Entry) bool {
		return (later.Op == registry.OpManifestGet || later.Op == registry.OpManifestHead) && later.Repo == e.Repo && later.Tag == referrersTag(e.Digest)
	}) {
		l.add(e, `"Unavailable Referrers API"`, true, "404, and no pull of the referrers tag after it")
	}
}

// redirect looks at what follows a redirect to another host.
func (l *linter) redirect(i int, e Entry) {
	u, err := url.Parse(e.Location)
	if e.Status < 300 || e.Status > 399 || err != nil || u.Host == "" || u.Host == e.Host || e.Auth == "" {
		return
	}
	for _, later := range l.entries[i+1:] {
		switch {
		case later.Host != u.Host:
		case later.Auth != "" && later.target == u.RequestURI():
			l.add(later, `"API"`, true, "credentials for %s, to where it redirected", e.Host)
			return
		case later.Status == http.StatusUnauthorized:
			return // it asks for credentials of its own
		}
	}
}
