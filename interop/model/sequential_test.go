// SPDX-License-Identifier: Apache-2.0

// A sequential model check: each response must be exactly as predicted by a model
// that consists of a few maps.

package model

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// machine is the model of a registry, and a client of the real one. Its exported
// methods are Check and the actions that rapid selects from.
type machine struct {
	c     *client
	finds bool // whether the store finds the repositories that have a blob
	repos map[string]*repoModel

	sessions []*uploadModel // in progress
	ended    []*uploadModel // published or cancelled
}

type repoModel struct {
	blobs     map[int]bool
	manifests map[int]string // their media types, by index
	tags      map[string]int // the indexes of their manifests
}

type uploadModel struct {
	repo, location string
	data           string
}

func newMachine(c *client, finds bool) *machine {
	c.reset()
	m := &machine{c: c, finds: finds, repos: make(map[string]*repoModel)}
	for _, repo := range sharedRepos {
		m.repos[repo] = &repoModel{make(map[int]bool), make(map[int]string), make(map[string]int)}
	}
	return m
}

// exists reports whether the repository exists, which requires content.
func (r *repoModel) exists() bool { return len(r.blobs)+len(r.manifests) > 0 }

// pick draws an element of a list.
func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func pickRepo(t *rapid.T) string { return pick(t, "repo", sharedRepos...) }

func pickIndex(t *rapid.T, label string, n int) int { return rapid.IntRange(0, n-1).Draw(t, label) }

// checkMissing checks the response to a request for missing content.
func (m *machine) checkMissing(t *rapid.T, a response, repo, code string) {
	t.Helper()
	if !m.repos[repo].exists() {
		code = "NAME_UNKNOWN"
	}
	a.hasError(t, 404, code)
}

// checkHeaders checks headers of a response, given as names and values. The value
// of a header that must be absent is "".
func checkHeaders(t *rapid.T, a response, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := strings.Join(a.header.Values(pairs[i]), ", "); got != pairs[i+1] {
			t.Errorf("%s %s: %d, %s: %q, want %q", a.method, a.url, a.status, pairs[i], got, pairs[i+1])
		}
	}
}

// Blobs

// checkPublished checks the response to a push of the blob i, and adds the blob to
// the model.
func (m *machine) checkPublished(t *rapid.T, a response, repo string, i int) {
	t.Helper()
	if a.hasStatus(t, 201) {
		checkHeaders(t, a, "Location", blobURL(repo, blobPool[i].digest), "Docker-Content-Digest", blobPool[i].digest)
	}
	m.repos[repo].blobs[i] = true
}

func (m *machine) PushBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(blobPool))
	c := request{method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + blobPool[i].digest, body: blobPool[i].data}
	if rapid.IntRange(0, 9).Draw(t, "right") == 0 {
		c.body += "x"
		m.c.do(t, c).hasError(t, 400, "DIGEST_INVALID")
		return
	}
	m.checkPublished(t, m.c.do(t, c), repo, i)
}

func (m *machine) StartUpload(t *rapid.T) {
	repo := pickRepo(t)
	m.checkOpened(t, m.c.do(t, request{method: "POST", url: "/v2/" + repo + "/blobs/uploads/"}), repo)
}

// checkOpened checks the response that opens an upload session, and adds the
// session to the model.
func (m *machine) checkOpened(t *rapid.T, a response, repo string) {
	t.Helper()
	if a.hasStatus(t, 202) {
		checkHeaders(t, a, "Range", "0-0")
		m.sessions = append(m.sessions, &uploadModel{repo: repo, location: a.header.Get("Location")})
	}
}

func (m *machine) pickSession(t *rapid.T) *uploadModel {
	if len(m.sessions) == 0 {
		t.Skip("no session")
	}
	return m.sessions[pickIndex(t, "session", len(m.sessions))]
}

// end moves a session to the ended ones.
func (m *machine) end(u *uploadModel) {
	m.sessions = slices.DeleteFunc(m.sessions, func(x *uploadModel) bool { return x == u })
	m.ended = append(m.ended, u)
}

// rangeHeader returns the Range header that reports the size of the upload.
func (u *uploadModel) rangeHeader() string { return fmt.Sprintf("0-%d", max(len(u.data)-1, 0)) }

// rest returns bytes that complete the upload to one of the blobs, if possible.
func (u *uploadModel) rest(t *rapid.T) string {
	var rests []string
	for _, b := range blobPool {
		if rest, ok := strings.CutPrefix(b.data, u.data); ok {
			rests = append(rests, rest)
		}
	}
	if len(rests) == 0 {
		return "x"
	}
	return pick(t, "rest", rests...)
}

// setContentRange sets a right or wrong Content-Range of a chunk. It returns the
// status of the error that this causes, negated if the header is malformed, or 0.
func (u *uploadModel) setContentRange(t *rapid.T, c *request) int {
	n := len(c.body)
	switch pick(t, "Content-Range", "none", "right", "right", "before", "after", "short", "long", "malformed") {
	case "right":
		c.header = map[string]string{"Content-Range": fmt.Sprintf("%d-%d", len(u.data), len(u.data)+n-1)}
	case "before":
		if len(u.data) > 0 && n > 0 {
			c.header = chunk(len(u.data)-1, n)
			return 416
		}
	case "after":
		if n > 0 {
			c.header = chunk(len(u.data)+1, n)
			return 416
		}
	case "short":
		if n > 1 {
			c.header = chunk(len(u.data), n-1)
			return 400
		}
	case "long":
		if n > 0 {
			c.header = chunk(len(u.data), n+1)
			return 400
		}
	case "malformed":
		c.header = map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/*", len(u.data), len(u.data)+n)}
		return -400
	}
	// An empty upload has no valid Content-Range: "0--1" is malformed.
	if c.header != nil && len(u.data)+n == 0 {
		c.header = nil
	}
	return 0
}

// checkChunkError checks the response to a chunk with a wrong Content-Range. status
// is the result of setContentRange.
func (u *uploadModel) checkChunkError(t *rapid.T, a response, status int) {
	t.Helper()
	switch status {
	case 416:
		a.hasError(t, 416, "BLOB_UPLOAD_INVALID")
		checkHeaders(t, a, "Range", u.rangeHeader(), "Location", u.location)
	case 400:
		a.hasError(t, 400, "SIZE_INVALID")
	case -400:
		a.hasError(t, 400, "UNSUPPORTED")
	}
}

func (m *machine) Patch(t *rapid.T) {
	u := m.pickSession(t)
	body := u.rest(t)
	body = body[:rapid.IntRange(0, len(body)).Draw(t, "n")]
	c := request{method: "PATCH", url: u.location, body: body}
	wantError := u.setContentRange(t, &c)
	a := m.c.do(t, c)
	if wantError != 0 {
		u.checkChunkError(t, a, wantError)
		return
	}
	a.hasStatus(t, 202)
	u.data += body
	checkHeaders(t, a, "Range", u.rangeHeader(), "Location", u.location)
}

func (m *machine) CloseUpload(t *rapid.T) {
	u := m.pickSession(t)
	c := request{method: "PUT", body: pick(t, "body", u.rest(t), "")}
	data := u.data + c.body
	i := slices.IndexFunc(blobPool, func(b blob) bool { return b.data == data })
	// Two blobs may have the same bytes.
	if i >= 0 && rapid.Bool().Draw(t, "other algorithm") {
		for j, b := range blobPool {
			if b.data == data {
				i = j
			}
		}
	}
	d := absentDigest
	if i >= 0 && rapid.IntRange(0, 4).Draw(t, "right") > 0 {
		d = blobPool[i].digest
	}
	c.url = closeURL(u.location, d)
	wantError := u.setContentRange(t, &c)
	a := m.c.do(t, c)
	switch {
	case wantError != 0:
		u.checkChunkError(t, a, wantError)
	case d == absentDigest:
		a.hasError(t, 400, "DIGEST_INVALID")
	default:
		m.checkPublished(t, a, u.repo, i)
		m.end(u)
	}
}

func (m *machine) CancelUpload(t *rapid.T) {
	u := m.pickSession(t)
	m.c.delete(t, u.location).hasStatus(t, 204)
	m.end(u)
}

func (m *machine) UploadStatus(t *rapid.T) {
	u := m.pickSession(t)
	a := m.c.get(t, u.location)
	a.hasStatus(t, 204)
	checkHeaders(t, a, "Range", u.rangeHeader(), "Location", u.location)
}

// UseEndedUpload uses a session that has ended, or one of another repository.
func (m *machine) UseEndedUpload(t *rapid.T) {
	all := slices.Clone(m.ended)
	for _, u := range m.sessions {
		other := pick(t, "other", slices.DeleteFunc(slices.Clone(sharedRepos), func(s string) bool { return s == u.repo })...)
		all = append(all, &uploadModel{other, strings.Replace(u.location, "/v2/"+u.repo+"/", "/v2/"+other+"/", 1), ""})
	}
	if len(all) == 0 {
		t.Skip("no session")
	}
	u := all[pickIndex(t, "session", len(all))]
	c := request{method: pick(t, "method", "GET", "PATCH", "PUT", "DELETE"), url: u.location}
	if c.method == "PUT" {
		c.url = closeURL(c.url, sha(""))
	}
	m.c.do(t, c).hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

func (m *machine) Mount(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(blobPool))
	from := pick(t, "from", append([]string{"", "no/such/repo"}, sharedRepos...)...)
	url := "/v2/" + repo + "/blobs/uploads/?mount=" + blobPool[i].digest
	exists := false
	for name, r := range m.repos {
		exists = exists || r.blobs[i] && (from == "" || from == name)
	}
	if from != "" {
		url += "&from=" + from
	}
	a := m.c.do(t, request{method: "POST", url: url})
	switch {
	case exists && (from != "" || m.finds):
		m.checkPublished(t, a, repo, i)
	default:
		m.checkOpened(t, a, repo)
	}
}

func (m *machine) DeleteBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(blobPool))
	a := m.c.delete(t, blobURL(repo, blobPool[i].digest))
	if !m.repos[repo].blobs[i] {
		m.checkMissing(t, a, repo, "BLOB_UNKNOWN")
		return
	}
	a.hasStatus(t, 202)
	delete(m.repos[repo].blobs, i)
}

func (m *machine) GetBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(blobPool))
	b := blobPool[i]
	size := len(b.data)
	c := request{method: pick(t, "method", "GET", "GET", "HEAD"), url: blobURL(repo, b.digest)}
	status, body := 200, b.data
	first := rapid.IntRange(0, size+1).Draw(t, "first")
	n := rapid.IntRange(1, size+2).Draw(t, "n")
	// An empty blob has no valid Content-Range: "bytes 0--1/0" is malformed.
	part := func(text string, from, to int) {
		c.header = map[string]string{"Range": text}
		switch {
		case c.method == "HEAD" || size == 0: // RFC 9110 section 14.2: the header may be ignored, and must be for HEAD
		case from >= size:
			status, body = 416, ""
		default:
			status, body = 206, b.data[from:min(to, size)]
		}
	}
	switch pick(t, "kind", "all", "range", "from", "suffix", "reversed", "None-Match", "Match", "no Match") {
	case "range":
		part(fmt.Sprintf("bytes=%d-%d", first, first+n-1), first, first+n)
	case "from":
		part(fmt.Sprintf("bytes=%d-", first), first, size)
	case "suffix":
		n-- // a suffix of 0 is not satisfiable: RFC 9110 section 14.1.2
		part(fmt.Sprintf("bytes=-%d", n), max(size-n, 0), size)
	case "None-Match":
		c.header = map[string]string{"If-None-Match": `"` + b.digest + `"`}
		status, body = 304, ""
	case "Match":
		c.header = map[string]string{"If-Match": `"` + b.digest + `"`}
	case "no Match":
		c.header = map[string]string{"If-Match": `"` + absentDigest + `"`}
		status = 412
	}
	a := m.c.do(t, c)
	if !m.repos[repo].blobs[i] {
		m.checkMissing(t, a, repo, "BLOB_UNKNOWN")
		return
	}
	switch status {
	case 412:
		a.hasError(t, 412, "DENIED")
		return
	case 416:
		a.hasError(t, 416, "SIZE_INVALID")
		checkHeaders(t, a, "Content-Range", fmt.Sprintf("bytes */%d", size))
		return
	}
	a.hasStatus(t, status)
	checkHeaders(t, a, "Docker-Content-Digest", b.digest, "Etag", `"`+b.digest+`"`)
	if status == 304 {
		return
	}
	checkHeaders(t, a, "Content-Length", strconv.Itoa(len(body)))
	if c.method == "GET" && a.body != body {
		t.Errorf("%s %v: %d bytes, not the pushed content", c.url, c.header, len(a.body))
	}
}

// Manifests

// condition draws an If-Match or If-None-Match header, or none. holds reports
// whether it is true for the digest that a tag points at, "" for no tag.
func condition(t *rapid.T, c *request) (holds func(current string) bool) {
	header := pick(t, "condition", "", "", "If-Match", "If-None-Match")
	if header == "" {
		return func(string) bool { return true }
	}
	var tags []string
	matches := make(map[string]bool)
	everything := rapid.IntRange(0, 3).Draw(t, "*") == 0
	if everything {
		tags = []string{"*"}
	} else {
		for range rapid.IntRange(1, 3).Draw(t, "etags") {
			d := manifestPool[pickIndex(t, "etag", len(manifestPool))].digest
			tag := `"` + d + `"`
			if rapid.IntRange(0, 4).Draw(t, "weak") == 0 {
				tag = "W/" + tag
				// RFC 9110 section 13.1.1: If-Match compares strongly.
				if header == "If-Match" {
					d = ""
				}
			}
			tags = append(tags, tag)
			matches[d] = true
		}
	}
	c.header[header] = strings.Join(tags, pick(t, "separator", ",", ", "))
	return func(current string) bool {
		match := current != "" && (everything || matches[current])
		return match == (header == "If-Match")
	}
}

// current returns the digest that a tag points at, "" if the tag does not exist.
func (r *repoModel) current(tag string) string {
	if j, ok := r.tags[tag]; ok {
		return manifestPool[j].digest
	}
	return ""
}

func (m *machine) PutManifest(t *rapid.T) {
	repo, j := pickRepo(t), pickIndex(t, "manifest", len(manifestPool))
	r, mf := m.repos[repo], manifestPool[j]
	mediaType := pick(t, "type", mf.mediaTypes...)
	c := request{method: "PUT", url: manifestURL(repo, mf.digest), body: mf.content, header: map[string]string{"Content-Type": mediaType}}
	var tagged []string
	how := pick(t, "how", "tag", "tag", "tag", "digest", "digest with tags", "wrong digest")
	if how == "tag" && !mf.pushableByTag() {
		how = "digest with tags"
	}
	switch how {
	case "tag":
		tagged = []string{pick(t, "tag", tagPool...)}
		c.url = manifestURL(repo, tagged[0])
	case "digest with tags":
		tagged = rapid.SliceOfN(rapid.SampledFrom(tagPool), 1, 3).Draw(t, "tags")
		c.url += "?tag=" + strings.Join(tagged, "&tag=")
	case "wrong digest":
		c.url = manifestURL(repo, absentDigest)
		m.c.do(t, c).hasError(t, 400, "DIGEST_INVALID")
		return
	}
	holds := condition(t, &c)
	allowed := true
	for _, tag := range tagged {
		allowed = allowed && holds(r.current(tag))
	}
	missing := 0
	for _, i := range mf.blobs {
		if !r.blobs[i] {
			missing++
		}
	}
	for _, child := range mf.children {
		if r.manifests[child] == "" {
			missing++
		}
	}
	a := m.c.do(t, c)
	if how == "digest" { // the condition is on the manifest
		current := ""
		if r.manifests[j] != "" {
			current = mf.digest
		}
		if allowed = holds(current); !allowed {
			missing = 0 // the condition is checked first
		}
	}
	switch {
	case missing > 0:
		if a.hasStatus(t, 404) && !slices.Equal(a.codes, slices.Repeat([]string{"MANIFEST_BLOB_UNKNOWN"}, missing)) {
			t.Errorf("%s: %d missing: %s", c.url, missing, a.body)
		}
	case !allowed:
		a.hasError(t, 412, "DENIED")
	case r.manifests[j] != "" && r.manifests[j] != mediaType:
		a.hasError(t, 400, "MANIFEST_INVALID")
	default:
		a.hasStatus(t, 201)
		wantTags := ""
		if how == "digest with tags" {
			wantTags = strings.Join(slices.Compact(slices.Sorted(slices.Values(tagged))), ", ")
		}
		checkHeaders(t, a, "Location", manifestURL(repo, mf.digest), "Docker-Content-Digest", mf.digest,
			"OCI-Subject", mf.subject, "OCI-Tag", wantTags)
		r.manifests[j] = mediaType
		for _, tag := range tagged {
			r.tags[tag] = j
		}
	}
}

// pickReference draws a tag or a digest, and returns the index of its manifest and
// whether the repository has it.
func (m *machine) pickReference(t *rapid.T, repo string) (ref string, j int, exists bool) {
	r := m.repos[repo]
	if rapid.Bool().Draw(t, "by tag") {
		ref = pick(t, "tag", tagPool...)
		j, exists = r.tags[ref]
		return ref, j, exists
	}
	j = pickIndex(t, "manifest", len(manifestPool))
	return manifestPool[j].digest, j, r.manifests[j] != ""
}

func (m *machine) GetManifest(t *rapid.T) {
	repo := pickRepo(t)
	ref, j, exists := m.pickReference(t, repo)
	c := request{method: pick(t, "method", "GET", "HEAD"), url: manifestURL(repo, ref), header: map[string]string{}}
	holds := condition(t, &c)
	a := m.c.do(t, c)
	if !exists {
		m.checkMissing(t, a, repo, "MANIFEST_UNKNOWN")
		return
	}
	mf := manifestPool[j]
	if !holds(mf.digest) {
		if c.header["If-Match"] != "" {
			a.hasError(t, 412, "DENIED")
			return
		}
		a.hasStatus(t, 304)
		checkHeaders(t, a, "Etag", `"`+mf.digest+`"`)
		return
	}
	if got, _ := identify(t, a); got != j || !a.hasStatus(t, 200) {
		t.Errorf("%s: manifest %d, want %d", c.url, got, j)
	}
	checkHeaders(t, a, "Content-Type", m.repos[repo].manifests[j])
}

func (m *machine) DeleteManifest(t *rapid.T) {
	repo := pickRepo(t)
	ref, j, exists := m.pickReference(t, repo)
	c := request{method: "DELETE", url: manifestURL(repo, ref), header: map[string]string{}}
	holds := condition(t, &c)
	a := m.c.do(t, c)
	r := m.repos[repo]
	switch {
	case !exists:
		// RFC 9110 section 13.2.1: conditions are evaluated only if the
		// response would otherwise be a success.
		m.checkMissing(t, a, repo, "MANIFEST_UNKNOWN")
	case !holds(manifestPool[j].digest):
		a.hasError(t, 412, "DENIED")
	default:
		a.hasStatus(t, 202)
		if !strings.Contains(ref, ":") {
			delete(r.tags, ref)
			return
		}
		delete(r.manifests, j)
		maps.DeleteFunc(r.tags, func(_ string, tagged int) bool { return tagged == j })
	}
}

// Lists

// page returns a page of a list, and reports whether more follow.
func page(all []string, last string, n int) (names []string, more bool) {
	names = slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s <= last })
	if n >= 0 && len(names) > n {
		return names[:n], n > 0
	}
	return names, false
}

// pickPage draws the parameters of a page, and returns them and their query.
func pickPage(t *rapid.T, names ...string) (query, last string, n int) {
	last = pick(t, "last", append([]string{"", "!", "b", "t", "zzz"}, names...)...)
	n = pick(t, "n", -1, 0, 1, 2, 3, 100)
	query = "?last=" + strings.ReplaceAll(last, "/", "%2F")
	if n >= 0 {
		query += "&n=" + strconv.Itoa(n)
	}
	return query, last, n
}

// checkPage checks a response with a page: start is the beginning of its JSON.
func checkPage(t *rapid.T, a response, start string, names []string, more bool) {
	t.Helper()
	want := start + "[]}"
	if len(names) > 0 {
		want = start + `["` + strings.Join(names, `","`) + `"]}`
	}
	if a.hasStatus(t, 200) && a.body != want {
		t.Errorf("%s: %s, want %s", a.url, a.body, want)
	}
	if got := nextPage(t, a); (got != "") != more {
		t.Errorf("%s: Link to %q; more pages: %v", a.url, got, more)
	}
}

func (m *machine) ListTags(t *rapid.T) {
	repo := pickRepo(t)
	r := m.repos[repo]
	query, last, n := pickPage(t, tagPool...)
	a := m.c.get(t, "/v2/"+repo+"/tags/list"+query)
	if !r.exists() {
		a.hasError(t, 404, "NAME_UNKNOWN")
		return
	}
	names, more := page(slices.Sorted(maps.Keys(r.tags)), last, n)
	checkPage(t, a, `{"name":"`+repo+`","tags":`, names, more)
}

// existing returns the names of the repositories that exist.
func (m *machine) existing() (repos []string) {
	for name, r := range m.repos {
		if r.exists() {
			repos = append(repos, name)
		}
	}
	slices.Sort(repos)
	return repos
}

func (m *machine) Catalog(t *rapid.T) {
	query, last, n := pickPage(t, sharedRepos...)
	names, more := page(m.existing(), last, n)
	checkPage(t, m.c.get(t, "/v2/_catalog"+query), `{"repositories":`, names, more)
}

// referrers returns the indexes of the manifests with the given subject, in the
// order of their digests.
func (r *repoModel) referrers(subject, artifactType string) (all []int) {
	for j, mf := range manifestPool {
		if r.manifests[j] != "" && mf.subject == subject && (artifactType == "" || mf.listed.ArtifactType == artifactType) {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b int) int { return strings.Compare(manifestPool[a].digest, manifestPool[b].digest) })
	return all
}

func (m *machine) Referrers(t *rapid.T) {
	repo, subject := pickRepo(t), pick(t, "subject", subjects...)
	query := "?x"
	artifactType := ""
	if rapid.Bool().Draw(t, "filter") {
		artifactType = pick(t, "artifactType", "application/vnd.example.one", "application/vnd.example.two", "application/vnd.oci.empty.v1+json", "none")
		query += "&artifactType=" + strings.ReplaceAll(artifactType, "+", "%2B")
	}
	if rapid.Bool().Draw(t, "pages") {
		query += "&n=1"
	}
	listed, pages := m.c.referrers(t, repo, subject, query)
	if want := m.repos[repo].referrers(subject, artifactType); !slices.Equal(listed, want) {
		t.Errorf("%s%s: referrers of %s: %v, want %v", repo, query, subject, listed, want)
	}
	if artifactType != "" {
		checkHeaders(t, pages[0], "OCI-Filters-Applied", "artifactType")
	} else {
		checkHeaders(t, pages[0], "OCI-Filters-Applied", "")
	}
}

// Check compares the lists with the model. It is called after each action.
func (m *machine) Check(t *rapid.T) {
	checkPage(t, m.c.get(t, "/v2/_catalog"), `{"repositories":`, m.existing(), false)
	for repo, r := range m.repos {
		a := m.c.get(t, "/v2/"+repo+"/tags/list")
		if !r.exists() {
			a.hasError(t, 404, "NAME_UNKNOWN")
			continue
		}
		checkPage(t, a, `{"name":"`+repo+`","tags":`, slices.Sorted(maps.Keys(r.tags)), false)
	}
}

// checkAll compares the whole registry with the model.
func (m *machine) checkAll(t *rapid.T) {
	for repo, r := range m.repos {
		for i, b := range blobPool {
			a := m.c.get(t, blobURL(repo, b.digest))
			if !r.blobs[i] {
				m.checkMissing(t, a, repo, "BLOB_UNKNOWN")
			} else if !a.hasStatus(t, 200) || a.body != b.data {
				t.Errorf("%s: not the content that was pushed", a.url)
			}
		}
		for j, mf := range manifestPool {
			a := m.c.get(t, manifestURL(repo, mf.digest))
			if r.manifests[j] == "" {
				m.checkMissing(t, a, repo, "MANIFEST_UNKNOWN")
			} else if got, _ := identify(t, a); got != j || a.header.Get("Content-Type") != r.manifests[j] {
				t.Errorf("%s: %v, want %s", a.url, a.header, r.manifests[j])
			}
		}
		for _, tag := range tagPool {
			a := m.c.get(t, manifestURL(repo, tag))
			if j, ok := r.tags[tag]; !ok {
				m.checkMissing(t, a, repo, "MANIFEST_UNKNOWN")
			} else if got, _ := identify(t, a); got != j {
				t.Errorf("%s: manifest %d, want %d", a.url, got, j)
			}
		}
		for _, subject := range subjects {
			if listed, _ := m.c.referrers(t, repo, subject, ""); !slices.Equal(listed, r.referrers(subject, "")) {
				t.Errorf("%s: referrers of %s: %v, want %v", repo, subject, listed, r.referrers(subject, ""))
			}
		}
	}
	for _, u := range m.sessions {
		a := m.c.get(t, u.location)
		a.hasStatus(t, 204)
		checkHeaders(t, a, "Range", u.rangeHeader())
	}
	for _, u := range m.ended {
		m.c.get(t, u.location).hasError(t, 404, "BLOB_UPLOAD_UNKNOWN")
	}
}

// TestModelSequential runs sequences of requests that rapid generates. After a
// failure, rapid logs how to reproduce it. The test runs in process, since the
// network makes no difference to a sequence.
func TestModelSequential(t *testing.T) {
	// The logged seed is enough to reproduce a failure, and the default of 30
	// steps is short.
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.steps": "100"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	share := *modelTime / time.Duration(3*len(stores))
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			checkGoroutines(t)
			c := newClient(t, stores[name], "in_process")
			// A mount without from may fall back to an upload only if the store
			// has no index of blobs.
			c.pushBlob(t, "probe", "x").hasStatus(t, 201)
			mount := c.do(t, request{method: "POST", url: "/v2/probe/2/blobs/uploads/?mount=" + sha("x")})
			finds := mount.hasStatus(t, 201, 202) && mount.status == 201
			var actions, runs atomic.Int64
			end := time.Now().Add(share)
			for first := true; first || !t.Failed() && time.Now().Before(end); first = false {
				rapid.Check(t, func(t *rapid.T) {
					m := newMachine(c, finds)
					all := rapid.StateMachineActions(m)
					for name, action := range all {
						if name != "" {
							all[name] = func(t *rapid.T) {
								action(t)
								actions.Add(1)
							}
						}
					}
					t.Repeat(all)
					m.checkAll(t)
					runs.Add(1)
				})
			}
			t.Logf("%d operations in %d histories, %d requests in total", actions.Load(), runs.Load(), c.count.Load())
		})
	}
}
