// SPDX-License-Identifier: Apache-2.0

// A model check of one request after the other: each answer is exactly what a
// model of a few maps says.

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

// machine is the model, with the registry that it is the model of. Its methods
// are the actions that rapid picks from, and Check.
type machine struct {
	c     *client
	finds bool // whether the store knows who has a blob
	repos map[string]*repoModel
	// sessions are those that are open, and ended some that are not.
	sessions []*uploadModel
	ended    []*uploadModel
}

type repoModel struct {
	blobs     map[int]bool
	manifests map[int]string // the media types
	tags      map[string]int // the manifests
}

type uploadModel struct {
	repo, location string
	data           string
}

func newMachine(c *client, finds bool) *machine {
	c.renew()
	m := &machine{c: c, finds: finds, repos: make(map[string]*repoModel)}
	for _, repo := range shared {
		m.repos[repo] = &repoModel{make(map[int]bool), make(map[int]string), make(map[string]int)}
	}
	return m
}

// exists reports whether there is such a repository: it holds something.
func (r *repoModel) exists() bool { return len(r.blobs)+len(r.manifests) > 0 }

// pick draws one of a list.
func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

func pickRepo(t *rapid.T) string { return pick(t, "repo", shared...) }

func pickIndex(t *rapid.T, label string, n int) int { return rapid.IntRange(0, n-1).Draw(t, label) }

// refused checks an answer about what is not there.
func (m *machine) refused(t *rapid.T, a answer, repo, code string) {
	t.Helper()
	if !m.repos[repo].exists() {
		code = "NAME_UNKNOWN"
	}
	a.failed(t, 404, code)
}

// headers checks fields of an answer, "" for one that is absent.
func headers(t *rapid.T, a answer, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := strings.Join(a.header.Values(pairs[i]), ", "); got != pairs[i+1] {
			t.Errorf("%s %s: %d, %s: %q, want %q", a.method, a.url, a.status, pairs[i], got, pairs[i+1])
		}
	}
}

// Blobs

func (m *machine) published(t *rapid.T, a answer, repo string, i int) {
	t.Helper()
	if a.is(t, 201) {
		headers(t, a, "Location", blobURL(repo, theBlobs[i].digest), "Docker-Content-Digest", theBlobs[i].digest)
	}
	m.repos[repo].blobs[i] = true
}

func (m *machine) PushBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(theBlobs))
	c := call{method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + theBlobs[i].digest, body: theBlobs[i].data}
	if rapid.IntRange(0, 9).Draw(t, "right") == 0 {
		c.body += "x"
		m.c.do(t, c).failed(t, 400, "DIGEST_INVALID")
		return
	}
	m.published(t, m.c.do(t, c), repo, i)
}

func (m *machine) StartUpload(t *rapid.T) {
	repo := pickRepo(t)
	m.opened(t, m.c.do(t, call{method: "POST", url: "/v2/" + repo + "/blobs/uploads/"}), repo)
}

func (m *machine) opened(t *rapid.T, a answer, repo string) {
	t.Helper()
	if a.is(t, 202) {
		headers(t, a, "Range", "0-0")
		m.sessions = append(m.sessions, &uploadModel{repo: repo, location: a.header.Get("Location")})
	}
}

func (m *machine) pickSession(t *rapid.T) *uploadModel {
	if len(m.sessions) == 0 {
		t.Skip("no session")
	}
	return m.sessions[pickIndex(t, "session", len(m.sessions))]
}

func (m *machine) end(u *uploadModel) {
	m.sessions = slices.DeleteFunc(m.sessions, func(x *uploadModel) bool { return x == u })
	m.ended = append(m.ended, u)
}

// stands returns the Range that tells where an upload is.
func (u *uploadModel) stands() string { return fmt.Sprintf("0-%d", max(len(u.data)-1, 0)) }

// rest returns what may come next, so that some blob comes out at the end.
func (u *uploadModel) rest(t *rapid.T) string {
	var rests []string
	for _, b := range theBlobs {
		if rest, ok := strings.CutPrefix(b.data, u.data); ok {
			rests = append(rests, rest)
		}
	}
	if len(rests) == 0 {
		return "x"
	}
	return pick(t, "rest", rests...)
}

// sized sets the Content-Range of a chunk, rightly or not, and returns the
// status that it gets for that.
func (u *uploadModel) sized(t *rapid.T, c *call) int {
	n := len(c.body)
	switch pick(t, "Content-Range", "none", "right", "right", "before", "behind", "short", "long", "nonsense") {
	case "right":
		c.header = map[string]string{"Content-Range": fmt.Sprintf("%d-%d", len(u.data), len(u.data)+n-1)}
	case "before":
		if len(u.data) > 0 && n > 0 {
			c.header = chunk(len(u.data)-1, n)
			return 416
		}
	case "behind":
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
	case "nonsense":
		c.header = map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/*", len(u.data), len(u.data)+n)}
		return -400
	}
	// An end of -1 can't be said: "0--1" is nonsense.
	if c.header != nil && len(u.data)+n == 0 {
		c.header = nil
	}
	return 0
}

// chunkRefused checks the answer to a chunk that sized had refused.
func (u *uploadModel) chunkRefused(t *rapid.T, a answer, status int) {
	t.Helper()
	switch status {
	case 416:
		a.failed(t, 416, "BLOB_UPLOAD_INVALID")
		headers(t, a, "Range", u.stands(), "Location", u.location)
	case 400:
		a.failed(t, 400, "SIZE_INVALID")
	case -400:
		a.failed(t, 400, "UNSUPPORTED")
	}
}

func (m *machine) Patch(t *rapid.T) {
	u := m.pickSession(t)
	body := u.rest(t)
	body = body[:rapid.IntRange(0, len(body)).Draw(t, "n")]
	c := call{method: "PATCH", url: u.location, body: body}
	refused := u.sized(t, &c)
	a := m.c.do(t, c)
	if refused != 0 {
		u.chunkRefused(t, a, refused)
		return
	}
	a.is(t, 202)
	u.data += body
	headers(t, a, "Range", u.stands(), "Location", u.location)
}

func (m *machine) CloseUpload(t *rapid.T) {
	u := m.pickSession(t)
	c := call{method: "PUT", body: pick(t, "body", u.rest(t), "")}
	data := u.data + c.body
	i := slices.IndexFunc(theBlobs, func(b blob) bool { return b.data == data })
	// There may be two with the same bytes.
	if i >= 0 && rapid.Bool().Draw(t, "other algorithm") {
		for j, b := range theBlobs {
			if b.data == data {
				i = j
			}
		}
	}
	d := nowhere
	if i >= 0 && rapid.IntRange(0, 4).Draw(t, "right") > 0 {
		d = theBlobs[i].digest
	}
	c.url = closeURL(u.location, d)
	refused := u.sized(t, &c)
	a := m.c.do(t, c)
	switch {
	case refused != 0:
		u.chunkRefused(t, a, refused)
	case d == nowhere:
		a.failed(t, 400, "DIGEST_INVALID")
	default:
		m.published(t, a, u.repo, i)
		m.end(u)
	}
}

func (m *machine) CancelUpload(t *rapid.T) {
	u := m.pickSession(t)
	m.c.delete(t, u.location).is(t, 204)
	m.end(u)
}

func (m *machine) UploadStatus(t *rapid.T) {
	u := m.pickSession(t)
	a := m.c.get(t, u.location)
	a.is(t, 204)
	headers(t, a, "Range", u.stands(), "Location", u.location)
}

// UseEndedUpload uses a session that is published or cancelled, or through
// another repository.
func (m *machine) UseEndedUpload(t *rapid.T) {
	all := slices.Clone(m.ended)
	for _, u := range m.sessions {
		other := pick(t, "other", slices.DeleteFunc(slices.Clone(shared), func(s string) bool { return s == u.repo })...)
		all = append(all, &uploadModel{other, strings.Replace(u.location, "/v2/"+u.repo+"/", "/v2/"+other+"/", 1), ""})
	}
	if len(all) == 0 {
		t.Skip("none")
	}
	u := all[pickIndex(t, "session", len(all))]
	c := call{method: pick(t, "method", "GET", "PATCH", "PUT", "DELETE"), url: u.location}
	if c.method == "PUT" {
		c.url = closeURL(c.url, sha(""))
	}
	m.c.do(t, c).failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
}

func (m *machine) Mount(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(theBlobs))
	from := pick(t, "from", append([]string{"", "no/such/repo"}, shared...)...)
	url := "/v2/" + repo + "/blobs/uploads/?mount=" + theBlobs[i].digest
	there := false
	for name, r := range m.repos {
		there = there || r.blobs[i] && (from == "" || from == name)
	}
	if from != "" {
		url += "&from=" + from
	}
	a := m.c.do(t, call{method: "POST", url: url})
	switch {
	case there && (from != "" || m.finds):
		m.published(t, a, repo, i)
	default:
		m.opened(t, a, repo)
	}
}

func (m *machine) DeleteBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(theBlobs))
	a := m.c.delete(t, blobURL(repo, theBlobs[i].digest))
	if !m.repos[repo].blobs[i] {
		m.refused(t, a, repo, "BLOB_UNKNOWN")
		return
	}
	a.is(t, 202)
	delete(m.repos[repo].blobs, i)
}

func (m *machine) GetBlob(t *rapid.T) {
	repo, i := pickRepo(t), pickIndex(t, "blob", len(theBlobs))
	b := theBlobs[i]
	size := len(b.data)
	c := call{method: pick(t, "method", "GET", "GET", "HEAD"), url: blobURL(repo, b.digest)}
	status, body := 200, b.data
	first := rapid.IntRange(0, size+1).Draw(t, "first")
	n := rapid.IntRange(1, size+2).Draw(t, "n")
	// Of nothing, no range can be told: "bytes 0--1/0" is none.
	part := func(text string, from, to int) {
		c.header = map[string]string{"Range": text}
		switch {
		case c.method == "HEAD" || size == 0: // RFC 9110 section 14.2: it may be ignored, for HEAD it is
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
		c.header = map[string]string{"If-Match": `"` + nowhere + `"`}
		status = 412
	}
	a := m.c.do(t, c)
	if !m.repos[repo].blobs[i] {
		m.refused(t, a, repo, "BLOB_UNKNOWN")
		return
	}
	switch status {
	case 412:
		a.failed(t, 412, "DENIED")
		return
	case 416:
		a.failed(t, 416, "SIZE_INVALID")
		headers(t, a, "Content-Range", fmt.Sprintf("bytes */%d", size))
		return
	}
	a.is(t, status)
	headers(t, a, "Docker-Content-Digest", b.digest, "Etag", `"`+b.digest+`"`)
	if status == 304 {
		return
	}
	headers(t, a, "Content-Length", strconv.Itoa(len(body)))
	if c.method == "GET" && a.body != body {
		t.Errorf("%s %v: %d bytes, not those that were pushed", c.url, c.header, len(a.body))
	}
}

// Manifests

// condition draws an If-Match or If-None-Match, and returns whether it holds
// for what a tag points at, "" for nothing.
func condition(t *rapid.T, c *call) (holds func(current string) bool) {
	field := pick(t, "condition", "", "", "If-Match", "If-None-Match")
	if field == "" {
		return func(string) bool { return true }
	}
	var tags []string
	matches := make(map[string]bool)
	everything := rapid.IntRange(0, 3).Draw(t, "*") == 0
	if everything {
		tags = []string{"*"}
	} else {
		for range rapid.IntRange(1, 3).Draw(t, "etags") {
			d := theManifests[pickIndex(t, "etag", len(theManifests))].digest
			tag := `"` + d + `"`
			if rapid.IntRange(0, 4).Draw(t, "weak") == 0 {
				tag = "W/" + tag
				// RFC 9110 section 13.1.1: If-Match compares strongly.
				if field == "If-Match" {
					d = ""
				}
			}
			tags = append(tags, tag)
			matches[d] = true
		}
	}
	c.header[field] = strings.Join(tags, pick(t, "separator", ",", ", "))
	return func(current string) bool {
		match := current != "" && (everything || matches[current])
		return match == (field == "If-Match")
	}
}

// current returns the digest that a tag points at, "" for none.
func (r *repoModel) current(tag string) string {
	if j, ok := r.tags[tag]; ok {
		return theManifests[j].digest
	}
	return ""
}

func (m *machine) PutManifest(t *rapid.T) {
	repo, j := pickRepo(t), pickIndex(t, "manifest", len(theManifests))
	r, mf := m.repos[repo], theManifests[j]
	mediaType := pick(t, "type", mf.mediaTypes...)
	c := call{method: "PUT", url: manifestURL(repo, mf.digest), body: mf.content, header: map[string]string{"Content-Type": mediaType}}
	var tagged []string
	how := pick(t, "how", "tag", "tag", "tag", "digest", "digest with tags", "wrong digest")
	if how == "tag" && !mf.byTag() {
		how = "digest with tags"
	}
	switch how {
	case "tag":
		tagged = []string{pick(t, "tag", theTags...)}
		c.url = manifestURL(repo, tagged[0])
	case "digest with tags":
		tagged = rapid.SliceOfN(rapid.SampledFrom(theTags), 1, 3).Draw(t, "tags")
		c.url += "?tag=" + strings.Join(tagged, "&tag=")
	case "wrong digest":
		c.url = manifestURL(repo, nowhere)
		m.c.do(t, c).failed(t, 400, "DIGEST_INVALID")
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
			missing = 0 // it comes first: the content is not looked at
		}
	}
	switch {
	case missing > 0:
		if a.is(t, 404) && !slices.Equal(a.codes, slices.Repeat([]string{"MANIFEST_BLOB_UNKNOWN"}, missing)) {
			t.Errorf("%s: %d missing: %s", c.url, missing, a.body)
		}
	case !allowed:
		a.failed(t, 412, "DENIED")
	default:
		a.is(t, 201)
		told := ""
		if how == "digest with tags" {
			told = strings.Join(slices.Compact(slices.Sorted(slices.Values(tagged))), ", ")
		}
		headers(t, a, "Location", manifestURL(repo, mf.digest), "Docker-Content-Digest", mf.digest,
			"OCI-Subject", mf.subject, "OCI-Tag", told)
		if r.manifests[j] == "" { // or else it stays as it is
			r.manifests[j] = mediaType
		}
		for _, tag := range tagged {
			r.tags[tag] = j
		}
	}
}

// pickReference draws a tag or a digest, and returns which manifest it is, if
// it is there.
func (m *machine) pickReference(t *rapid.T, repo string) (ref string, j int, there bool) {
	r := m.repos[repo]
	if rapid.Bool().Draw(t, "by tag") {
		ref = pick(t, "tag", theTags...)
		j, there = r.tags[ref]
		return ref, j, there
	}
	j = pickIndex(t, "manifest", len(theManifests))
	return theManifests[j].digest, j, r.manifests[j] != ""
}

func (m *machine) GetManifest(t *rapid.T) {
	repo := pickRepo(t)
	ref, j, there := m.pickReference(t, repo)
	c := call{method: pick(t, "method", "GET", "HEAD"), url: manifestURL(repo, ref), header: map[string]string{}}
	holds := condition(t, &c)
	a := m.c.do(t, c)
	if !there {
		m.refused(t, a, repo, "MANIFEST_UNKNOWN")
		return
	}
	mf := theManifests[j]
	if !holds(mf.digest) {
		if c.header["If-Match"] != "" {
			a.failed(t, 412, "DENIED")
			return
		}
		a.is(t, 304)
		headers(t, a, "Etag", `"`+mf.digest+`"`)
		return
	}
	if got, _ := found(t, a); got != j || !a.is(t, 200) {
		t.Errorf("%s: manifest %d, want %d", c.url, got, j)
	}
	headers(t, a, "Content-Type", m.repos[repo].manifests[j])
}

func (m *machine) DeleteManifest(t *rapid.T) {
	repo := pickRepo(t)
	ref, j, there := m.pickReference(t, repo)
	c := call{method: "DELETE", url: manifestURL(repo, ref), header: map[string]string{}}
	holds := condition(t, &c)
	a := m.c.do(t, c)
	r := m.repos[repo]
	switch {
	case !there:
		// RFC 9110 section 13.2.1: conditions count only where the answer would
		// else be a success.
		m.refused(t, a, repo, "MANIFEST_UNKNOWN")
	case !holds(theManifests[j].digest):
		a.failed(t, 412, "DENIED")
	default:
		a.is(t, 202)
		if !strings.Contains(ref, ":") {
			delete(r.tags, ref)
			return
		}
		delete(r.manifests, j)
		maps.DeleteFunc(r.tags, func(_ string, tagged int) bool { return tagged == j })
	}
}

// Lists

// page returns the part of a list that is asked for, and whether there is more.
func page(all []string, last string, n int) (names []string, more bool) {
	names = slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s <= last })
	if n >= 0 && len(names) > n {
		return names[:n], n > 0
	}
	return names, false
}

// pickPage draws a page, and returns the query that asks for it.
func pickPage(t *rapid.T, names ...string) (query, last string, n int) {
	last = pick(t, "last", append([]string{"", "!", "b", "t", "zzz"}, names...)...)
	n = pick(t, "n", -1, 0, 1, 2, 3, 100)
	query = "?last=" + strings.ReplaceAll(last, "/", "%2F")
	if n >= 0 {
		query += "&n=" + strconv.Itoa(n)
	}
	return query, last, n
}

func checkPage(t *rapid.T, a answer, start string, names []string, more bool) {
	t.Helper()
	want := start + "[]}"
	if len(names) > 0 {
		want = start + `["` + strings.Join(names, `","`) + `"]}`
	}
	if a.is(t, 200) && a.body != want {
		t.Errorf("%s: %s, want %s", a.url, a.body, want)
	}
	if got := next(t, a); (got != "") != more {
		t.Errorf("%s: Link to %q; more: %v", a.url, got, more)
	}
}

func (m *machine) ListTags(t *rapid.T) {
	repo := pickRepo(t)
	r := m.repos[repo]
	query, last, n := pickPage(t, theTags...)
	a := m.c.get(t, "/v2/"+repo+"/tags/list"+query)
	if !r.exists() {
		a.failed(t, 404, "NAME_UNKNOWN")
		return
	}
	names, more := page(slices.Sorted(maps.Keys(r.tags)), last, n)
	checkPage(t, a, `{"name":"`+repo+`","tags":`, names, more)
}

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
	query, last, n := pickPage(t, shared...)
	names, more := page(m.existing(), last, n)
	checkPage(t, m.c.get(t, "/v2/_catalog"+query), `{"repositories":`, names, more)
}

// referring returns the manifests whose subject is the given one, in the order
// of their digests.
func (r *repoModel) referring(subject, artifactType string) (all []int) {
	for j, mf := range theManifests {
		if r.manifests[j] != "" && mf.subject == subject && (artifactType == "" || mf.listed.ArtifactType == artifactType) {
			all = append(all, j)
		}
	}
	slices.SortFunc(all, func(a, b int) int { return strings.Compare(theManifests[a].digest, theManifests[b].digest) })
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
	if want := m.repos[repo].referring(subject, artifactType); !slices.Equal(listed, want) {
		t.Errorf("%s%s: referrers of %s: %v, want %v", repo, query, subject, listed, want)
	}
	if artifactType != "" {
		headers(t, pages[0], "OCI-Filters-Applied", "artifactType")
	} else {
		headers(t, pages[0], "OCI-Filters-Applied", "")
	}
}

// Check compares the lists with the model, after each action.
func (m *machine) Check(t *rapid.T) {
	checkPage(t, m.c.get(t, "/v2/_catalog"), `{"repositories":`, m.existing(), false)
	for repo, r := range m.repos {
		a := m.c.get(t, "/v2/"+repo+"/tags/list")
		if !r.exists() {
			a.failed(t, 404, "NAME_UNKNOWN")
			continue
		}
		checkPage(t, a, `{"name":"`+repo+`","tags":`, slices.Sorted(maps.Keys(r.tags)), false)
	}
}

// checkAll compares everything with the model.
func (m *machine) checkAll(t *rapid.T) {
	for repo, r := range m.repos {
		for i, b := range theBlobs {
			a := m.c.get(t, blobURL(repo, b.digest))
			if !r.blobs[i] {
				m.refused(t, a, repo, "BLOB_UNKNOWN")
			} else if !a.is(t, 200) || a.body != b.data {
				t.Errorf("%s: not the content that was pushed", a.url)
			}
		}
		for j, mf := range theManifests {
			a := m.c.get(t, manifestURL(repo, mf.digest))
			if r.manifests[j] == "" {
				m.refused(t, a, repo, "MANIFEST_UNKNOWN")
			} else if got, _ := found(t, a); got != j || a.header.Get("Content-Type") != r.manifests[j] {
				t.Errorf("%s: %v, want %s", a.url, a.header, r.manifests[j])
			}
		}
		for _, tag := range theTags {
			a := m.c.get(t, manifestURL(repo, tag))
			if j, ok := r.tags[tag]; !ok {
				m.refused(t, a, repo, "MANIFEST_UNKNOWN")
			} else if got, _ := found(t, a); got != j {
				t.Errorf("%s: manifest %d, want %d", a.url, got, j)
			}
		}
		for _, subject := range subjects {
			if listed, _ := m.c.referrers(t, repo, subject, ""); !slices.Equal(listed, r.referring(subject, "")) {
				t.Errorf("%s: referrers of %s: %v, want %v", repo, subject, listed, r.referring(subject, ""))
			}
		}
	}
	for _, u := range m.sessions {
		a := m.c.get(t, u.location)
		a.is(t, 204)
		headers(t, a, "Range", u.stands())
	}
	for _, u := range m.ended {
		m.c.get(t, u.location).failed(t, 404, "BLOB_UPLOAD_UNKNOWN")
	}
}

// TestModelSequential has rapid make requests, one after the other; what it
// reports of a failure tells how to run that again. It runs in process: there
// is nothing for a network to change.
func TestModelSequential(t *testing.T) {
	// The seed that is reported is enough; and a history of 30 is short.
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
			noGoroutineLeft(t)
			c := newClient(t, stores[name], "in_process")
			// A store that can't tell may let a mount without from fall back to an
			// upload; one that can tell has no excuse.
			c.pushBlob(t, "probe", "x").is(t, 201)
			mount := c.do(t, call{method: "POST", url: "/v2/probe/2/blobs/uploads/?mount=" + sha("x")})
			finds := mount.is(t, 201, 202) && mount.status == 201
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
			t.Logf("%d operations in %d histories, %d requests in all", actions.Load(), runs.Load(), c.count.Load())
		})
	}
}
