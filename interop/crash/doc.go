// SPDX-License-Identifier: Apache-2.0

// Package crash tests that berth serve still has everything that it acknowledged
// after it is killed.
package crash
