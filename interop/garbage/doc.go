// SPDX-License-Identifier: Apache-2.0

// Package garbage measures collections of garbage in large stores that serve requests
// meanwhile.
package garbage
