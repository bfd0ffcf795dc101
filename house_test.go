// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// floors lists the files of the package, from the ground up, as in ARCHITECTURE.md.
// A file may use only files of the floors below its own, so that a reader can
// understand each floor without those above it.
var floors = []struct {
	files string
	why   string // the reason that these files must not use those above
}{
	{"doc.go json.go mediatype.go hash.go context.go", "they are plain functions, and know nothing of a registry"},
	{"limits.go errors.go", "everything else may return an error or check a limit"},
	{"names.go query.go", "the grammar of names depends on no request and no store"},
	{"store.go conditions.go ranges.go body.go", "the contract of a store must not depend on how it is served, nor on one store"},
	{"unimplemented.go request.go parse.go", "parsing is pure: it neither serves nor stores"},
	{"memory_blobs.go response.go push.go", "a push is the same over HTTP or without it: it depends only on the contract"},
	{"memory_content.go content.go events.go", "an immutable value does not know the store that holds it"},
	{"memory.go memory_uploads.go memory_lease.go logging.go", "a store does not know its handlers"},
	{"budget.go options.go memory_collect.go", "options are plain values: handlers get only those that they need"},
	{"blobs.go uploads.go manifests.go tags.go referrers.go", "a handler reads like its section of the spec, and does not call the dispatcher or another family of handlers"},
	{"registry.go", "it is the roof"},
}

// knots lists the files of one floor that may use each other.
var knots = []string{"memory.go memory_uploads.go memory_lease.go"}

// TestArrows checks that files use only files of the floors below their own.
func TestArrows(t *testing.T) {
	uses := fileUses(t)
	floorOf := make(map[string]int)
	for i, floor := range floors {
		for _, file := range strings.Fields(floor.files) {
			floorOf[file] = i
		}
	}
	for _, file := range slices.Sorted(maps.Keys(uses)) {
		i, ok := floorOf[file]
		if !ok {
			t.Errorf("%s is on no floor: add it to the table above and to ARCHITECTURE.md", file)
			continue
		}
		for _, used := range slices.Sorted(maps.Keys(uses[file])) {
			if floorOf[used] < i || inKnot(file, used) {
				continue
			}
			t.Errorf("%s must not use %s (%s): %s", file, used, strings.Join(uses[file][used], ", "), floors[i].why)
		}
	}
}

// TestKnots finds the files that use each other, directly or indirectly, and checks
// that they are few. With -v it prints them.
func TestKnots(t *testing.T) {
	uses := fileUses(t)
	reaches := make(map[string]map[string]bool)
	var walk func(from, file string)
	walk = func(from, file string) {
		for used := range uses[file] {
			if !reaches[from][used] {
				reaches[from][used] = true
				walk(from, used)
			}
		}
	}
	arrows := 0
	for file := range uses {
		reaches[file] = make(map[string]bool)
		arrows += len(uses[file])
		walk(file, file)
	}
	var knots [][]string
	for _, file := range slices.Sorted(maps.Keys(uses)) {
		knot := []string{}
		for _, other := range slices.Sorted(maps.Keys(uses)) {
			if reaches[file][other] && reaches[other][file] {
				knot = append(knot, other)
			}
		}
		if len(knot) > 0 && knot[0] == file {
			knots = append(knots, knot)
		}
	}
	t.Logf("%d files, %d arrows, knots: %v", len(uses), arrows, knots)
	for _, knot := range knots {
		if len(knot) > 3 || !inKnot(knot[0], knot[len(knot)-1]) {
			t.Errorf("%v use each other: none of them can be understood without the others", knot)
		}
	}
}

// TestFilesAreShort checks that files are short enough to read in one sitting.
func TestFilesAreShort(t *testing.T) {
	for file := range fileUses(t) {
		data, err := os.ReadFile(file)
		qt.Assert(t, qt.IsNil(err))
		if n := strings.Count(string(data), "\n"); n > 450 {
			t.Errorf("%s has %d lines, want at most 450: move a part to a file of its own", file, n)
		}
	}
}

func inKnot(a, b string) bool {
	return slices.ContainsFunc(knots, func(knot string) bool {
		files := strings.Fields(knot)
		return slices.Contains(files, a) && slices.Contains(files, b)
	})
}

// fileUses returns, for each file of the package, the files that it uses, with the
// names that it uses from each.
func fileUses(t *testing.T) map[string]map[string][]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	qt.Assert(t, qt.IsNil(err))
	fset := token.NewFileSet()
	uses := make(map[string]map[string][]string)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		qt.Assert(t, qt.IsNil(err))
		files = append(files, f)
		uses[name] = make(map[string][]string)
	}
	// Only this package matters, so imported packages are empty. The resulting
	// errors are ignored.
	info := &types.Info{Uses: make(map[*ast.Ident]types.Object)}
	conf := types.Config{Importer: emptyImporter{}, Error: func(error) {}}
	pkg, _ := conf.Check("registry", fset, files, info)
	for ident, obj := range info.Uses {
		if obj.Pkg() != pkg || !obj.Pos().IsValid() {
			continue
		}
		if _, ok := obj.(*types.PkgName); ok {
			continue
		}
		from, to := fset.Position(ident.Pos()).Filename, fset.Position(obj.Pos()).Filename
		if from != to && !slices.Contains(uses[from][to], obj.Name()) {
			uses[from][to] = append(uses[from][to], obj.Name())
		}
	}
	for _, used := range uses {
		for _, names := range used {
			slices.Sort(names)
		}
	}
	return uses
}

// emptyImporter imports packages without looking at them.
type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, strings.TrimPrefix(filepath.Base(path), "go-"))
	p.MarkComplete()
	return p, nil
}
