// SPDX-License-Identifier: Apache-2.0

//go:build linux

package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// fullVariable is set in the child processes of TestFull.
const fullVariable = "BERTH_TEST_FULL"

// TestFull writes large objects that don't fit on the disk: what was there before must
// stay there, whole. Each test runs in a process of its own, because it limits the size
// of files, or mounts a small disk.
func TestFull(t *testing.T) {
	for _, test := range []struct {
		name  string
		attr  *syscall.SysProcAttr
		setUp func(t *testing.T) (dir string, limit func())
		full  bool // the error says so
	}{
		{"limit", nil, limitFiles, false},
		{"disk", &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}, mountSmallDisk, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if os.Getenv(fullVariable) != "" {
				dir, limit := test.setUp(t)
				testFull(t, dir, limit, test.full)
				return
			}
			cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestFull$/^"+test.name+"$")
			cmd.Env = append(os.Environ(), fullVariable+"=1")
			cmd.SysProcAttr = test.attr
			out, err := cmd.CombinedOutput()
			if len(out) == 0 && err != nil {
				t.Skip("this system has no namespaces of users: ", err)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if bytes.Contains(out, []byte("--- SKIP")) {
				t.Skipf("%s", out)
			}
		})
	}
}

// limitFiles returns a directory, and a function that limits the size of files.
func limitFiles(t *testing.T) (dir string, limit func()) {
	signal.Ignore(syscall.SIGXFSZ)
	return t.TempDir(), func() {
		size := syscall.Rlimit{Cur: 100 << 10, Max: 100 << 10}
		qt.Assert(t, qt.IsNil(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &size)))
	}
}

// mountSmallDisk returns a directory on a small disk.
func mountSmallDisk(t *testing.T) (dir string, limit func()) {
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("can't mount a disk: ", err)
	}
	t.Cleanup(func() { qt.Check(t, qt.IsNil(syscall.Unmount(dir, 0))) })
	return dir, func() {}
}

func testFull(t *testing.T, dir string, limit func(), full bool) {
	ctx := context.Background()
	objectsDir, tmp := filepath.Join(dir, "objects"), filepath.Join(dir, "tmp")
	qt.Assert(t, qt.IsNil(os.Mkdir(objectsDir, 0o777)))
	qt.Assert(t, qt.IsNil(os.Mkdir(tmp, 0o777)))
	t.Setenv("TMPDIR", tmp)
	b := open(t, "file://"+objectsDir)
	large := []byte(strings.Repeat("0123456789", 30<<10))
	for key, data := range map[string][]byte{"k": []byte("before"), "from": large[:150<<10]} {
		_, err := b.Put(ctx, key, data, objects.Condition{})
		qt.Assert(t, qt.IsNil(err))
	}
	limit()
	for name, write := range map[string]func(key string) error{
		"put": func(key string) error {
			_, err := b.Put(ctx, key, large, objects.Condition{})
			return err
		},
		"copy": func(key string) error { return b.Copy(ctx, key, "from", 150<<10) },
		"close": func(key string) error {
			w := b.NewWriter(ctx, key)
			defer w.Abort()
			w.Write(large)
			return w.Close()
		},
		"abort": func(key string) error {
			w := b.NewWriter(ctx, key)
			defer w.Abort()
			_, err := w.Write(large)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, key := range []string{"k", "new"} {
				err := write(key)
				qt.Check(t, qt.IsNotNil(err), qt.Commentf(key))
				qt.Check(t, qt.Equals(errors.Is(err, objects.ErrFull), full), qt.Commentf("%v", err))
			}
			r, err := b.Get(ctx, "k", 0, -1)
			qt.Assert(t, qt.IsNil(err))
			data, err := io.ReadAll(r)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(r.Close()))
			qt.Check(t, qt.Equals(len(data), len("before")))
			_, err = b.Stat(ctx, "new")
			qt.Check(t, qt.ErrorIs(err, objects.ErrNotExist))
			files, err := os.ReadDir(tmp)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(files, 0))
		})
	}
}
