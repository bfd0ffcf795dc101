// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pelletier/go-toml/v2"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/text"
	"go.yaml.in/yaml/v3"
)

// block is a fenced code block.
type block struct {
	page    string // relative to the root of the repository
	line    int    // of its first line of code
	info    string // the text after the opening fence
	comment string // the text of the HTML comment above it
	code    string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// root is the root of the repository.
const root = "../.."

// pages returns the pages whose blocks are tested.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Not(qt.HasLen(found, 0)))
	return append(found, filepath.Join(root, "README.md"))
}

// blocks returns the fenced code blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	source, err := os.ReadFile(page)
	qt.Assert(t, qt.IsNil(err))
	name, err := filepath.Rel(root, page)
	qt.Assert(t, qt.IsNil(err))
	var found []block
	err = ast.Walk(goldmark.DefaultParser().Parse(text.NewReader(source)), func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		code, ok := n.(*ast.FencedCodeBlock)
		if !ok || !entering {
			return ast.WalkContinue, nil
		}
		b := block{page: name, code: string(code.Lines().Value(source))}
		if code.Lines().Len() > 0 {
			b.line = 1 + bytes.Count(source[:code.Lines().At(0).Start], []byte("\n"))
		}
		if code.Info != nil {
			b.info = string(code.Info.Segment.Value(source))
		}
		if above, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
			html := string(above.Lines().Value(source))
			if above.HasClosure() {
				html += string(above.ClosureLine.Value(source))
			}
			html = strings.TrimSpace(html)
			if comment, ok := strings.CutPrefix(html, "<!--"); ok {
				b.comment = strings.TrimSpace(strings.TrimSuffix(comment, "-->"))
			}
		}
		found = append(found, b)
		return ast.WalkContinue, nil
	})
	qt.Assert(t, qt.IsNil(err))
	return found
}

// TestBlocks checks that each block is of a known kind, gives the reason if it is not
// run, and can be parsed if it is data.
func TestBlocks(t *testing.T) {
	tested := []string{"sh", "go", "yaml", "json", "toml", "sh norun", "console", "text"}
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			reason, isReason := strings.CutPrefix(b.comment, "not run: ")
			switch {
			case !slices.Contains(tested, b.info):
				t.Errorf("%v: the block has the language %q: it must be one of %q", b, b.info, tested)
			case b.info == "sh norun" && reason == "":
				t.Errorf("%v: above the block must be a comment with the reason: <!-- not run: REASON -->", b)
			case b.info != "sh norun" && isReason:
				t.Errorf("%v: the comment above says that the block is not run: use the language \"sh norun\"", b)
			}
			if err := parse(b); err != nil {
				t.Errorf("%v: %v", b, err)
			}
		}
	}
}

// parse parses a block of YAML, JSON or TOML.
func parse(b block) error {
	var v any
	switch b.info {
	case "yaml":
		return yaml.Unmarshal([]byte(b.code), &v)
	case "json":
		return json.Unmarshal([]byte(b.code), &v)
	case "toml":
		return toml.Unmarshal([]byte(b.code), &v)
	}
	return nil
}
