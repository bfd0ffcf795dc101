// SPDX-License-Identifier: Apache-2.0

// Package registrytest helps to test code that talks to registries. It provides
// servers, an in-process transport, content to pull, faults, a journal that
// records and checks what a client does, profiles that imitate real registries, and
// tapes, which replay what real registries said.
package registrytest
