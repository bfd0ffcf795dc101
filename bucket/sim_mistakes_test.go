// SPDX-License-Identifier: Apache-2.0

// The check of the simulation itself: it finds the mistakes of a toy.

package bucket_test

import "testing"

// TestSimulationFindsMistakes lets the toy make mistakes, and expects that a few
// seeds find each.
func TestSimulationFindsMistakes(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs one goroutine at a time")
	}
	for _, mistake := range []string{"unconditional", "retries", "acknowledges", "keeps tags"} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			const seeds = 30
			for seed := uint64(1); seed <= seeds; seed++ {
				target := toyTarget(mistake)
				res := simulate(t, planFor(seed, target), target)
				if len(res.violations) > 0 {
					t.Logf("seed %d: %s: %s", seed, res.violations[0].check, res.violations[0].text)
					return
				}
			}
			t.Errorf("%d seeds have not found it", seeds)
		})
	}
}
