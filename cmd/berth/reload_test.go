// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"github.com/berth-oci/registry"
)

// TestChangedFiles checks which changes of a file are noticed.
func TestChangedFiles(t *testing.T) {
	when := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	write := func(t *testing.T, name, content string, when time.Time) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, when, when); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		change func(t *testing.T, name string)
		want   bool
	}{
		{"none", func(*testing.T, string) {}, false},
		{"same_again", func(t *testing.T, name string) { write(t, name, "one", when) }, false},
		{"time", func(t *testing.T, name string) { write(t, name, "two", when.Add(time.Second)) }, true},
		{"size", func(t *testing.T, name string) { write(t, name, "three", when) }, true},
		{"removed", func(t *testing.T, name string) { os.Remove(name) }, true},
		// As rsync --times or a reproducible image do it.
		{"replaced_with_the_same_time_and_size", func(t *testing.T, name string) {
			write(t, name+".new", "two", when)
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, c := range []serveCmd{{Config: "f"}, {Htpasswd: "f"}, {Rules: "f"}, {TokenKeyFile: "f"}} {
				name := filepath.Join(t.TempDir(), "f")
				write(t, name, "one", when)
				for _, field := range []*string{&c.Config, &c.Htpasswd, &c.Rules, &c.TokenKeyFile} {
					if *field != "" {
						*field = name
					}
				}
				before := c.fileStates()
				test.change(t, name)
				if got := changedFiles(before, c.fileStates()) != ""; got != test.want {
					t.Errorf("%v, want %v", got, test.want)
				}
			}
		})
	}
}

// TestDailyReload checks that the keys of tokens are replaced while nothing else happens.
func TestDailyReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.pem")
	synctest.Test(t, func(t *testing.T) {
		if _, err := rotateKeys(file, time.Now().Add(reloadLatest/2-keyAge)); err != nil {
			t.Fatal(err)
		}
		c := &serveCmd{args: []string{"--user=alice:wonderland", "--token", "--token-key-file=" + file, "--log-level=error"}}
		cmd := c.command()
		if err := errors.Join(cmd.ParseFlags(c.args), cmd.PreRunE(cmd, nil)); err != nil {
			t.Fatal(err)
		}
		c.store = new(registry.MemStore)
		s, err := c.newServer(c.openLog(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var reloads sync.WaitGroup
		reloads.Go(func() { s.reloadWhenAsked(ctx, nil, c.fileStates()) })
		time.Sleep(reloadLatest + 2*filesInterval)
		cancel()
		reloads.Wait()
	})
	keys, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(keys), "BEGIN PRIVATE KEY"); n != 2 {
		t.Errorf("%d keys", n)
	}
}

// TestKeep checks that a reload takes over the flags that it can change, and no others.
func TestKeep(t *testing.T) {
	file := writeTemp(t, "file", nil)
	samples := map[string]string{
		"bool": "true", "int": "7", "float64": "0.5", "duration": "7s", "level": "debug", "enum": "json",
		"string": "x", "stringArray": "x", "path": file, "size": "7KiB", "socketMode": "0600",
	}
	start, c := new(serveCmd), new(serveCmd)
	start.command()
	c.command()
	c.flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		kind := f.Value.Type()
		switch f.Name {
		case "memory", "disk", "max-blob", "max-manifest", "mirror-size":
			kind = "size"
		case "socket-mode":
			kind = "socketMode"
		case "tls-client-auth":
			samples["enum"] = "optional"
		case "ui":
			samples["enum"] = "off"
		}
		if err := f.Value.Set(samples[kind]); err != nil {
			t.Errorf("--%s: %v", f.Name, err)
		}
		samples["enum"] = "json"
	})
	before := c.values()
	c.keep(start)
	for name, value := range c.values() {
		want := start.values()[name]
		if slices.Contains(reloadable, name) {
			want = before[name]
		}
		if !reflect.DeepEqual(value, want) {
			t.Errorf("%s: %v, want %v", name, value, want)
		}
	}
}
