// SPDX-License-Identifier: Apache-2.0

// Commands and their help. Cobra without templates, like all of this program, calls no
// method by a name that is known only at run time. A program that does has to contain
// each exported method of each type: here 10 MB of them.

package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot returns the command berth, for the command line args.
func newRoot(args []string) *cobra.Command {
	cobra.EnableCommandSorting = false
	var printVersion bool
	root := newCommand("berth", "An OCI registry in one process.",
		"Each flag of a command can also be set by an environment variable: --max-blob by BERTH_MAX_BLOB.", nil,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.BoolVar(&printVersion, "version", false, "Print the version.")
		}})
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if printVersion {
			return versionCommand().RunE(cmd, args)
		}
		return missingCommand(cmd)
	}
	root.SetFlagErrorFunc(explainFlag)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(
		(&serveCmd{args: args}).command(),
		new(copyCmd).command(),
		new(loadCmd).command(),
		new(saveCmd).command(),
		new(lsCmd).command(),
		new(rmCmd).command(),
		new(gcCmd).command(),
		new(foldCmd).command(),
		new(checkCmd).command(),
		new(passwdCmd).command(),
		configCommand(),
		mirrorCommand(),
		versionCommand(),
		completionCommand(),
		manCommand(),
	)
	if len(args) > 1 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		prepareCompletion(root, args[1:len(args)-1])
	}
	return root
}

// flagGroup is a group of flags, with a title in the help.
type flagGroup struct {
	title  string
	define func(*pflag.FlagSet)
}

// groupAnnotation is the key of a flag's annotation with the title of its group.
const groupAnnotation = "berth_group"

// failure is the error of a command that has run, not one of the command line.
type failure struct{ error }

// newCommand returns a command. It takes no arguments, and its flags can be set by the
// environment. A command without a function to run is for its subcommands.
func newCommand(use, short, long string, run func(stdout io.Writer, logs logOutput) error, groups ...flagGroup) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: noArguments,
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return missingCommand(cmd) },
	}
	if run != nil {
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return setFromEnvironment(cmd.Flags()) }
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			if err := run(cmd.OutOrStdout(), logOutput{cmd.ErrOrStderr()}); err != nil {
				return failure{err}
			}
			return nil
		}
	}
	if len(groups) == 0 {
		groups = []flagGroup{{"Flags", func(*pflag.FlagSet) {}}}
	}
	cmd.Flags().SortFlags = false
	for i, g := range groups {
		set := pflag.NewFlagSet("", pflag.PanicOnError)
		set.SortFlags = false
		g.define(set)
		if i == 0 {
			set.BoolP("help", "h", false, "Show this help.")
		}
		set.VisitAll(func(f *pflag.Flag) {
			set.SetAnnotation(f.Name, groupAnnotation, []string{g.title})
			f.DefValue = shortDefault(f)
		})
		cmd.Flags().AddFlagSet(set)
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd.OutOrStdout(), cmd) })
	return cmd
}

// shortDefault returns a flag's default value for the help: 1h instead of 1h0m0s, and
// lists without brackets.
func shortDefault(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "duration":
		return shortTime(f.DefValue)
	case "stringArray":
		if f.DefValue != "[]" {
			return strings.Trim(f.DefValue, "[]")
		}
	}
	return f.DefValue
}

// shortTime returns a [time.Duration]'s text without units that are 0.
func shortTime(s string) string {
	for _, unit := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, unit) {
			s = s[:len(s)-len("0s")]
		}
	}
	return s
}

// flagGroups returns the groups of a command's flags.
func flagGroups(cmd *cobra.Command) iter.Seq2[string, *pflag.FlagSet] {
	return func(yield func(string, *pflag.FlagSet) bool) {
		var titles []string
		groups := make(map[string]*pflag.FlagSet)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			title := f.Annotations[groupAnnotation][0]
			if groups[title] == nil {
				titles = append(titles, title)
				groups[title] = pflag.NewFlagSet("", pflag.PanicOnError)
				groups[title].SortFlags = false
			}
			groups[title].AddFlag(f)
		})
		for _, title := range titles {
			if !yield(title, groups[title]) {
				return
			}
		}
	}
}

// helpWidth is the number of columns of the help.
const helpWidth = 80

func printHelp(w io.Writer, cmd *cobra.Command) {
	usage := cmd.UseLine()
	if cmd.HasSubCommands() {
		usage = cmd.CommandPath() + " COMMAND [flags]"
	}
	fmt.Fprintf(w, "Usage: %s\n\n%s\n", usage, cmd.Short)
	for paragraph := range strings.SplitSeq(cmd.Long, "\n\n") {
		io.WriteString(w, wrap(paragraph))
	}
	if cmd.HasSubCommands() {
		io.WriteString(w, "\nCommands:\n")
		for _, c := range cmd.Commands() {
			fmt.Fprintf(w, "  %-11s %s\n", c.Name(), c.Short)
		}
	}
	for title, flags := range flagGroups(cmd) {
		fmt.Fprintf(w, "\n%s:\n%s", title, flags.FlagUsagesWrapped(helpWidth))
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(w, "\nRun \"%s COMMAND --help\" for more.\n", cmd.CommandPath())
	}
}

// wrap returns a paragraph in lines, after an empty one.
func wrap(paragraph string) string {
	var s strings.Builder
	n := helpWidth // so that the first word begins a line
	for word := range strings.FieldsSeq(paragraph) {
		if n+1+len(word) > helpWidth {
			s.WriteString("\n" + word)
			n = len(word)
		} else {
			s.WriteString(" " + word)
			n += 1 + len(word)
		}
	}
	if s.Len() > 0 {
		s.WriteString("\n")
	}
	return s.String()
}

// helpCommand returns berth help, which does the same as --help.
func helpCommand() *cobra.Command {
	cmd := newCommand("help [COMMAND...]", "Show the help of a command.", "", nil)
	cmd.Args = cobra.ArbitraryArgs
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		target, _, err := cmd.Root().Find(args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeWord(commandNames(target)...)(cmd, args, word)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		target, rest, err := cmd.Root().Find(args)
		if err != nil || len(rest) > 0 {
			return noArguments(target, rest)
		}
		return target.Help()
	}
	return cmd
}

// noArguments rejects arguments of a command.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return fmt.Errorf("unknown command %q%s", args[0], didYouMean(args[0], commandNames(cmd)))
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

func missingCommand(cmd *cobra.Command) error {
	return fmt.Errorf(`expected one of "%s"`, strings.Join(commandNames(cmd), `", "`))
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return names
}

func flagNames(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return names
}

// explainFlag returns a clearer error than pflag's for a flag of the command line.
func explainFlag(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
		return noArguments(cmd, args) // the flag is one of a mistyped command
	}
	var unknown *pflag.NotExistError
	var wrong *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if name := nearest(unknown.GetSpecifiedName(), flagNames(cmd.Flags())); name != "" {
			return fmt.Errorf("%w: did you mean --%s?", err, name)
		}
	case errors.As(err, &wrong):
		return fmt.Errorf("--%s: %w", wrong.GetFlag().Name, wrongValue(wrong.GetFlag(), wrong.GetValue(), wrong.Unwrap()))
	}
	return err
}
