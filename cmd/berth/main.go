// SPDX-License-Identifier: Apache-2.0

// Command berth runs an OCI registry.
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run runs the command line args and returns the exit status.
func run(args []string, stdout, stderr io.Writer) (status int) {
	root := newRoot(args)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(failure)):
		fmt.Fprintf(stderr, "berth: %v\n", err)
		return 1
	}
	fmt.Fprintf(stderr, "berth: %v\nSee %s --help.\n", err, cmd.CommandPath())
	return 2
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

// versionCommand returns berth version.
func versionCommand() *cobra.Command {
	return newCommand("version", "Print the version.", "", func(stdout io.Writer, _ logOutput) error {
		fmt.Fprintf(stdout, "berth %s\n", version())
		return nil
	})
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
