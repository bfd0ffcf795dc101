// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWriteFile checks that a file has its mode whatever stands beside it, and that
// nothing else is left in the folder.
func TestWriteFile(t *testing.T) {
	skipOnWindows(t)
	for _, test := range []struct {
		name    string
		prepare func(name string) error
	}{
		{"new", nil},
		{"old_file", func(name string) error { return os.WriteFile(name, nil, 0o644) }},
		{"temporary_file_of_another_user", func(name string) error { return os.WriteFile(name+".tmp", nil, 0o666) }},
		{"link_in_place_of_a_temporary_file", func(name string) error { return os.Symlink("elsewhere", name+".tmp") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "keys.pem")
			if test.prepare != nil {
				if err := test.prepare(name); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "*"))
			if err := writeFile(name, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(name)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			after, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "*"))
			before = slices.DeleteFunc(before, func(s string) bool { return s == name })
			after = slices.DeleteFunc(after, func(s string) bool { return s == name })
			if !slices.Equal(before, after) {
				t.Errorf("%q, want %q", after, before)
			}
		})
	}
}

// TestKeysOfTokensAtOnce lets servers that share a file of keys start at the same time:
// all must use the same new key.
func TestKeysOfTokensAtOnce(t *testing.T) {
	skipOnWindows(t)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for round := range 20 {
		name := filepath.Join(t.TempDir(), "keys.pem")
		for _, day := range []int{0, 91} {
			var all [8][]crypto.Signer
			var group sync.WaitGroup
			for i := range all {
				group.Go(func() {
					var err error
					if all[i], err = rotateKeys(name, start.AddDate(0, 0, day)); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			for _, keys := range all {
				if fmt.Sprint(keys) != fmt.Sprint(all[0]) {
					t.Fatalf("round %d, day %d: servers use different keys", round, day)
				}
			}
		}
	}
}

// TestPasswdKeepsTheFile checks that berth passwd leaves the mode of a file, and a link to
// it, as they are: the server may be another user, of the file's group.
func TestPasswdKeepsTheFile(t *testing.T) {
	skipOnWindows(t)
	dir := t.TempDir()
	name, link := filepath.Join(dir, "users"), filepath.Join(dir, "link")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("users", link); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(name, 1234, 1235); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.Stat(name)
	c := passwdCmd{Name: "alice", File: link}
	if err := c.replace(aliceEntry); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Lstat(link); info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is now %v", info.Mode())
	}
	after, _ := os.Stat(name)
	if after.Mode() != before.Mode() {
		t.Errorf("%v, want %v", after.Mode(), before.Mode())
	}
	if data, _ := os.ReadFile(name); string(data) != aliceEntry {
		t.Errorf("%q", data)
	}
}

// TestPasswdAtOnce adds users to a file at the same time.
func TestPasswdAtOnce(t *testing.T) {
	skipOnWindows(t)
	name := filepath.Join(t.TempDir(), "users")
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			c := passwdCmd{Name: fmt.Sprint("user", i), File: name}
			if err := c.replace(c.Name + ":x\n"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if data, _ := os.ReadFile(name); strings.Count(string(data), "\n") != 20 {
		t.Errorf("%s", data)
	}
}
