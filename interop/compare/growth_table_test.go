// SPDX-License-Identifier: Apache-2.0

//go:build linux

// The table of TestGrowth, and its section of docs/benchmarks.md.

package compare

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// figure is a row of the table.
type figure struct {
	work string
	size int
	kind string
	note string // the reason that there are no figures

	ops           int
	p50, p90, max time.Duration
	during, ended written // in all operations, without and with the exit of the server
	counted       bool    // those are set
	rss, peak     int64
	targets       []target
}

// target is the limit of a ratio.
type target struct {
	text     string
	got, max float64
}

func (v target) String() string {
	verdict := "pass"
	if v.got > v.max {
		verdict = "FAIL"
	}
	return fmt.Sprintf("%s %.2f of %.3g %s", verdict, v.got, v.max, v.text)
}

// kib is the unit of the bytes written, and the target of a push in it.
const (
	kib        = 1024
	maxWritten = 8.0
)

// compareFigures returns the targets of f that depend on other figures or on its
// work.
func compareFigures(p growthPlan, all []figure, f figure) []target {
	of := func(size int, kind string) float64 {
		for _, o := range all {
			if o.work == f.work && o.size == size && o.kind == kind && o.note == "" {
				return o.p50.Seconds()
			}
		}
		return 0
	}
	changes := slices.ContainsFunc(growthWorks, func(w growthWork) bool { return w.name == f.work && w.reads == 0 })
	if !changes || f.kind != "berth" || f.note != "" {
		return nil
	}
	targets := []target{{"KiB of wchar", f.perOp(f.during.chars), maxWritten}, {"KiB written", f.perOp(f.during.disk), maxWritten}, {"KiB with the exit", f.perOp(f.ended.disk), maxWritten}}
	if first := of(p.sizes[0], "berth"); first > 0 && f.size == p.sizes[len(p.sizes)-1] {
		targets = append(targets, target{fmt.Sprintf("× p50 at %d", p.sizes[0]), f.p50.Seconds() / first, 1.5})
	}
	if other := of(f.size, "distribution"); other > 0 {
		targets = append(targets, target{"× distribution's p50", f.p50.Seconds() / other, 1})
	}
	return targets
}

// perOp returns KiB per operation.
func (f figure) perOp(n int64) float64 { return float64(n) / float64(max(f.ops, 1)) / kib }

// row returns the cells of f's row in the table.
func (f figure) row() []string {
	row := []string{f.work, fmt.Sprint(f.size), f.kind}
	if f.note != "" {
		return append(row, "–", "–", "–", "–", "–", "–", "–", "–", "–", f.note)
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1e3) }
	bytes := func(n int64) string {
		if !f.counted {
			return "–"
		}
		return fmt.Sprintf("%.1f", f.perOp(n))
	}
	var targets []string
	for _, v := range f.targets {
		targets = append(targets, v.String())
	}
	return append(row, fmt.Sprint(f.ops), ms(f.p50), ms(f.p90), ms(f.max),
		bytes(f.during.chars), bytes(f.during.disk), bytes(f.ended.disk),
		fmt.Sprintf("%.1f", float64(f.rss)/mib), fmt.Sprintf("%.1f", float64(f.peak)/mib), strings.Join(targets, ", "))
}

var growthColumns = []string{"work", "size", "server", "ops", "p50 ms", "p90 ms", "max ms", "wchar KiB/op", "written KiB/op", "with exit KiB/op", "RSS MiB", "peak MiB", "targets"}

// table returns the first columns of the figures as an aligned table.
func table(figures []figure, columns int) string {
	rows := [][]string{growthColumns[:columns]}
	for _, f := range figures {
		rows = append(rows, f.row()[:columns])
	}
	widths := make([]int, columns)
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			fmt.Fprintf(&out, "| %s%s ", cell, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		out.WriteString("|\n")
		for i := 0; n == 0 && i < len(widths); i++ {
			out.WriteString("|" + strings.Repeat("-", widths[i]+2))
		}
		if n == 0 {
			out.WriteString("|\n")
		}
	}
	return out.String()
}

const growthHeading = "## Growth of a directory\n"

// growthSection returns a section of docs/benchmarks.md, with the first columns of
// the table.
func growthSection(p growthPlan, figures []figure, columns int) string {
	for i, f := range figures {
		figures[i].targets = append(f.targets, compareFigures(p, figures, f)...)
	}
	var works []string // in the order of the table
	for _, f := range figures {
		if !slices.Contains(works, f.work) {
			works = append(works, f.work)
		}
	}
	slices.SortStableFunc(figures, func(a, b figure) int {
		return slices.Index(works, a.work) - slices.Index(works, b.work)
	})
	return fmt.Sprintf(growthDocument, time.Now().UTC().Format(time.DateOnly), machine(), growthVersions(), p.settle, p.ops, p.limit, p.near, p.runs, table(figures, columns))
}

const growthDocument = growthHeading + `
The cost of work on one repository, by the number of its manifests, with the content
in a directory: ` + "`berth serve --store dir:`" + `, olareg's directory, and distribution's
filesystem driver. Each server is a process of its own, and the only one at the time.
Made by

<!-- not run: it takes many minutes -->
` + "```sh norun" + `
cd interop && go test -v -timeout 120m -run TestGrowth ./compare -growth -write ../../docs/benchmarks.md
` + "```" + `

on %s, on %s, with %s.

Each manifest has a tag, or is a referrer of one subject; all share their blobs. A
server starts on the full repository, runs 3 operations, idles for %v, and runs %d
serial ones, fewer if they take more than %v. p50 and p90 are those of the %d
operations nearest to the size; max is that of all.

"written" is write_bytes in /proc/PID/io: it counts whole pages of files, but not the
file system's metadata. "with exit" adds everything that the process writes until it
has exited after SIGTERM, so it includes a fold of the journal. wchar also counts the
responses. Rows without these columns show the median of %d runs, with the files in
the page cache; the two of memory show one.

Berth and distribution sync files before they respond; olareg does not. olareg's
repositories are written as layouts, because each push to it rewrites index.json; its
garbage collection is off. distribution has no lists of referrers: it stores a
referrer like any manifest.

%s`

// growthVersions returns the versions of the other registries' modules.
func growthVersions() string {
	list, err := exec.Command("go", "list", "-m", "github.com/olareg/olareg", "github.com/distribution/distribution/v3").Output()
	if err != nil {
		return "unknown versions"
	}
	return strings.ReplaceAll(strings.TrimSpace(string(list)), "\n", ", ")
}

// section returns the section of a Markdown text that begins with heading, and the
// text around it.
func section(text, heading string) (before, found, after string) {
	before, rest, ok := strings.Cut(text, heading)
	if !ok {
		return text, "", ""
	}
	body, after, more := strings.Cut(rest, "\n## ")
	if more {
		return before, heading + body + "\n", "## " + after
	}
	return before, heading + body, ""
}

// replaceSection replaces the section about growth in a file, or appends it.
func replaceSection(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, _, after := section(string(old), growthHeading)
	if after != "" {
		text += "\n"
	}
	return os.WriteFile(file, []byte(strings.TrimRight(before, "\n")+"\n\n"+text+after), 0o644)
}

func TestReplaceSection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file.md")
	if err := os.WriteFile(file, []byte("# Title\n\n## First\n\none\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	replace := func(text, want string) {
		t.Helper()
		if err := replaceSection(file, text); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(file); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	replace(growthHeading+"\nold\n", "# Title\n\n## First\n\none\n\n"+growthHeading+"\nold\n")
	replace(growthHeading+"\nnew\n", "# Title\n\n## First\n\none\n\n"+growthHeading+"\nnew\n")
	if err := os.WriteFile(file, []byte("# Title\n\n"+growthHeading+"\nold\n\n## Last\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	replace(growthHeading+"\nnew\n", "# Title\n\n"+growthHeading+"\nnew\n\n## Last\n")
}
