// SPDX-License-Identifier: Apache-2.0

// Package registrytest has what a test needs around a registry: servers, and a
// transport that serves in process.
package registrytest
