// SPDX-License-Identifier: Apache-2.0

// Replaying of tapes.

package registrytest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// tapePlayer replays exchanges.
type tapePlayer struct {
	fsys      fs.FS
	exchanges []*tapeExchange
	byHead    map[string][]int // indexes of exchanges with the same request, but for the body

	mu      sync.Mutex
	used    []bool // guarded by mu
	uploads int    // guarded by mu: the number of uploads that were begun
}

// uploadPattern is the ID of an upload that a replay has begun: each has its own, so that
// middleware such as a Journal can tell them apart.
var uploadPattern = regexp.MustCompile(`7a9e0000-0000-4000-8000-[0-9]{12}`)

func newTapePlayer(fsys fs.FS) (*tapePlayer, tapeOrigin, error) {
	f, err := fsys.Open(tapeFile)
	if err != nil {
		return nil, tapeOrigin{}, fmt.Errorf("there is no tape: %w; see OpenTape", err)
	}
	defer f.Close()
	registry, exchanges, err := parseTape(f)
	if err != nil {
		return nil, tapeOrigin{}, err
	}
	p := &tapePlayer{fsys: fsys, exchanges: exchanges, byHead: make(map[string][]int), used: make([]bool, len(exchanges))}
	for i, e := range exchanges {
		if err := p.checkBlob(e); err != nil {
			return nil, tapeOrigin{}, fmt.Errorf("%s:%d: %w", tapeFile, e.line, err)
		}
		head := e.request.head()
		p.byHead[head] = append(p.byHead[head], i)
	}
	return p, registry, nil
}

func blobPath(d digest.Digest) string { return path.Join("blobs", d.Algorithm().String(), d.Encoded()) }

// checkBlob checks that the layout has the blob of a response, with the right size.
func (p *tapePlayer) checkBlob(e *tapeExchange) error {
	if e.body.digest == "" {
		return nil
	}
	info, err := fs.Stat(p.fsys, blobPath(e.body.digest))
	switch {
	case err != nil:
		return fmt.Errorf("the tape lacks a blob: %w", err)
	case e.body.part && info.Size() < e.body.offset+e.body.size || !e.body.part && info.Size() != e.body.size:
		return fmt.Errorf("the blob %s has %d bytes: the tape was damaged", e.body.digest, info.Size())
	}
	return nil
}

// replay returns the response to a request.
func (t *Tape) replay(req *http.Request) (*http.Response, error) {
	p := t.player
	session := ""
	target := *req.URL
	if target.Host == "" {
		target.Host = req.Host
	}
	masked := req.Clone(req.Context())
	masked.URL = &target
	if found := uploadPattern.FindString(target.Path); found != "" {
		session = found
		target.Path = strings.ReplaceAll(target.Path, found, uploadID)
		target.RawPath = ""
	}
	t.mask.learnURL(&target)
	t.mask.learnHeader(req.Header)
	r := t.mask.tapeRequest(masked, nil)
	candidates := p.byHead[r.head()]
	if candidates == nil && t.opts.Repeat {
		candidates = p.withoutCredentials(&r)
	}
	var body *spool
	if req.Body != nil {
		defer req.Body.Close()
		needed := len(candidates) == 0
		for _, i := range candidates {
			needed = needed || !p.exchanges[i].request.body.any
		}
		if needed {
			body = newSpool("")
			body.hashOnly = true
			if _, err := io.Copy(io.Discard, &sentBody{req.Body, body}); err != nil {
				return nil, err
			}
			if text, ok := inlineBody(masked, body); ok {
				t.mask.learnBody(req.Header.Get("Content-Type"), []byte(text))
			}
			r = t.mask.tapeRequest(masked, body)
		}
	}
	e, reason := p.choose(&r, candidates, t.opts.Repeat)
	if e == nil {
		err := &errNotOnTape{reason}
		t.errorf("%v", err)
		return nil, err
	}
	if e.status == 0 {
		return nil, errors.New(e.err)
	}
	resp, err := p.response(e, req, session)
	if err != nil {
		t.errorf("registrytest: %s:%d: %v", tapeFile, e.line, err)
	}
	return resp, err
}

// withoutCredentials returns the exchanges with the request, but for its body and
// credentials, unless they are only about those.
func (p *tapePlayer) withoutCredentials(r *tapeRequest) (found []int) {
	isCredential := func(line string) bool { return strings.HasPrefix(line, "Authorization: ") }
	header := slices.DeleteFunc(slices.Clone(r.header), isCredential)
	for i, e := range p.exchanges {
		if e.request.method == r.method && e.request.url == r.url && e.status != http.StatusUnauthorized &&
			slices.Equal(header, slices.DeleteFunc(slices.Clone(e.request.header), isCredential)) {
			found = append(found, i)
		}
	}
	return found
}

// choose returns the exchange to replay for a request, or the reason why there is none.
func (p *tapePlayer) choose(r *tapeRequest, candidates []int, repeat bool) (*tapeExchange, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := -1
	for _, i := range candidates {
		if b := p.exchanges[i].request.body; !b.any && b != r.body {
			continue
		}
		last = i
		if !p.used[i] {
			p.used[i] = true
			return p.exchanges[i], ""
		}
	}
	if last >= 0 && repeat {
		return p.exchanges[last], ""
	}
	text := r.short()
	if last >= 0 {
		return nil, "the request was sent more often than when the tape was recorded (see TapeOptions.Repeat):\n" + text
	}
	return nil, "the request is not on the tape:\n" + text + p.nearest(r)
}

// nearest describes the exchanges with the requests that are most similar to r.
func (p *tapePlayer) nearest(r *tapeRequest) string {
	const most = 3
	type near struct{ index, distance int }
	var all []near
	for i, e := range p.exchanges {
		all = append(all, near{i, r.distance(&e.request)})
	}
	slices.SortStableFunc(all, func(a, b near) int { return cmp.Compare(a.distance, b.distance) })
	var b strings.Builder
	seen := make(map[string]bool)
	for _, n := range all {
		e := p.exchanges[n.index]
		text := e.request.short()
		if seen[text] {
			continue
		}
		if len(seen) == most {
			break
		}
		seen[text] = true
		fmt.Fprintf(&b, "\n\nnear it, %s:%d:\n%s", tapeFile, e.line, text)
	}
	return b.String()
}

// short returns the request as it is on tape, but for what is too long for a message.
func (r *tapeRequest) short() string {
	lines := r.lines()
	for i, line := range lines {
		if len(line) > 500 {
			lines[i] = strings.ToValidUTF8(line[:500], "") + "…"
		}
	}
	if len(lines) > 20 {
		lines = append(lines[:20], "…")
	}
	return strings.Join(lines, "\n")
}

// distance returns how different two requests are.
func (r *tapeRequest) distance(other *tapeRequest) (n int) {
	if r.method != other.method {
		n += 5
	}
	n += editDistance(r.url, other.url)
	for _, line := range r.header {
		if !slices.Contains(other.header, line) {
			n++
		}
	}
	for _, line := range other.header {
		if !slices.Contains(r.header, line) {
			n++
		}
	}
	if r.body != other.body && !other.body.any {
		n++
	}
	return n
}

// editDistance returns the Levenshtein distance of two strings, of which long ones are
// cut.
func editDistance(a, b string) int {
	const most = 300
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// response returns the response of an exchange. session is the ID of the upload that the
// request is for, if any.
func (p *tapePlayer) response(e *tapeExchange, req *http.Request, session string) (*http.Response, error) {
	header := make(http.Header)
	for _, line := range e.header {
		name, value, _ := strings.Cut(line, ": ")
		if (name == "Location" || name == "Docker-Upload-Uuid") && strings.Contains(value, uploadID) {
			if session == "" {
				session = p.newUpload()
			}
			value = strings.ReplaceAll(value, uploadID, session)
		}
		header.Add(name, value)
	}
	resp := &http.Response{
		StatusCode: e.status,
		Status:     strconv.Itoa(e.status) + " " + http.StatusText(e.status),
		Proto:      "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:  header,
		Body:    http.NoBody,
		Request: req,
	}
	var content io.ReadCloser
	switch {
	case e.body.digest != "":
		var err error
		if content, err = p.open(e.body); err != nil {
			return nil, err
		}
		resp.ContentLength = e.body.size
	case e.body.text != "":
		content = io.NopCloser(strings.NewReader(e.body.text))
		resp.ContentLength = int64(len(e.body.text))
	}
	if length := header.Get("Content-Length"); length != "" {
		resp.ContentLength, _ = strconv.ParseInt(length, 10, 64) // checked by addHeader
	} else if content != nil || req.Method != http.MethodHead && e.status != http.StatusNoContent && e.status != http.StatusNotModified {
		header.Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	} else if req.Method == http.MethodHead {
		resp.ContentLength = -1
	}
	if header.Get("Transfer-Encoding") == "chunked" {
		header.Del("Transfer-Encoding")
		header.Del("Content-Length")
		resp.ContentLength, resp.TransferEncoding = -1, []string{"chunked"}
	}
	if e.err != "" {
		if content == nil {
			content = http.NoBody
		}
		content = brokenBody{content}
	}
	if content != nil {
		resp.Body = content
	}
	return resp, nil
}

// newUpload returns the ID of a new upload.
func (p *tapePlayer) newUpload() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.uploads++
	return fmt.Sprintf("7a9e0000-0000-4000-8000-%012d", p.uploads)
}

// open opens a blob, or a part of it.
func (p *tapePlayer) open(b tapeBody) (io.ReadCloser, error) {
	f, err := p.fsys.Open(blobPath(b.digest))
	if err != nil {
		return nil, err
	}
	if seeker, ok := f.(io.Seeker); ok && b.offset > 0 {
		_, err = seeker.Seek(b.offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, f, b.offset)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, b.size), f}, nil
}

// brokenBody is a body that ends with an error.
type brokenBody struct{ io.ReadCloser }

func (b brokenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// reportUnused reports the exchanges that were not replayed.
func (t *Tape) reportUnused() {
	t.tb.Helper()
	p := t.player
	p.mu.Lock()
	defer p.mu.Unlock()
	var unused []string
	for i, e := range p.exchanges {
		if !p.used[i] && e.status != 0 {
			unused = append(unused, fmt.Sprintf("%s:%d: %s %s", tapeFile, e.line, e.request.method, e.request.url))
		}
	}
	if len(unused) == 0 || t.tb.Skipped() {
		return
	}
	report := t.tb.Errorf
	if t.opts.Repeat || t.tb.Failed() {
		report = t.tb.Logf
	}
	report("registrytest: %d of the %d exchanges on the tape were not replayed:\n%s", len(unused), len(p.exchanges), strings.Join(unused, "\n"))
}
