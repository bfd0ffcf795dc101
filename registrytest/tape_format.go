// SPDX-License-Identifier: Apache-2.0

// The list of exchanges of a tape.

package registrytest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// The first line of tape.txt is tapeVersion, the second one names the registry. Then
// follow the exchanges, with an empty line before each:
//
//	> PUT http://127.0.0.1:1/v2/app/manifests/v1     a request
//	> Authorization: Bearer                          its header
//	>= sha256:0a1b… 512                              its body: digest and size
//	< 401                                            the status of the response
//	< Content-Type: application/json                 its header
//	<| {"errors":[]}                                 a line of its body
//
// Other bodies:
//
//	>= *                                             any, or none
//	<= sha256:0a1b… 512                              a blob of the layout
//	<= sha256:0a1b… 100-199                          a part of a blob
//	<! unexpected EOF                                an error instead of the response, or of the rest of its body
//
// The last line of a body has no line feed. A response has a Content-Length unless
// it has "Transfer-Encoding: chunked".
const (
	tapeFile    = "tape.txt"
	tapeVersion = "registrytest tape 1"
)

// requestHeaders and responseHeaders are the headers that are recorded, in the order
// in which they are written.
var (
	requestHeaders = []string{
		"Accept", "Authorization", "Content-Range", "Content-Type",
		"If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Range",
	}
	responseHeaders = []string{
		"Accept-Ranges", "Allow", "Content-Digest", "Content-Encoding", "Content-Length", "Content-Location", "Content-Range", "Content-Type",
		"Digest", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "Docker-Upload-Uuid", "Etag", "Link", "Location",
		"Oci-Chunk-Max-Length", "Oci-Chunk-Min-Length", "Oci-Filters-Applied", "Oci-Namespace", "Oci-Subject", "Oci-Tag",
		"Range", "Repr-Digest", "Retry-After", "Transfer-Encoding", "Vary", "Warning", "Www-Authenticate", "X-Registry-Supports-Signatures",
	}
)

// tapeBody is the body of a request or response.
type tapeBody struct {
	text string // inline, unless there is a digest

	digest digest.Digest
	size   int64
	part   bool  // a part of the blob
	offset int64 // of the part

	any bool // of a request: every body matches
}

// lines returns the body's lines with the given prefix.
func (b tapeBody) lines(prefix string) (lines []string) {
	switch {
	case b.any:
		return []string{prefix + "= *"}
	case b.part:
		return []string{fmt.Sprintf("%s= %s %d-%d", prefix, b.digest, b.offset, b.offset+b.size-1)}
	case b.digest != "":
		return []string{fmt.Sprintf("%s= %s %d", prefix, b.digest, b.size)}
	case b.text == "":
		return nil
	}
	for _, line := range strings.Split(b.text, "\n") {
		if line = prefix + "| " + line; line == prefix+"| " {
			line = prefix + "|"
		}
		lines = append(lines, line)
	}
	return lines
}

// isText reports whether a body can be inline.
func isText(data []byte) bool {
	return utf8.Valid(data) && !strings.ContainsFunc(string(data), func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' || r == '\u2028' || r == '\u2029' || r == '\ufeff'
	})
}

// tapeRequest is a request as it is on tape.
type tapeRequest struct {
	method string
	url    string
	header []string // lines
	body   tapeBody
}

// head returns the request without its body, which identifies it, but for the body.
func (r *tapeRequest) head() string {
	return strings.Join(append([]string{r.method + " " + r.url}, r.header...), "\n")
}

func (r *tapeRequest) lines() []string {
	lines := []string{"> " + r.method + " " + r.url}
	for _, line := range r.header {
		lines = append(lines, "> "+line)
	}
	return append(lines, r.body.lines(">")...)
}

// tapeExchange is a request and its response.
type tapeExchange struct {
	request tapeRequest
	status  int // 0 if there was no response
	header  []string
	body    tapeBody
	err     string // the error instead of the response, or after its body
	line    int    // in tape.txt
}

func (e *tapeExchange) write(w *strings.Builder) {
	lines := append([]string{""}, e.request.lines()...)
	if e.status != 0 {
		lines = append(lines, "< "+strconv.Itoa(e.status))
		for _, line := range e.header {
			lines = append(lines, "< "+line)
		}
		lines = append(lines, e.body.lines("<")...)
	}
	if e.err != "" {
		lines = append(lines, "<! "+e.err)
	}
	for _, line := range lines {
		w.WriteString(line + "\n")
	}
}

// tapeParser reads tape.txt.
type tapeParser struct {
	registry  tapeOrigin
	exchanges []*tapeExchange

	current *tapeExchange
	inline  bool // the last line is one of an inline body
	done    bool // the last line ends the exchange
}

// parseTape reads the list of exchanges.
func parseTape(r io.Reader) (tapeOrigin, []*tapeExchange, error) {
	var p tapeParser
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil && err != io.EOF {
			return tapeOrigin{}, nil, err
		}
		if err == io.EOF && line == "" {
			err := p.finish()
			if n < 3 {
				err = errors.New("the first two lines are missing")
			}
			if err != nil {
				return tapeOrigin{}, nil, fmt.Errorf("%s ends too early: %w", tapeFile, err)
			}
			return p.registry, p.exchanges, nil
		}
		text, ended := strings.CutSuffix(line, "\n")
		switch {
		case !ended:
			err = errors.New("the line feed is missing")
		case strings.HasSuffix(text, "\r"):
			err = errors.New("the line ends in CR LF: exempt tapes from conversions of git with \"-text\" in .gitattributes")
		default:
			err = p.line(n, text)
		}
		if err != nil {
			return tapeOrigin{}, nil, fmt.Errorf("%s:%d: %w", tapeFile, n, err)
		}
	}
}

// line reads line n.
func (p *tapeParser) line(n int, line string) error {
	switch {
	case n == 1 && line != tapeVersion:
		return fmt.Errorf("the first line is not %q", tapeVersion)
	case n == 1:
		return nil
	case n == 2:
		rest, ok := strings.CutPrefix(line, "registry ")
		if !ok {
			return errors.New(`the second line does not begin with "registry "`)
		}
		var err error
		if p.registry, err = parseOrigin(rest); err != nil {
			return fmt.Errorf("the registry is not a URL like https://registry.example: %w", err)
		}
		return nil
	case line == "":
		return p.finish()
	case p.current == nil:
		p.current = &tapeExchange{line: n}
		p.inline, p.done = false, false
		rest, ok := strings.CutPrefix(line, "> ")
		if !ok {
			return errors.New(`an exchange must begin with "> " and the request`)
		}
		return p.current.request.parse(rest)
	case p.done:
		return errors.New("no line may follow in this exchange")
	}
	if len(line) < 2 {
		return errors.New("unknown kind of line")
	}
	kind, rest := line[:2], line[2:]
	e := p.current
	body := &e.body
	if kind[0] == '>' {
		body = &e.request.body
	}
	inResponse, hasBody := e.status != 0, body.any || body.digest != "" || p.inline
	switch {
	case kind[0] == '>' && inResponse:
		return errors.New("a line of the request follows the response")
	case kind == "<!":
		e.err = strings.TrimPrefix(rest, " ")
		p.done = true
		if e.err == "" {
			return errors.New("the error is empty")
		}
		return nil
	case kind == "< " && !inResponse:
		status, err := strconv.Atoi(rest)
		if err != nil || status < 200 || status > 599 {
			return fmt.Errorf("the status %q is not a number from 200 to 599", rest)
		}
		e.status, p.inline = status, false
		return nil
	case kind[0] == '<' && !inResponse:
		return errors.New("the status of the response is missing")
	case hasBody && (kind[1] != '|' || !p.inline):
		return errors.New("the line follows the body")
	case kind == "> ":
		return addHeader(&e.request.header, rest, requestHeaders)
	case kind == "< ":
		return addHeader(&e.header, rest, responseHeaders)
	case kind == ">|" || kind == "<|":
		if rest != "" && rest[0] != ' ' {
			return errors.New(`"|" and the text must be separated by a space`)
		}
		if p.inline {
			body.text += "\n"
		}
		body.text += strings.TrimPrefix(rest, " ")
		p.inline = true
		return nil
	case kind == ">=" && rest == " *":
		body.any = true
		return nil
	case kind == ">=" || kind == "<=":
		return body.parse(rest)
	}
	return errors.New("unknown kind of line")
}

// finish ends an exchange.
func (p *tapeParser) finish() error {
	e := p.current
	p.current = nil
	switch {
	case e == nil:
		return nil
	case e.status == 0 && e.err == "":
		return errors.New("the exchange has no response")
	case e.body.digest != "" && e.request.method == http.MethodHead:
		return errors.New("the response of a HEAD request has a body")
	}
	p.exchanges = append(p.exchanges, e)
	return nil
}

// parse parses the request line.
func (r *tapeRequest) parse(s string) error {
	method, target, ok := strings.Cut(s, " ")
	if !ok || method == "" || strings.ToUpper(method) != method {
		return errors.New("a request must be a method and a URL")
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return fmt.Errorf("%q is not an absolute URL", target)
	}
	r.method, r.url = method, target
	return nil
}

// addHeader adds a line of a header, which must have one of the names.
func addHeader(header *[]string, line string, names []string) error {
	name, value, ok := strings.Cut(line, ": ")
	if !ok || value == "" {
		return errors.New("a header must be a name and a value")
	}
	i := slices.Index(names, name)
	if i < 0 {
		return fmt.Errorf("tapes do not have the header %q", name)
	}
	if last := len(*header) - 1; last >= 0 {
		before, _, _ := strings.Cut((*header)[last], ": ")
		if slices.Index(names, before) > i {
			return fmt.Errorf("the header %s must be before %s", name, before)
		}
	}
	if name == "Content-Length" {
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < 0 {
			return fmt.Errorf("the Content-Length %q is not a size", value)
		}
	}
	*header = append(*header, line)
	return nil
}

// parse parses the digest and the size or range of a body.
func (b *tapeBody) parse(s string) error {
	malformed := fmt.Errorf("%q is not a digest and a size or range", s)
	fields := strings.Fields(s)
	if len(fields) != 2 {
		return malformed
	}
	d := digest.Digest(fields[0])
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%q: %w", d, err)
	}
	first, last, isRange := strings.Cut(fields[1], "-")
	a, err := strconv.ParseInt(first, 10, 64)
	if err != nil || a < 0 {
		return malformed
	}
	if !isRange {
		b.digest, b.size = d, a
		return nil
	}
	z, err := strconv.ParseInt(last, 10, 64)
	if err != nil || z < a {
		return malformed
	}
	b.digest, b.part, b.offset, b.size = d, true, a, z-a+1
	return nil
}

// contentOf reports whether a path of the registry's API is for a manifest or a blob, and
// returns the digest in it, if any.
func contentOf(path string) (d digest.Digest, manifest, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if !strings.HasPrefix(path, "/v2/") || i < 0 {
		return "", false, false
	}
	ref := digest.Digest(path[i+1:])
	if ref.Validate() != nil {
		ref = ""
	}
	switch {
	case strings.HasSuffix(path[:i], "/manifests"):
		return ref, true, true
	case strings.HasSuffix(path[:i], "/blobs") && ref != "":
		return ref, false, true
	}
	return "", false, false
}
