// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestWrongCommandLines checks the message for each mistake in a command line, or in the
// environment.
func TestWrongCommandLines(t *testing.T) {
	t.Setenv("HOME", "/nonexistent")
	for _, test := range []struct {
		env  string // "" or NAME=VALUE
		args string
		want string // on standard error, after "berth: "
	}{
		{"", "srve --store x", `unknown command "srve": did you mean "serve"?` + "\nSee berth --help."},
		{"", "config", `expected one of "check", "print"` + "\nSee berth config --help."},
		{"", "config prnt --addr x", `unknown command "prnt": did you mean "print"?` + "\nSee berth config --help."},
		{"", "help srve", `unknown command "srve": did you mean "serve"?` + "\nSee berth help --help."},
		{"", "serve --stor mem:", `unknown flag: --stor: did you mean --store?` + "\nSee berth serve --help."},
		{"", "serve --nonsense", "unknown flag: --nonsense\nSee berth serve --help."},
		{"", "gc -x", "unknown shorthand flag: 'x' in -x\nSee berth gc --help."},
		{"", "serve mem:", `unexpected argument "mem:"` + "\nSee berth serve --help."},
		{"", "ls --from mem: a b", `unexpected argument "b"` + "\nSee berth ls --help."},
		{"", "copy mem:", "expected two stores: FROM and TO\nSee berth copy --help."},
		{"", "completion tcsh", `"tcsh" is not one of bash, zsh, fish, powershell` + "\nSee berth completion --help."},
		{"", "save a:b", `required flag(s) "from", "output" not set` + "\nSee berth save --help."},
		{"", "serve --store", "flag needs an argument: --store\nSee berth serve --help."},
		{"", "serve --connections=many", `--connections: "many" is not a whole number` + "\nSee berth serve --help."},
		{"", "serve --log-format=xml", `--log-format: "xml" is not one of text, json` + "\nSee berth serve --help."},
		{"", "serve --htpasswd=~/users", "--htpasswd: stat /nonexistent/users: no such file or directory\nSee berth serve --help."},
		{"", "serve --htpasswd=", "--htpasswd: a path is missing\nSee berth serve --help."},
		{"BERTH_GRACE=soon", "gc --store mem:", `BERTH_GRACE: "soon" is not a time such as 30s, 5m or 1h30m` + "\nSee berth gc --help."},
		{"BERTH_RULES=/", "serve", "BERTH_RULES: open /: is a directory\nSee berth serve --help."},
		// The command line has precedence, and a variable is enough for a required flag.
		{"BERTH_GRACE=soon", "fold --store mem:", "mem: has no journals"},
		{"BERTH_STORE=mem:", "fold", "mem: has no journals"},
		{"BERTH_STORE=dir:x", "fold --store mem:", "mem: has no journals"},
	} {
		t.Run(test.args, func(t *testing.T) {
			if name, value, ok := strings.Cut(test.env, "="); ok {
				t.Setenv(name, value)
			}
			wantStatus := 1
			if strings.Contains(test.want, "\nSee ") {
				wantStatus = 2
			}
			status, stdout, stderr := runBerth(t, nil, strings.Fields(test.args)...)
			if status != wantStatus || stdout != "" || stderr != "berth: "+test.want+"\n" {
				t.Errorf("status %d, %s%s", status, stdout, stderr)
			}
		})
	}
}

// TestSizeText checks the forms in which sizes are printed: exact, with the largest unit.
func TestSizeText(t *testing.T) {
	for text, want := range map[string]string{
		"0": "", "1": "1", "1000": "1000", "1.5g": "1536MiB", "4MiB": "4MiB", "1t": "1TiB", "2048TiB": "2048TiB",
	} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, _ := s.MarshalText(); string(got) != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
