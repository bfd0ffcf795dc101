// SPDX-License-Identifier: Apache-2.0

// Command berth fold.

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berth-oci/registry/ocidir"
)

// foldCmd is berth fold.
type foldCmd struct {
	Store string
}

func (c *foldCmd) command() *cobra.Command {
	cmd := newCommand("fold --store STORE", "Bring a directory's layouts up to date for other tools.",
		"Write the changes in the journals of a directory into the index.json of its repositories, for other tools to read. A server does so on its own within seconds, and when it stops; after it was killed, the next one does.",
		c.Run,
		flagGroup{"Flags", func(f *pflag.FlagSet) {
			f.StringVar(&c.Store, "store", "", "The `STORE`: dir:PATH. Required.")
		}})
	cmd.MarkFlagRequired("store")
	return cmd
}

func (c *foldCmd) Run(_ io.Writer, logs logOutput) error {
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
