// SPDX-License-Identifier: Apache-2.0

// Package interop tests Berth with real clients. The packages below it send it
// hostile requests (attack), flood it (memlimit), kill it (crash), run several
// processes on one bucket (replicas), observe it (observe), measure its collections of
// garbage (garbage), compare it with a model (model) and with other registries
// (compare), pull through mirrors of these (mirror), check the files for its deployment
// (deploy), and run the examples of its documentation (docs). It is a separate module so
// that the dependencies of these tests are not Berth's.
package interop
