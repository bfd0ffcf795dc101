// SPDX-License-Identifier: Apache-2.0

// Mutation tests: the simulation must notice when a line of the store is wrong.

package bucket_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

var simMutants = flag.Bool("mutants", false, "check that simulations find mistakes in the store")

// mutants are changes of the store's source, each of which is a mistake. The old
// text must occur exactly once in the file.
var mutants = []struct {
	name, file, old, new string
}{
	{"drop the read-back", "registers.go",
		"case now.id == id:", "case false:"},
	{"skip the inverse link", "publish.go",
		"func() error { return s.put(ctx, inverseKey(p.digest, l, p.repo), nil) },", ""},
	{"condemn without listing after", "gc.go",
		"g.stats.Condemned++", "g.stats.Condemned++\nif err := s.remove(ctx, dataKey(d, name)); err != nil { return err }"},
	{"trust the local clock", "clock.go",
		"ahead := page[0].Time.Sub(before)", "ahead := 0 * page[0].Time.Sub(before)"},
	{"retry a tag write", "registers.go",
		"next.object.Version, err = s.bucket.Put(", "if attempt > 0 { c = objects.Condition{} }\nnext.object.Version, err = s.bucket.Put("},
	{"publish before the data", "publish.go",
		"return p.write(dataKey(p.digest, l.Data))", "time.AfterFunc(time.Second, func() { p.write(dataKey(p.digest, l.Data)) })\nreturn nil"},
}

// TestMutants runs TestSimulation with each mutant, and expects it to fail.
func TestMutants(t *testing.T) {
	if !*simMutants {
		t.Skip("-mutants is not set")
	}
	dir, err := os.Getwd()
	qt.Assert(t, qt.IsNil(err))
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			file := filepath.Join(dir, m.file)
			source, err := os.ReadFile(file)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(strings.Count(string(source), m.old), 1), qt.Commentf("%q in %s", m.old, m.file))
			mutant := filepath.Join(t.TempDir(), filepath.Base(m.file))
			qt.Assert(t, qt.IsNil(os.WriteFile(mutant, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600)))
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutant}})
			qt.Assert(t, qt.IsNil(err))
			list := filepath.Join(t.TempDir(), "overlay.json")
			qt.Assert(t, qt.IsNil(os.WriteFile(list, overlay, 0o600)))

			cmd := exec.Command("go", "test", "-overlay="+list, "-count=1", "-run=^TestSimulation$", "-timeout=30m", ".", "-seeds=1000", "-no-shrink")
			out, err := cmd.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("no simulation has found it")
			case !strings.Contains(string(out), "seed "):
				t.Errorf("TestSimulation fails for another reason: %v\n%s", err, out)
			default:
				t.Logf("found: %s", regexp.MustCompile(`seed \d+: .*`).FindString(string(out)))
			}
		})
	}
}
