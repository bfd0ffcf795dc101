// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// runBerth runs a command in a folder with files, by their names and contents.
func runBerth(t *testing.T, files map[string]string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
	return status, out.String(), errs.String()
}

const aliceEntry = "alice:$2y$04$7KJpvLPiyzlJWPnjgBJaKO5tM7FJgjjjwTtNSHsb5y2GzTOWtUOKm\n"

// TestWrongConfigurations checks the message for each mistake in a configuration.
func TestWrongConfigurations(t *testing.T) {
	for _, test := range []struct {
		config string // berth.yaml
		rules  string // rules.yaml
		want   string
	}{
		// The file as a whole.
		{config: "adr: x", want: `berth.yaml:1: unknown key "adr": did you mean "addr"?`},
		{config: "store: mem:\nmax-blobs: 5g", want: `(a value that ends in a colon requires quotes: "mem:")`},
		{config: "grace: 1m\nmax-blobs: 5g", want: `berth.yaml:2: unknown key "max-blobs": did you mean "max-blob"?`},
		{config: "quota: []", want: `berth.yaml:1: unknown key "quota": did you mean "quotas"?`},
		{config: "zzzzzzzzzz: x", want: `berth.yaml:1: unknown key "zzzzzzzzzz"` + "\n"},
		{config: "config: other.yaml", want: `berth.yaml:1: unknown key "config"`},
		{config: "grace: 1m\ngrace: 2m", want: `berth.yaml:2: the key "grace" occurs twice`},
		{config: "- addr", want: "berth.yaml:1: the file must consist of keys and values"},
		{config: "just text", want: "berth.yaml:1: the file must consist of keys and values"},
		{config: "addr: [", want: "berth.yaml:1: did not find expected node content"},
		{config: "\tgrace: 1m", want: "berth.yaml: found character that cannot start any token"},
		// Values of flags.
		{config: "max-blob: much", want: "berth.yaml:1: max-blob: invalid size"},
		{config: "\n\nmax-blob: -1", want: "berth.yaml:3: max-blob: invalid size"},
		{config: "grace: soon", want: `berth.yaml:1: grace: "soon" is not a time such as 30s, 5m or 1h30m`},
		{config: "connections: many", want: `berth.yaml:1: connections: "many" is not a whole number`},
		{config: "read-only: perhaps", want: `berth.yaml:1: read-only: "perhaps" is neither true nor false`},
		{config: "log-format: xml", want: `berth.yaml:1: log-format: "xml" is not one of text, json`},
		{config: "log-level: loud", want: `berth.yaml:1: log-level: slog: level string "loud": unknown name`},
		{config: "store: [a, b]", want: "berth.yaml:1: store: requires a single value"},
		{config: "tls-self-signed: true\nh2c: true", want: "--h2c is for servers without TLS"},
		{config: "tls-dir: tls", want: "--tls-dir requires --tls-self-signed"},
		{config: "traces: localhost:4318", want: "--traces=localhost:4318: this requires a URL with http:// or https://"},
		{config: "trace-sample: 0.5", want: "--trace-sample requires --traces"},
		{config: "traces: http://localhost:4318\ntrace-sample: 1.5", want: "--trace-sample requires a number above 0 and up to 1"},
		{config: "socket-mode: rw", want: `berth.yaml:1: socket-mode: "rw" is not an octal mode, such as 0660`},
		{config: "warning: {a: b}", want: "berth.yaml:1: warning: requires a single value"},
		{config: "warning: [[a]]", want: "berth.yaml:1: warning: requires a list of single values"},
		{config: "htpasswd: missing", want: "missing: no such file or directory"},
		{config: "htpasswd: .", want: "is a directory"},
		// Values that depend on each other.
		{config: "disk: 1g", want: "--disk requires --store=mem: and --memory"},
		{config: "anonymous-pull: true", want: "--anonymous-pull requires --user or --htpasswd: without users, anyone may push too"},
		{config: "user: alice", want: "--user requires a name and a password: NAME:PASSWORD"},
		{config: "user: ['@ci:pw']", want: `--user: the name "@ci" is reserved for rules`},
		{config: "user: ['a:b', 'a:c']", want: `--user: the name "a" occurs twice`},
		{config: "user: ['alice:b']\nhtpasswd: users", want: `users: --user names "alice", too`},
		{config: "token: true", want: "--token requires --user or --htpasswd"},
		{config: "token-keys: k.json", want: "--token-keys requires --token-realm"},
		{config: "token-lifetime: 1m", want: "--token-key-file and --token-lifetime require --token"},
		{config: "gc-untagged: true", want: "--gc-untagged requires --gc-every"},
		{config: "retention: [{keep: {all: true}}]", want: "retention rules require --gc-every"},
		{config: "htpasswd: broken", want: "broken: line 1 is not in the format of htpasswd -B"},
		// Sections.
		{config: "gc-every: 1h\nretention:\n- keep: {newst: 3}", want: `berth.yaml:3: retention: unknown key "newst": did you mean "newest"?`},
		{config: "gc-every: 1h\nretention:\n- keep: {newest: -3}", want: "berth.yaml:3: retention: a negative number"},
		{config: "gc-every: 1h\nretention:\n- keep: {within: 3x}", want: `"3x" is not a time such as 30d, 2w or 12h`},
		{config: "gc-every: 1h\nretention:\n- {tags: ['['], keep: {all: true}}", want: "berth.yaml:3: retention: the pattern \"[\" of a tag: syntax error in pattern"},
		{config: "connections: -1", want: "--connections may not be negative"},
		{config: "max-uploads: -1", want: "--max-uploads may not be negative"},
		{config: "grace: -1s", want: "--grace may not be negative"},
		{config: "header-timeout: -1s", want: "--header-timeout may not be negative"},
		{config: "mirrors: docker.io", want: "berth.yaml:1: cannot unmarshal !!str `docker.io` into []main.mirrorRule"},
		{config: "mirrors:\n- {}", want: "berth.yaml:2: mirrors: it requires a name and a url"},
		{config: "mirrors:\n- {name: docker.io, url: registry-1.docker.io}", want: `berth.yaml:2: mirrors: the URL "registry-1.docker.io" has no http:// or https:// and a host`},
		{config: "mirrors:\n- {name: docker.io, url: https://a, ttl: soon}", want: `berth.yaml: "soon" is not a time`},
		{config: "mirrors:\n- {name: docker.io, url: https://a, username: x}", want: "berth.yaml:2: mirrors: username and password-file require each other"},
		{config: "mirrors:\n- {name: docker.io, url: https://a, repos: [x]}", want: `berth.yaml:2: mirrors: unknown key "repos"`},
		{config: "mirrors:\n- {name: docker.io, url: https://a, username: x, password-file: none}", want: "the mirror docker.io: open none: no such file or directory"},
		{config: "mirrors:\n- {name: docker.io, url: https://a}\n- {name: docker.io, url: https://b}", want: `mirror: upstream "docker.io": there are two with this name`},
		{config: "mirror: docker.io", want: "--mirror=docker.io: requires NAME=URL, such as docker.io=https://registry-1.docker.io"},
		{config: "mirror: a/b=https://c", want: `--mirror=a/b=…: the name is not that of a host`},
		{config: "mirror: a=https://user:secret@c", want: `--mirror=a=…: the URL "https://user:xxxxx@c" has more than a host and a path`},
		{config: "mirror: a=https://user:secret@c:port", want: `--mirror=a=…: the URL: invalid port ":port" after host`},
		{config: "mirror-default: docker.io", want: "require --mirror"},
		{config: "mirror: docker.io=https://a\nmirror-default: ghcr.io", want: `the default "ghcr.io" is none of the upstreams`},
		{config: "mirror: docker.io=https://a\nmirror-ttl: -1s", want: "--mirror-ttl may not be negative"},
		{config: "mirror: docker.io=https://a\nread-only: true\nstore: dir:x", want: "--mirror requires a directory that can be written to"},
		{config: "quotas: 5g", want: "berth.yaml:1: cannot unmarshal !!str `5g` into []main.quotaRule"},
		{config: "quotas:\n- {}", want: "berth.yaml:2: quotas: it limits neither bytes nor manifests"},
		{config: "quotas:\n- {manifests: lots}", want: "berth.yaml:2: cannot unmarshal !!str `lots` into int64"},
		{config: "notifications:\n- {}", want: "berth.yaml:2: notifications: it requires a url"},
		{config: "notifications:\n- {url: 'http://x', actions: [pushed]}", want: `unknown action "pushed": use push, pull, mount, delete`},
		{config: "notifications:\n- {url: 'http://x', secret-file: missing}", want: "notifications to http://x: open missing: no such file or directory"},
		// Rules.
		{rules: "rules:\n- {user: alice}", want: `rules.yaml:2: unknown key "user": did you mean "users"?`},
		{rules: "", want: "rules.yaml: it has no rules"},
		{rules: "rules: [{users: [alice]}]", want: "rules.yaml: rule 1: it requires users and actions"},
		{rules: "rules: [{users: [alice], actions: [pull]}]", want: `rules.yaml: rule 1: it requires repositories: "**" is all of them`},
		{rules: "rules: [{users: [alice], actions: [pulls], repositories: ['**']}]", want: `rules.yaml: rule 1: unknown action "pulls": use pull, push, create, delete, catalog, *`},
		{rules: "rules: [{users: ['@ci'], actions: [pull], repositories: ['**']}]", want: `rules.yaml: rule 1: there is no group "ci"`},
		{rules: "rules: [{users: [''], actions: [pull], repositories: ['**']}]", want: `rules.yaml: rule 1: it has an empty name of a user: use anonymous`},
		{rules: "groups: {ci: ['@dev']}\nrules: [{users: ['@ci'], actions: [pull], repositories: ['**']}]", want: `rules.yaml: the group "ci": the name "@dev" is reserved for rules`},
		{rules: "groups: {ci: ['*']}\nrules: [{users: ['@ci'], actions: [pull], repositories: ['**']}]", want: `rules.yaml: the group "ci": the name "*" is reserved for rules`},
		{rules: "groups: {ci: ['']}\nrules: [{users: ['@ci'], actions: [pull], repositories: ['**']}]", want: `rules.yaml: the group "ci": it has an empty name of a user`},
		{rules: "rules: [{users: [a], actions: [pull], repositories: ['**'], immutable-tags: ['v*']}]", want: `rules.yaml: rule 1: immutable-tags has no effect without push or delete`},
		{rules: "rules: [{users: [a], actions: [catalog], repositories: [a]}]", want: `rules.yaml: rule 1: repositories has no effect on catalog, which lists all of them`},
		{rules: "rules: [{users: [a], actions: [pull], repositories: ['**']}]\n---\nrules: []", want: `rules.yaml:2: the file has a second document`},
		{config: "read-only: true\n---\nread-only: false", want: `berth.yaml:2: the file has a second document`},
		{rules: "rules: [{users: [a], actions: [pull], repositories: ['[']}]", want: `rules.yaml: rule 1: the pattern "[" of repositories: syntax error in pattern`},
		{rules: "rules: [{users: [a], actions: [push], repositories: [a], immutable-tags: ['[']}]", want: `rules.yaml: rule 1: the pattern "[" of tags: syntax error in pattern`},
	} {
		t.Run(test.want, func(t *testing.T) {
			if test.config == "" {
				test.config = "htpasswd: users\nrules: rules.yaml"
			}
			files := map[string]string{"berth.yaml": test.config, "rules.yaml": test.rules, "users": aliceEntry, "broken": "alice\n"}
			status, stdout, stderr := runBerth(t, files, "config", "check", "--config=berth.yaml")
			if status == 0 || stdout != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("status %d, %s%s", status, stdout, stderr)
			}
		})
	}
}

// TestPrecedence checks that flags have precedence over the environment, and that over
// the file.
func TestPrecedence(t *testing.T) {
	for _, test := range []struct {
		name, env, flag string
		want            string // a regular expression
	}{
		{"file", "", "", "max-uploads: 1 # from .*/berth.yaml"},
		{"environment", "2", "", "max-uploads: 2 # from BERTH_MAX_UPLOADS"},
		{"flag", "2", "3", "max-uploads: 3 # from the command line"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := []string{"config", "print"}
			t.Setenv("BERTH_CONFIG", "berth.yaml")
			if test.env != "" {
				t.Setenv("BERTH_MAX_UPLOADS", test.env)
			}
			if test.flag != "" {
				args = append(args, "--max-uploads="+test.flag)
			}
			_, stdout, stderr := runBerth(t, map[string]string{"berth.yaml": "max-uploads: 1\n"}, args...)
			if !regexp.MustCompile(test.want + "\n").MatchString(stdout) {
				t.Errorf("%s%s", stdout, stderr)
			}
		})
	}
}

// TestConfigPrint checks that the output of berth config print is a configuration with
// the same values, without secrets.
func TestConfigPrint(t *testing.T) {
	const config = `
store: "mem:"
memory: 1.5g
user: ["alice:secret", "bob:secret"]
warning: ["one, two", three]
read-only: false
log-level: warn
gc-every: 1h
retention: [{name: all, keep: {within: 30d}}]
quotas: [{repositories: [a], bytes: 1g}]
notifications: [{url: "http://u:secret@x", headers: {Authorization: secret}}]
`
	status, first, stderr := runBerth(t, map[string]string{"berth.yaml": config}, "config", "print", "--config=berth.yaml")
	if status != 0 || strings.Contains(first, "secret") || !strings.Contains(first, "memory: 1536MiB #") || !strings.Contains(first, "alice:****") {
		t.Fatalf("%s%s", first, stderr)
	}
	status, second, stderr := runBerth(t, map[string]string{"berth.yaml": first}, "config", "print", "--config=berth.yaml")
	if strip(second) != strip(first) {
		t.Errorf("%d: %s\nwant\n%s%s", status, second, first, stderr)
	}
}

// strip removes comments.
func strip(yaml string) string {
	var b strings.Builder
	for line := range strings.Lines(yaml) {
		line, _, _ = strings.Cut(strings.TrimSuffix(line, "\n"), " # from")
		if line, _, _ = strings.Cut(line, " # default"); !strings.HasPrefix(line, "# ") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// TestUnknownVariables checks which variables of the environment are reported.
func TestUnknownVariables(t *testing.T) {
	flags := new(serveCmd).command().Flags()
	got := unknownVariables([]string{
		"BERTH_MAX_BLOB=1", "BERTH_MAXBLOB=1", "BERTH_XYZZY=1", "PATH=/",
		"BERTH_PORT=tcp://10.0.0.1:5000", "BERTH_PORT_5000_TCP_ADDR=10.0.0.1", "BERTH_SERVICE_HOST=10.0.0.1", "BERTH_SERVICE_PORT_HTTP=5000",
	}, flags)
	want := []string{
		`the environment variable BERTH_MAXBLOB has no effect: did you mean "BERTH_MAX_BLOB"?`,
		`the environment variable BERTH_XYZZY has no effect`,
	}
	if len(got) != 2 || got[0] != want[0] || !strings.HasPrefix(got[1], want[1]) {
		t.Errorf("%q", got)
	}
}
