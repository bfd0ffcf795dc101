// SPDX-License-Identifier: Apache-2.0

//go:build race

package interop

func init() { raceDetector = true }
