// SPDX-License-Identifier: Apache-2.0

// Package interop has tests of Berth with the real clients, and benchmarks
// beside its peers. It is a module of its own for what these need.
package interop
