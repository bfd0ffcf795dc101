// SPDX-License-Identifier: Apache-2.0

// Command berth man.

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// manCmd is berth man.
type manCmd struct{}

// Help is shown by berth man --help.
func (manCmd) Help() string {
	return "Print the manual page berth(1), in roff. To read it: berth man | man -l -"
}

func (manCmd) Run(ctx *kong.Context, stdout io.Writer) error {
	_, err := stdout.Write(manPage(ctx.Model))
	return err
}

// manPage returns the manual page of the command line.
func manPage(app *kong.Application) []byte {
	p := new(roff)
	p.line(`.TH BERTH 1 "" "berth %s"`, escape(version()))
	p.line(".SH NAME")
	p.line(`berth \- %s`, escape(strings.TrimSuffix(app.Help, ".")))
	p.line(".SH SYNOPSIS")
	p.line(`.B berth`)
	p.line(`.I command`)
	p.line(`[\fIflag\fR ...] [\fIargument\fR ...]`)
	p.line(".SH COMMANDS")
	for _, cmd := range app.Leaves(true) {
		p.command(cmd)
	}
	p.line(".SH FLAGS OF ALL COMMANDS")
	for _, f := range app.Flags {
		p.flag(f)
	}
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

// command appends the section of a command. Its flags follow those without a group,
// in the order of the help.
func (p *roff) command(cmd *kong.Node) {
	p.line(".SS berth %s\n%s", escape(cmd.Summary()), escape(cmd.Help))
	if cmd.Detail != "" {
		p.text(cmd.Detail)
	}
	for _, arg := range cmd.Positional {
		p.line(".TP\n.I %s", escape(arg.Name))
		p.line("%s", escape(kong.DefaultHelpValueFormatter(arg)))
	}
	if cmd.Parent.Name == "config" { // its flags are those of berth serve, as its help says
		return
	}
	var titles []string
	inGroup := make(map[string][]*kong.Flag)
	for _, f := range cmd.Flags {
		switch {
		case f.Hidden:
		case f.Group == nil:
			p.flag(f)
		default:
			title := f.Group.Title
			if inGroup[title] == nil {
				titles = append(titles, title)
			}
			inGroup[title] = append(inGroup[title], f)
		}
	}
	for _, title := range titles {
		p.line(".PP\n.B %s", escape(title))
		for _, f := range inGroup[title] {
			p.flag(f)
		}
	}
}

// flag appends a flag.
func (p *roff) flag(f *kong.Flag) {
	if f.Hidden {
		return
	}
	name := `\fB` + escape("--"+f.Name) + `\fR`
	if f.Short != 0 {
		name = `\fB` + escape("-"+string(f.Short)) + `\fR, ` + name
	}
	if !f.IsBool() && !f.IsCounter() {
		name += `=\fI` + escape(f.FormatPlaceHolder()) + `\fR`
	}
	p.line(".TP\n%s", name)
	p.line("%s", escape(kong.DefaultHelpValueFormatter(f.Value)))
}

// text appends paragraphs, which empty lines separate.
func (p *roff) text(s string) {
	for paragraph := range strings.SplitSeq(s, "\n\n") {
		p.line(".PP\n%s", escape(strings.TrimSpace(paragraph)))
	}
}

// escape returns text that roff prints as it is.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return strings.ReplaceAll(s, "\n", " ")
}
