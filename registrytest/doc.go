// SPDX-License-Identifier: Apache-2.0

// Package registrytest helps to test code that talks to registries. It provides
// servers, an in-process transport, content to pull, faults, a journal that
// records and checks what a client does, and profiles that imitate real
// registries.
package registrytest
