// SPDX-License-Identifier: Apache-2.0

// Command release builds the parts of a release from the last commit of the
// checkout that it runs in:
//
//	release proxy DIR                    a module proxy of the published modules
//	release build DIR [GOOS/GOARCH ...]  the berth command, with checksums
//	release image DIR                    an image of the binaries that build wrote to DIR
//
// See RELEASING.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: release proxy|build|image DIR [GOOS/GOARCH ...]")
	}
	dir, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	repo, err := findRepository()
	if err != nil {
		return err
	}
	switch args[0] {
	case "proxy":
		version, err := writeProxy(repo, dir)
		if err == nil {
			fmt.Println(version)
		}
		return err
	case "build":
		return build(repo, dir, args[2:])
	case "image":
		return image(context.Background(), repo, dir)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
