// SPDX-License-Identifier: Apache-2.0

// Command berth completion.

package main

import (
	"embed"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// completionCmd is berth completion.
type completionCmd struct {
	Shell string   `arg:"" help:"The shell: bash, zsh, fish or powershell." enum:"bash,zsh,fish,powershell"`
	Words []string `arg:"" optional:"" help:"The words after berth of a command line that is to be completed, the last of them incomplete. The scripts pass them after --."`
}

// Help is shown by berth completion --help.
func (completionCmd) Help() string {
	return "Print a script that makes the shell complete the commands, flags and values of berth. To use it, add one of these lines to the shell's startup file:\n\n" +
		"bash: source <(berth completion bash)\n\n" +
		"zsh, after compinit: source <(berth completion zsh)\n\n" +
		"fish: berth completion fish | source\n\n" +
		"PowerShell: berth completion powershell | Out-String | Invoke-Expression\n\n" +
		"The script asks berth for the completions, so it need not change when berth does. With words, print the completions of the last one: a line for each, with a tab before its description, or a line :files or :dirs."
}

// completionScripts has a script for each shell. A script runs berth completion with
// the words of the command line, and leaves the completion of file names to its shell,
// which knows about quotes and ~.
//
//go:embed completions
var completionScripts embed.FS

func (c *completionCmd) Run(ctx *kong.Context, stdout io.Writer) error {
	if len(c.Words) == 0 {
		script, err := completionScripts.ReadFile("completions/berth." + c.Shell)
		if err == nil {
			_, err = stdout.Write(script)
		}
		return err
	}
	for _, candidate := range complete(ctx.Model.Node, c.Words) {
		if _, err := fmt.Fprintln(stdout, candidate); err != nil {
			return err
		}
	}
	return nil
}

// The candidates of a word that is a path. A shell replaces them by names of files.
const (
	anyFile = ":files"
	anyDir  = ":dirs"
)

// complete returns the candidates for the last of the words of a command line: each
// is a whole word and, after a tab, its description.
func complete(node *kong.Node, words []string) []string {
	var (
		pending  *kong.Flag // takes the next word as its value
		onlyArgs bool       // there was a --
		args     int        // positional arguments
		given    = make(map[string]bool)
	)
	last := len(words) - 1
	for _, word := range words[:last] {
		switch {
		case pending != nil:
			pending = nil
		case onlyArgs || !strings.HasPrefix(word, "-"):
			if child := findCommand(node, word); child != nil {
				node = child
			} else {
				args++
			}
		case word == "--":
			onlyArgs = true
		default:
			name, _, hasValue := strings.Cut(word, "=")
			if f := findFlag(node, name); f != nil {
				given[f.Name] = !f.IsCumulative()
				if !hasValue && !f.IsBool() && !f.IsCounter() {
					pending = f
				}
			}
		}
	}

	word := words[last]
	if pending != nil {
		return valuesOf(pending.Value, word, "")
	}
	if !onlyArgs && strings.HasPrefix(word, "-") {
		if name, value, ok := strings.Cut(word, "="); ok {
			if f := findFlag(node, name); f != nil {
				return valuesOf(f.Value, value, name+"=")
			}
			return nil
		}
		return flagNames(node, word, given)
	}
	var found []string
	for _, child := range node.Children {
		if !child.Hidden {
			found = appendCandidate(found, word, child.Name, child.Help)
		}
	}
	if n := len(node.Positional); n > 0 && (args < n || node.Positional[n-1].IsCumulative()) {
		found = append(found, valuesOf(node.Positional[min(args, n-1)], word, "")...)
	}
	return found
}

func findCommand(node *kong.Node, name string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == name || slices.Contains(child.Aliases, name) {
			return child
		}
	}
	return nil
}

// findFlag returns the flag with a name such as --store or -v.
func findFlag(node *kong.Node, name string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if name == "--"+f.Name || f.Short != 0 && name == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

// flagNames returns the flags that begin with prefix and that are not given yet.
func flagNames(node *kong.Node, prefix string, given map[string]bool) []string {
	var found []string
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if !given[f.Name] {
				found = appendCandidate(found, prefix, "--"+f.Name, f.Help)
			}
		}
	}
	return found
}

// valuesOf returns the candidates for a value of a flag or of a positional argument.
// Before is the part of the word before the value.
func valuesOf(v *kong.Value, prefix, before string) []string {
	var found []string
	switch {
	case v.Enum != "":
		for _, value := range v.EnumSlice() {
			found = appendCandidate(found, prefix, value, "")
		}
	case v.Target.Type() == reflect.TypeFor[slog.Level]():
		for _, value := range []string{"debug", "info", "warn", "error"} {
			found = appendCandidate(found, prefix, value, "")
		}
	case v.Tag.Type == "existingdir" || v.Tag.PlaceHolder == "DIR":
		return []string{anyDir}
	case v.Tag.Type == "path" || v.Tag.Type == "existingfile" || v.Tag.PlaceHolder == "FILE":
		return []string{anyFile}
	case v.Tag.PlaceHolder == "STORE":
		found = stores(prefix)
	}
	for i := range found {
		found[i] = before + found[i]
	}
	return found
}

// stores returns the candidates for the name of a store.
func stores(prefix string) []string {
	path, ok := strings.CutPrefix(prefix, "dir:")
	if !ok {
		var found []string
		for _, kind := range [][2]string{
			{"mem:", "in memory"},
			{"dir:", "a directory of OCI image layouts"},
			{"s3://", "a bucket of S3"},
			{"gs://", "a bucket of Google Cloud Storage"},
			{"azblob://", "a container of Azure Blob Storage"},
			{"file://", "a bucket in a folder"},
		} {
			found = appendCandidate(found, prefix, kind[0], kind[1])
		}
		return found
	}
	// No shell knows that this is a path.
	parent, base := filepath.Split(path)
	entries, _ := os.ReadDir(filepath.Clean(parent)) // an unreadable folder has no candidates
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(base, ".") {
			continue
		}
		if info, err := os.Stat(filepath.Join(parent, e.Name())); err == nil && info.IsDir() {
			found = appendCandidate(found, prefix, "dir:"+parent+e.Name()+"/", "")
		}
	}
	return found
}

// appendCandidate appends a candidate to found if it begins with prefix. The
// description is the first sentence of help.
func appendCandidate(found []string, prefix, value, help string) []string {
	if !strings.HasPrefix(value, prefix) {
		return found
	}
	if help, _, _ = strings.Cut(help, ". "); help != "" {
		value += "\t" + strings.TrimSuffix(help, ".")
	}
	return append(found, value)
}
