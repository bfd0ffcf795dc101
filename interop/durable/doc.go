// SPDX-License-Identifier: Apache-2.0

// Package durable tests that what berth serve acknowledged is there after it
// was killed.
package durable
