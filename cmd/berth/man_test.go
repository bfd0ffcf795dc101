// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMan formats the manual page without a warning, and checks that it has each
// command and flag.
func TestMan(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("groff is not installed: apt-get install groff-base")
	}
	var page, warnings bytes.Buffer
	if status := run([]string{"man"}, &page, os.Stderr); status != 0 {
		t.Fatal("status", status)
	}
	cmd := exec.Command(groff, "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=1000n")
	cmd.Stdin, cmd.Stderr = &page, &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Fatalf("%v: %s", err, &warnings)
	}
	text := string(out)
	for _, want := range []string{
		"berth - An OCI registry in one process",
		"berth serve [flags]",
		"berth copy FROM TO [REPO...] [flags]",
		"--addr ADDR",
		"berth config print [flags]",
		"-v, --verbose",
		"-h, --help",
		"A STORE is mem: (memory), dir:PATH", // a paragraph of berth copy --help
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if n := strings.Count(text, "Limits:"); n != 1 {
		t.Errorf("the flags of a group are in %d places", n)
	}
}
