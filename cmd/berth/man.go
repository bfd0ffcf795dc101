// SPDX-License-Identifier: Apache-2.0

// Command berth man.

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand returns berth man.
func manCommand() *cobra.Command {
	var cmd *cobra.Command
	cmd = newCommand("man", "Print the manual page.", "Print the manual page berth(1), in roff. To read it: berth man | man -l -",
		func(stdout io.Writer, _ logOutput) error {
			_, err := stdout.Write(manPage(cmd.Root()))
			return err
		})
	return cmd
}

// manPage returns the manual page of the command line.
func manPage(root *cobra.Command) []byte {
	p := new(roff)
	p.line(`.TH BERTH 1 "" "berth %s"`, escape(version()))
	p.line(".SH NAME")
	p.line(`berth \- %s`, escape(strings.TrimSuffix(root.Short, ".")))
	p.line(".SH SYNOPSIS")
	p.line(`.B berth`)
	p.line(`.I command`)
	p.line(`[\fIflag\fR ...] [\fIargument\fR ...]`)
	p.line(".SH DESCRIPTION\n%s", escape(root.Long))
	p.line(".SH COMMANDS")
	for _, cmd := range root.Commands() {
		p.command(cmd)
	}
	p.line(".SH OTHER FLAGS")
	root.Flags().VisitAll(p.flag)
	p.line(".SH EXIT STATUS")
	for _, status := range [][2]string{{"0", "success"}, {"1", "an error"}, {"2", "an error in the command line"}} {
		p.line(".TP\n.B %s\n%s", status[0], status[1])
	}
	p.line(".SH SEE ALSO")
	p.line("https://github.com/berth\\-oci/registry")
	return p.Bytes()
}

// roff is a manual page in the macros of man(7).
type roff struct{ bytes.Buffer }

func (p *roff) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// command appends the section of a command, or those of its subcommands.
func (p *roff) command(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		p.command(c)
	}
	if cmd.HasSubCommands() {
		return
	}
	p.line(".SS %s\n%s", escape(cmd.UseLine()), escape(cmd.Short))
	for paragraph := range strings.SplitSeq(cmd.Long, "\n\n") {
		p.line(".PP\n%s", escape(paragraph))
	}
	described := new(pflag.FlagSet)
	if parent := cmd.Parent().Name(); parent == "config" || parent == "mirror" { // their flags are those of berth serve, as their help says
		described = new(serveCmd).command().Flags()
	}
	for title, flags := range flagGroups(cmd) {
		flags.VisitAll(func(f *pflag.Flag) {
			if described.Lookup(f.Name) != nil {
				title = ""
			}
		})
		if title == "" {
			continue
		}
		if title != "Flags" {
			p.line(".PP\n.B %s:", escape(title))
		}
		flags.VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				p.flag(f)
			}
		})
	}
}

// flag appends a flag.
func (p *roff) flag(f *pflag.Flag) {
	name := `\fB` + escape("--"+f.Name) + `\fR`
	if f.Shorthand != "" {
		name = `\fB` + escape("-"+f.Shorthand) + `\fR, ` + name
	}
	value, usage := pflag.UnquoteUsage(f)
	if value != "" {
		name += ` \fI` + escape(value) + `\fR`
	}
	if hasDefault(f) {
		usage += " (default " + f.DefValue + ")"
	}
	p.line(".TP\n%s\n%s", name, escape(usage))
}

// escape returns text that roff prints as it is.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return strings.ReplaceAll(s, "\n", " ")
}
