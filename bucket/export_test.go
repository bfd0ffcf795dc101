// SPDX-License-Identifier: Apache-2.0

package bucket

import "time"

// SetGrace shortens the times that GC and pushes rely on, so that tests are fast.
func (s *Store) SetGrace(trustedFor, minGrace time.Duration) {
	s.trustedFor, s.minGrace = trustedFor, minGrace
}
