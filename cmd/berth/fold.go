// SPDX-License-Identifier: Apache-2.0

// Command berth fold.

package main

import (
	"context"
	"fmt"

	"github.com/berth-oci/registry/ocidir"
)

// foldCmd is berth fold.
type foldCmd struct {
	Store string `help:"The store: dir:PATH." required:"" placeholder:"STORE"`
}

// Help is shown by berth fold --help.
func (foldCmd) Help() string {
	return "Write the changes in the journals of a directory into the index.json of its repositories, for other tools to read. A server does so on its own within seconds, and when it stops; after it was killed, the next one does."
}

func (c *foldCmd) Run(logs logOutput) error {
	ctx := context.Background()
	s, closer, err := openStore(ctx, c.Store, storeOptions{log: logs.logger()})
	if err != nil {
		return err
	}
	dir, ok := s.(*ocidir.Store)
	if !ok {
		closer.Close()
		return fmt.Errorf("%s has no journals", c.Store)
	}
	if err := dir.Fold(ctx); err != nil {
		closer.Close()
		return err
	}
	return closer.Close()
}
