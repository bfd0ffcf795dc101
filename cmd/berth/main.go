// SPDX-License-Identifier: Apache-2.0

// Command berth runs an OCI registry.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"
	"github.com/docker/go-units"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	Serve   serveCmd   `cmd:"" help:"Serve a registry."`
	Copy    copyCmd    `cmd:"" help:"Copy content from one store to another."`
	Load    loadCmd    `cmd:"" help:"Load images from archives."`
	Save    saveCmd    `cmd:"" help:"Save images to an archive."`
	Ls      lsCmd      `cmd:"" help:"List repositories, tags and referrers."`
	Rm      rmCmd      `cmd:"" help:"Delete tags, manifests or repositories."`
	GC      gcCmd      `cmd:"" name:"gc" help:"Remove unused content from a store."`
	Fold    foldCmd    `cmd:"" help:"Bring a directory's layouts up to date for other tools."`
	Check   checkCmd   `cmd:"" help:"Verify a directory's content."`
	Passwd  passwdCmd  `cmd:"" help:"Make an entry for a file of users."`
	Config  configCmd  `cmd:"" help:"Check or print a server's configuration."`
	Version versionCmd `cmd:"" help:"Print the version."`

	Completion completionCmd `cmd:"" help:"Print a script for the completion of commands in a shell."`
	Man        manCmd        `cmd:"" help:"Print the manual page."`

	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Print the version."`
}

// exited is a panic after kong has printed the help.
type exited int

// parse parses the command line args.
func parse(args []string, stdout, stderr io.Writer) (*cli, *kong.Context, error) {
	c := new(cli)
	parser, err := kong.New(c,
		kong.Name("berth"),
		kong.Description("An OCI registry in one process."),
		kong.ExplicitGroups(flagGroups),
		kong.Vars{"version": "berth " + version()},
		kong.UsageOnError(),
		kong.DefaultEnvars(envPrefix),
		kong.Writers(stdout, stderr),
		kong.Exit(func(status int) { panic(exited(status)) }),
		kong.BindTo(stdout, (*io.Writer)(nil)),
		kong.Bind(logOutput{stderr}),
	)
	if err != nil {
		panic(err) // the struct tags are wrong
	}
	ctx, err := parser.Parse(args)
	for _, s := range []*serveCmd{&c.Serve, &c.Config.Check.serveCmd, &c.Config.Print.serveCmd} {
		err = s.file.explain(err)
	}
	if err != nil {
		return nil, nil, err
	}
	c.Serve.flags = ctx.Selected().Flags
	c.Serve.parseAgain = func() (*serveCmd, error) {
		again, _, err := parse(args, io.Discard, io.Discard)
		if err != nil {
			return nil, err
		}
		return &again.Serve, nil
	}
	return c, ctx, nil
}

// run runs the command line args and returns the exit status.
func run(args []string, stdout, stderr io.Writer) (status int) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exited:
			status = int(e)
		default:
			panic(e)
		}
	}()
	_, ctx, err := parse(args, stdout, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "berth: %v\nSee berth --help.\n", err)
		return 2
	}
	if err := ctx.Run(); err != nil {
		fmt.Fprintf(stderr, "berth: %v\n", err)
		return 1
	}
	return 0
}

// logOutput is the destination of logs.
type logOutput struct{ io.Writer }

// warn logs a warning about a store.
func (o logOutput) warn(text string) { fmt.Fprintf(o, "berth: warning: %s\n", text) }

// logger returns a logger of warnings and errors.
func (o logOutput) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(o, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// failed logs a failure of a bucket.
func (o logOutput) failed(err error) { fmt.Fprintf(o, "berth: %v\n", err) }

// size is a number of bytes, in a form like 4MiB or 1.5g.
type size int64

func (s *size) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err == nil && n < 0 {
		err = fmt.Errorf("negative size %q", text)
	}
	*s = size(n)
	return err
}

type versionCmd struct{}

func (versionCmd) Run(stdout io.Writer) error {
	fmt.Fprintf(stdout, "berth %s\n", version())
	return nil
}

// version returns the version of the module, or the commit that the command was
// built from, and the Go release.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && v == "(devel)":
			v = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			v += " modified"
		}
	}
	return v + " " + info.GoVersion
}
