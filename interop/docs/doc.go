// SPDX-License-Identifier: Apache-2.0

// Package docs runs, compiles or parses each code block of README.md and of the pages
// in docs.
//
// The language after the opening fence says how a block is tested:
//
//	sh                  runs in bash; see TestCommands
//	go                  compiles; see TestGo
//	yaml, json, toml    parses
//	sh norun            is not run, for the reason in a comment above it
//	console, text       is output, or is read by nothing that can be tested here
//
// A comment above a block is HTML, which readers don't see:
//
//	<!-- not run: it needs an account of AWS -->
//	<!-- given: var store *ocidir.Store -->
//	<!-- file: berth.yaml -->
//
// The second one declares names that a block of Go uses, and the third one says in which
// file the commands of the page find a block of data.
package docs
