// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/tools/go/packages"
)

// imports are the packages that blocks of Go use without importing them.
var imports = []string{
	"context", "errors", "fmt", "io", "log", "log/slog", "net/http", "net/http/httptest", "os", "strings", "sync/atomic", "testing", "time",
	"github.com/opencontainers/go-digest",
	"github.com/prometheus/client_golang/prometheus",
	"github.com/berth-oci/registry",
	"github.com/berth-oci/registry/auth",
	"github.com/berth-oci/registry/bucket",
	"github.com/berth-oci/registry/guard",
	"github.com/berth-oci/registry/inspect",
	"github.com/berth-oci/registry/mirror",
	"github.com/berth-oci/registry/observe/metrics",
	"github.com/berth-oci/registry/observe/notify",
	"github.com/berth-oci/registry/observe/tracing",
	"github.com/berth-oci/registry/ocidir",
	"github.com/berth-oci/registry/quota",
	"github.com/berth-oci/registry/registrytest",
	"github.com/berth-oci/registry/retention",
	"github.com/berth-oci/registry/seed",
	"github.com/berth-oci/registry/tokens",
}

// TestGo checks the types of each block of Go. A block may be a file, declarations, or
// statements, and need neither use its variables and imports nor import the packages
// above. It may use ctx and err, and what the comment above it declares.
func TestGo(t *testing.T) {
	var found []block
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if b.info == "go" {
				found = append(found, b)
			}
		}
	}
	known := load(t)
	for _, b := range found {
		fset := token.NewFileSet()
		file, err := parseGo(fset, b)
		if err != nil {
			t.Error(err)
			continue
		}
		conf := types.Config{
			Importer: known,
			Error: func(err error) {
				if e := new(types.Error); !errors.As(err, e) || !e.Soft { // soft: not used
					t.Error(err)
				}
			},
		}
		conf.Check("block", fset, []*ast.File{file}, nil) // reports all errors to Error
	}
}

// parseGo parses a block of Go as a file.
func parseGo(fset *token.FileSet, b block) (*ast.File, error) {
	if strings.HasPrefix(b.code, "package ") {
		return parser.ParseFile(fset, b.page, b.code, 0)
	}
	header := "package block\n"
	for _, p := range imports {
		header += fmt.Sprintf("import %q\n", p)
	}
	given, _ := strings.CutPrefix(b.comment, "given: ")
	header += given + "\n"
	code := "\n//line " + b.String() + "\n" + b.code // the position of errors
	if file, err := parser.ParseFile(fset, "", header+code, 0); err == nil {
		return file, nil
	}
	return parser.ParseFile(fset, "", header+"func _(ctx context.Context, err error) {"+code+"\n}", 0)
}

// importer imports packages that are loaded.
type importer map[string]*types.Package

func (i importer) Import(path string) (*types.Package, error) {
	if p, ok := i[path]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("add %s to the list of imports of this test", path)
}

// load loads the types of the imports.
func load(t *testing.T) importer {
	t.Helper()
	loaded, err := packages.Load(&packages.Config{Mode: packages.NeedName | packages.NeedTypes, Context: t.Context()}, imports...)
	qt.Assert(t, qt.IsNil(err))
	known := make(importer)
	for _, p := range loaded {
		qt.Assert(t, qt.HasLen(p.Errors, 0))
		known[p.PkgPath] = p.Types
	}
	qt.Assert(t, qt.HasLen(slices.Collect(maps.Keys(known)), len(imports)))
	return known
}
