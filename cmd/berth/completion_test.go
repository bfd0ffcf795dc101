// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// Directives of Cobra: the shell completes names of files or folders.
const (
	files   = ":0"
	folders = ":16"
)

// completions returns the words that the last word can be completed to.
func completions(t *testing.T, words ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := run(append([]string{"__complete"}, words...), &stdout, &stderr); status != 0 {
		t.Fatalf("status %d: %s", status, &stderr)
	}
	var found []string
	for line := range strings.Lines(stdout.String()) {
		value, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if !strings.HasPrefix(value, ":") || value == files || value == folders {
			found = append(found, value)
		}
	}
	return strings.Join(found, " ")
}

func TestCompletion(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, dir := range []string{"data/one", "data/other", "data/.hidden"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ words, want string }{
		{"|se", "serve"},
		{"|--ver", "--version"},
		{"gc|x", ""},
		{"completion|", "bash zsh fish powershell"},
		{"completion|bash|", ""},

		{"serve|--tls-c", "--tls-cert --tls-client-ca --tls-client-auth"},
		{"serve|--tls-cert|c|--tls-c", "--tls-client-ca --tls-client-auth"}, // given already
		{"serve|--host|a|--hos", "--host"},                                  // may be given again
		{"gc|-", "--store"},
		{"gc|--store|mem:|-", "--config --grace --untagged --dry-run --verbose -v --help -h"},
		{"gc|-v|", "--store"},          // required
		{"gc|--store|mem:|--|--c", ""}, // no flag
		{"config|", "check print"},
		{"help|config|p", "print"},
		{"config|print|--read", "--read-only"},

		{"serve|--log-format|", "text json"},
		{"serve|--log-format|x", ""},
		{"serve|--log-format=j", "json"},
		{"serve|--log-level|", "debug info warn error"},
		{"serve|--read-only|--log-level|w", "warn"},
		{"serve|--addr|", ""},
		{"serve|--htpasswd|", files},
		{"serve|--htpasswd=u", files},
		{"serve|--tls-dir|", folders},
		{"serve|--rules|missing|--read", "--read-only"},
		{"load|--to|mem:|a", files},
		{"serve|--unknown|--no-d", "--no-delete"},

		{"serve|--store|", "mem: dir: s3:// gs:// azblob:// file://"},
		{"serve|--store=d", "dir:"},
		{"serve|--store|dir:", "dir:data/"},
		{"serve|--store|dir:data/o", "dir:data/one/ dir:data/other/"},
		{"serve|--store=dir:data/.", "dir:data/.hidden/"},
		{"serve|--store|dir:missing/", ""},
		{"copy|m", "mem:"},
		{"copy|dir:a|g", "gs://"},
		{"copy|dir:a|mem:|repo|", ""}, // a repository
	} {
		words := strings.Split(strings.TrimPrefix(test.words, "|"), "|")
		if got := completions(t, words...); got != test.want {
			t.Errorf("%s: got %q, want %q", strings.ReplaceAll(test.words, "|", " "), got, test.want)
		}
	}
}
