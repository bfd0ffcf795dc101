// SPDX-License-Identifier: Apache-2.0

package bucket

import "time"

// SetGrace has minutes pass in a moment: the times that GC and those who push
// keep between them become these.
func (s *Store) SetGrace(trust, least time.Duration) { s.trust, s.least = trust, least }
