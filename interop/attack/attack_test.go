// SPDX-License-Identifier: Apache-2.0

// The table of attacks, and how one is carried out.

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

// attack is a case of the table: what is sent to a seeded registry, and what
// must come back.
type attack struct {
	name string

	// send is what goes over the wire, after which the client half-closes.
	// {session} and the like stand for the IDs of the seed's upload sessions:
	// see newTarget.
	send string

	// want has the status of each answer, in order. "400|404" is either,
	// "closed" is a connection that is closed instead.
	want string

	// code is that of the first answer's error; "A|B" is either, "" any of the
	// spec's. Where there is one, the answer must be the registry's own.
	code string

	// allow has the methods that a 405 must name. Those in brackets it may.
	allow string

	// asks says which section asks for it.
	asks string

	// today has, for a finding, the statuses of what is answered in spite of
	// that. The case is then skipped, with a word of it, until it holds.
	today string

	opts   []registry.Option
	limits registry.Limits

	// partial is for a PATCH whose connection breaks: what came before is kept
	// for the client to go on from.
	partial bool

	check func(t *testing.T, answers []*answer) // what else must hold
}

// table is all cases, by chapter. Each makes its cases anew: some are large.
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
	{"readings", readings},
	{"signatures", signatures},
	{"options", options},
}

var printTable = flag.Bool("table", false, "print the table of attacks: case, answer, section")

func TestAttacks(t *testing.T) {
	seen := make(map[string]bool)
	findings := 0
	lines := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(lines, "CASE\tANSWER\tSECTION")
	for _, chapter := range table {
		t.Run(chapter.name, func(t *testing.T) {
			for _, a := range chapter.attacks() {
				name := chapter.name + "/" + a.name
				if seen[name] || a.asks == "" || a.want == "" {
					t.Fatalf("%s: there are two of that name, or it does not say what is wanted", name)
				}
				seen[name] = true
				fmt.Fprintf(lines, "%s\t%s\t%s\n", name, a.expected(), a.asks)
				t.Run(a.name, func(t *testing.T) {
					defer func() {
						if t.Skipped() {
							findings++
						}
					}()
					a.carryOut(t)
				})
			}
		})
	}
	if *printTable {
		lines.Flush()
	}
	t.Logf("%d cases, of which %d are findings", len(seen), findings)
}

// expected is what an attack wants, for the table.
func (a attack) expected() string {
	s := strings.TrimSpace(a.want + " " + a.code)
	if n := strings.Count(a.want, " "); n > 9 {
		s = fmt.Sprintf("%s, %d times", a.want[:strings.IndexByte(a.want, ' ')], n+1)
	}
	if a.today != "" {
		s += " (today " + a.today + ")"
	}
	return s
}

func (a attack) carryOut(t *testing.T) {
	w := newTarget(t, a.limits, a.opts...)
	send := w.expand(a.send)
	before := w.dump(a.partial)
	answers := w.exchange(send)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s asks for %s %s\nsent:\n%s", a.asks, a.want, a.code, excerpt(send))
			for _, got := range answers {
				t.Logf("got:\n%s", excerpt(got.String()))
			}
		}
	})

	if a.today != "" && !matches(answers, a.want) && matches(answers, a.today) {
		for _, got := range answers {
			w.checkAnswer(got)
		}
		t.Skipf("FINDING: %s asks for %s, and gets %s", a.asks, a.want, statuses(answers))
	}
	qt.Check(t, qt.IsTrue(matches(answers, a.want)), qt.Commentf("want %s, got %s", a.want, statuses(answers)))
	changed := false
	for _, got := range answers {
		w.checkAnswer(got)
		// A refused request changes nothing, nor does a safe one (RFC 9110
		// 9.2.1).
		changed = changed || got.StatusCode >= 200 && got.StatusCode < 300 && !slices.Contains([]string{"GET", "HEAD", "OPTIONS", "TRACE"}, got.method)
	}
	if list := finals(answers); len(list) > 0 {
		a.checkRefusal(t, list[0])
	}
	if after := w.dump(a.partial); !changed {
		qt.Check(t, qt.Equals(after, before), qt.Commentf("what was refused, or safe, has changed something"))
	}
	if a.check != nil && !t.Failed() {
		a.check(t, answers)
	}
}

// checkRefusal checks the code and the Allow of a refusal.
func (a attack) checkRefusal(t *testing.T, got *answer) {
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
			qt.Check(t, qt.IsTrue(slices.Contains(strings.Split(strings.NewReplacer("[", "", "]", "").Replace(a.allow), ", "), method)), qt.Commentf("Allow has %s", method))
		}
	}
}

// matches compares answers with what an attack wants.
func matches(answers []*answer, want string) bool {
	wanted := strings.Fields(want)
	for i, w := range wanted {
		if i >= len(answers) {
			return strings.Contains(w, "closed") && i == len(wanted)-1
		}
		if !slices.Contains(strings.Split(w, "|"), strconv.Itoa(answers[i].StatusCode)) {
			return false
		}
	}
	return len(answers) == len(wanted)
}

func statuses(answers []*answer) string {
	var list []string
	for _, a := range answers {
		list = append(list, strconv.Itoa(a.StatusCode))
	}
	return strings.Join(append(list, "closed"), " ")
}

// excerpt shortens what is too long to be read.
func excerpt(s string) string {
	if len(s) > 1500 {
		s = fmt.Sprintf("%s … (%d bytes) … %s", s[:1000], len(s), s[len(s)-200:])
	}
	return strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("%q", s), `\r\n`, "\\r\\n\n"), "\n")
}

// The attacker's own host, which no answer may name, and what no answer may
// quote of a body.
const (
	host   = "evil.example"
	secret = "s3cr3t-s3cr3t"
)

// ask is a request without a body.
func ask(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\n" + fields(lines) + "\r\n"
}

// push is a request with a body.
func push(method, target, body string, lines ...string) string {
	return ask(method, target, append(lines, "Content-Length: "+strconv.Itoa(len(body)))...) + body
}

// stream is a request whose body comes in chunks, which are as given.
func stream(method, target, chunks string, lines ...string) string {
	return ask(method, target, append(lines, "Transfer-Encoding: chunked")...) + chunks
}

func fields(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\r\n") + "\r\n"
}

// label makes a test's name of a value that has one, or else of a number.
func label(i int, s string) string {
	return fmt.Sprintf("%02d_%s", i, strings.Trim(strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '/' && r != '"' && r != '\\' && r != '#' {
			return r
		}
		return '_'
	}, s[:min(len(s), 40)]), "_"))
}
