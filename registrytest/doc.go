// SPDX-License-Identifier: Apache-2.0

// Package registrytest has what a test needs around a registry: servers, a
// transport that serves in process, content, faults, and a journal of what a
// client did.
package registrytest
