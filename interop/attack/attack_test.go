// SPDX-License-Identifier: Apache-2.0

// The table of attacks, and the code that runs one.

package attack

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

// attack is a case of the table: the bytes to send to a seeded registry, and the
// expected responses.
type attack struct {
	name string

	// send holds the bytes to send, after which the client half-closes the
	// connection. {session} and the like stand for the IDs of the seed's upload
	// sessions: see newTarget.
	send string

	// want is the list of expected statuses, in order. "400|404" accepts
	// either; "closed" accepts a closed connection instead of a response.
	want string

	// code is the code of the first response's error: "A|B" accepts either, ""
	// accepts any code of the spec. If it is set, the registry itself must have
	// sent the response.
	code string

	// allow is the list of methods that a 405 must name in Allow. The methods in
	// brackets are optional.
	allow string

	// section is the section that demands the expected response.
	section string

	// actual is, for a finding, the list of statuses that the registry sends
	// instead of the expected ones. The case is reported and skipped until it
	// passes.
	actual string

	opts      []registry.Option
	limits    registry.Limits
	memLimits registry.MemLimits

	// partial is set for a PATCH whose connection breaks: the bytes before the
	// break are kept, so that the client can continue from there.
	partial bool

	check func(t *testing.T, responses []*response) // further checks; may be nil
}

// table lists the chapters of cases. A chapter creates its cases when it runs,
// since some are large.
var table = []struct {
	name    string
	attacks func() []attack
}{
	{"names", names},
	{"tags", tags},
	{"digests", digests},
	{"paths", paths},
	{"methods", methods},
	{"hosts", hosts},
	{"lines", lines},
	{"framing", framing},
	{"content_ranges", contentRanges},
	{"ranges", ranges},
	{"conditions", conditions},
	{"json", jsonBombs},
	{"media_types", mediaTypes},
	{"queries", queries},
	{"uploads", uploads},
	{"limits", limits},
	{"ambiguous", ambiguous},
	{"signatures", signatures},
	{"options", options},
}

var printTable = flag.Bool("table", false, "print the table of attacks: case, response, section")

func TestAttacks(t *testing.T) {
	seen := make(map[string]bool)
	findings := 0
	tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "CASE\tRESPONSE\tSECTION")
	for _, chapter := range table {
		t.Run(chapter.name, func(t *testing.T) {
			for _, a := range chapter.attacks() {
				name := chapter.name + "/" + a.name
				if seen[name] || a.section == "" || a.want == "" {
					t.Fatalf("%s: the name is not unique, or the case lacks want or section", name)
				}
				seen[name] = true
				fmt.Fprintf(tw, "%s\t%s\t%s\n", name, a.expected(), a.section)
				t.Run(a.name, func(t *testing.T) {
					defer func() {
						if t.Skipped() {
							findings++
						}
					}()
					a.run(t)
				})
			}
		})
	}
	if *printTable {
		tw.Flush()
	}
	t.Logf("%d cases, %d of them findings", len(seen), findings)
}

// expected returns the expected response in short, for the table.
func (a attack) expected() string {
	s := strings.TrimSpace(a.want + " " + a.code)
	if n := strings.Count(a.want, " "); n > 9 {
		s = fmt.Sprintf("%s, %d times", a.want[:strings.IndexByte(a.want, ' ')], n+1)
	}
	if a.actual != "" {
		s += " (actual: " + a.actual + ")"
	}
	return s
}

// run runs the case against a registry of its own.
func (a attack) run(t *testing.T) {
	w := newTarget(t, a.limits, a.memLimits, a.opts...)
	send := w.expand(a.send)
	before := w.dump(a.partial)
	responses := w.exchange(send)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s demands %s %s\nsent:\n%s", a.section, a.want, a.code, excerpt(send))
			for _, got := range responses {
				t.Logf("got:\n%s", excerpt(got.String()))
			}
		}
	})

	if a.actual != "" && !matches(responses, a.want) && matches(responses, a.actual) {
		for _, got := range responses {
			w.checkResponse(got)
		}
		t.Skipf("FINDING: %s demands %s, got %s", a.section, a.want, statuses(responses))
	}
	qt.Check(t, qt.IsTrue(matches(responses, a.want)), qt.Commentf("want %s, got %s", a.want, statuses(responses)))
	changed := false
	for _, got := range responses {
		w.checkResponse(got)
		// A rejected request changes nothing, nor does a safe one (RFC 9110
		// 9.2.1).
		changed = changed || got.StatusCode >= 200 && got.StatusCode < 300 && !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "TRACE"}, got.method)
	}
	if list := finals(responses); len(list) > 0 {
		a.checkError(t, list[0])
	}
	if after := w.dump(a.partial); !changed {
		qt.Check(t, qt.Equals(after, before), qt.Commentf("a rejected or safe request changed the registry"))
	}
	if a.check != nil && !t.Failed() {
		a.check(t, responses)
	}
}

// checkError checks the code and the Allow header of an error response.
func (a attack) checkError(t *testing.T, got *response) {
	if got.StatusCode < 400 {
		return
	}
	if a.code != "" && got.method != "HEAD" {
		codes := got.codes()
		qt.Check(t, qt.IsTrue(len(codes) > 0 && slices.Contains(strings.Split(a.code, "|"), codes[0])), qt.Commentf("want %s, got %v", a.code, codes))
	}
	if a.allow != "" && got.StatusCode == 405 {
		allowed := strings.Split(got.Header.Get("Allow"), ", ")
		for _, method := range strings.Split(a.allow, ", ") {
			if name := strings.Trim(method, "[]"); name == method {
				qt.Check(t, qt.SliceContains(allowed, name))
			}
		}
		for _, method := range allowed {
			qt.Check(t, qt.IsTrue(slices.Contains(strings.Split(strings.NewReplacer("[", "", "]", "").Replace(a.allow), ", "), method)), qt.Commentf("Allow names %s", method))
		}
	}
}

// matches reports whether the responses have the wanted statuses.
func matches(responses []*response, want string) bool {
	wanted := strings.Fields(want)
	for i, w := range wanted {
		if i >= len(responses) {
			return strings.Contains(w, "closed") && i == len(wanted)-1
		}
		if !slices.Contains(strings.Split(w, "|"), strconv.Itoa(responses[i].StatusCode)) {
			return false
		}
	}
	return len(responses) == len(wanted)
}

// statuses returns the statuses of the responses, in the form of attack.want.
func statuses(responses []*response) string {
	var list []string
	for _, a := range responses {
		list = append(list, strconv.Itoa(a.StatusCode))
	}
	return strings.Join(append(list, "closed"), " ")
}

// excerpt shortens s for the log, and quotes it.
func excerpt(s string) string {
	if len(s) > 1500 {
		s = fmt.Sprintf("%s … (%d bytes) … %s", s[:1000], len(s), s[len(s)-200:])
	}
	return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("%q", s), `\r\n`, "\\r\\n\n"), "\n")
}

// The attacker's own host, which no response may name, and text of a body, which
// no response may quote.
const (
	host   = "evil.example"
	secret = "s3cr3t-s3cr3t"
)

// request returns a request without a body.
func request(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + headerLines(lines) + "\r\n"
}

// withBody returns a request with a body.
func withBody(method, target, body string, lines ...string) string {
	return request(method, target, append(lines, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

// withChunks returns a request whose body is sent in the given chunks.
func withChunks(method, target, chunks string, lines ...string) string {
	return request(method, target, append(lines, "Transfer-Encoding: chunked")...) + chunks
}

// headerLines joins the lines of a header.
func headerLines(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// label returns a name for a test: the number i, and the characters of s that a
// name can have.
func label(i int, s string) string {
	return fmt.Sprintf("%02d_%s", i, strings.Trim(strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '/' && r != '"' && r != '\\' && r != '#' {
			return r
		}
		return '_'
	}, s[:min(len(s), 40)]), "_"))
}
