// SPDX-License-Identifier: Apache-2.0

// Command berth completion, and the completion of values.

package main

import (
	"embed"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completionScripts has scripts for bash, zsh and fish, which ask Cobra's hidden command
// __complete for the candidates. Cobra's own script for bash requires the package
// bash-completion, that for zsh does not complete --flag=PATH in a folder whose name has a
// space, and that for fish fails where --store=d becomes --store=dir: (spf13/cobra v1.10.2).
//
//go:embed completions
var completionScripts embed.FS

// completionCommand returns berth completion.
func completionCommand() *cobra.Command {
	var shell string
	var cmd *cobra.Command
	cmd = newCommand("completion SHELL", "Print a script for the completion of commands in a shell.",
		"Print a script that makes the shell complete the commands, flags and values of berth. To use it, add one of these lines to the shell's startup file:\n\n"+
			"bash: source <(berth completion bash)\n\n"+
			"zsh, after compinit: source <(berth completion zsh)\n\n"+
			"fish: berth completion fish | source\n\n"+
			"PowerShell: berth completion powershell | Out-String | Invoke-Expression\n\n"+
			"The script asks berth for the completions, so it need not change when berth does.",
		func(stdout io.Writer, _ logOutput) error {
			if shell == "powershell" {
				return cmd.Root().GenPowerShellCompletionWithDesc(stdout)
			}
			script, err := completionScripts.ReadFile("completions/berth." + shell)
			if err == nil {
				_, err = stdout.Write(script)
			}
			return err
		})
	cmd.ValidArgs = []string{"bash", "zsh", "fish", "powershell"}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("expected a SHELL: " + strings.Join(cmd.ValidArgs, ", "))
		}
		shell = args[0]
		if !slices.Contains(cmd.ValidArgs, shell) {
			return notOneOf(shell, cmd.ValidArgs)
		}
		return noArguments(cmd, args[1:])
	}
	return cmd
}

// prepareCompletion prepares the command in words for the completion of its subcommands,
// flags and arguments.
func prepareCompletion(root *cobra.Command, words []string) {
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	cmd, _, err := root.Find(words)
	if err != nil {
		return // nothing can be completed
	}
	cmd.FParseErrWhitelist.UnknownFlags = true
	for _, c := range cmd.Commands() {
		c.Short = strings.TrimSuffix(c.Short, ".")
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if complete := completionOf(f); complete != nil {
			cmd.RegisterFlagCompletionFunc(f.Name, complete)
		}
		// The first sentence is the description.
		_, f.Usage = pflag.UnquoteUsage(f)
		f.Usage, _, _ = strings.Cut(f.Usage, ". ")
		f.Usage = strings.TrimSuffix(f.Usage, ".")
	})
}

// completionOf returns the function that completes the values of a flag, nil if there is
// none.
func completionOf(f *pflag.Flag) cobra.CompletionFunc {
	switch v := f.Value.(type) {
	case enumValue:
		return completeWord(v.words...)
	case *levelValue:
		return completeWord("debug", "info", "warn", "error")
	}
	switch name, _ := pflag.UnquoteUsage(f); name {
	case "FILE":
		return completeFile
	case "DIR":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case "STORE":
		return func(_ *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
			return completeStore(word)
		}
	}
	return nil
}

// completeWord returns a function that completes one of words.
func completeWord(words ...string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) (found []string, _ cobra.ShellCompDirective) {
		for _, word := range words {
			if strings.HasPrefix(word, prefix) {
				found = append(found, word)
			}
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFile leaves the completion of a file's name to the shell.
func completeFile(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

// completeStore returns the candidates for the name of a store. Each continues.
func completeStore(word string) ([]string, cobra.ShellCompDirective) {
	var found []string
	add := func(value, description string) {
		if strings.HasPrefix(value, word) {
			found = append(found, cobra.CompletionWithDesc(value, description))
		}
	}
	if path, ok := strings.CutPrefix(word, "dir:"); ok {
		// No shell knows that this is a path.
		parent, base := filepath.Split(path)
		entries, _ := os.ReadDir(filepath.Clean(parent)) // an unreadable folder has no candidates
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(base, ".") {
				continue
			}
			if info, err := os.Stat(filepath.Join(parent, e.Name())); err == nil && info.IsDir() {
				add("dir:"+parent+e.Name()+"/", "")
			}
		}
	} else {
		add("mem:", "in memory")
		add("dir:", "a directory of OCI image layouts")
		add("s3://", "a bucket of S3")
		add("gs://", "a bucket of Google Cloud Storage")
		add("azblob://", "a container of Azure Blob Storage")
		add("file://", "a bucket in a folder")
	}
	return found, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}
