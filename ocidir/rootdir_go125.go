// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package ocidir

import "time"

func (d rootDir) rename(from, to string) error { return d.root.Rename(from, to) }

func (d rootDir) link(from, to string) error { return d.root.Link(from, to) }

func (d rootDir) chtimes(name string, t time.Time) error { return d.root.Chtimes(name, t, t) }
