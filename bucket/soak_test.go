// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"flag"
	"testing"
	"time"

	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/storetest"
)

var soak = flag.Duration("soak", 5*time.Second, "how long the soak of collections takes")

// TestSoak collects every second in two replicas.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	url := miniotest.Start(t).URL(t)
	a, b := open(t, url, nil), open(t, url, nil)
	const grace = 10 * time.Second
	a.SetGrace(grace/2, grace)
	b.SetGrace(grace/2, grace)
	storetest.Soak(t, *soak, time.Second, grace+time.Second, a, b)
}
