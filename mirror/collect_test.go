// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/retention"
)

// TestCollect collects the garbage of a mirror: that does not fetch the upstream's tags.
func TestCollect(t *testing.T) {
	o := newOrigin()
	o.push(t, "library/nginx", "1", "a layer")
	o.push(t, "library/nginx", "2", "another layer")
	c := newClient(t, o, &registry.MemStore{}, nil)
	qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
	before := o.calls()
	report, err := retention.Collect(mirror.WithoutUpstream(t.Context()), c.mirror, retention.Options{Grace: -1})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(report.Manifests, 0))
	qt.Check(t, qt.Equals(o.calls(), before))
	qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
}
