// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"testing"

	"github.com/berth-oci/registry/journal"
)

// Journal is middleware that records requests and their responses: see
// [journal.Journal].
type Journal = journal.Journal

// Entry is a request and its response: see [journal.Entry].
type Entry = journal.Entry

// Finding is a deviation from the spec: see [journal.Finding].
type Finding = journal.Finding

// NewJournal returns an empty journal, which is logged if the test fails.
func NewJournal(tb testing.TB) *Journal {
	j := new(Journal)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("requests to the registry:\n%s", j)
		}
	})
	return j
}
