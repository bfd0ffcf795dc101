// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// TestEviction fetches more than the mirror may keep: the least recently used blobs go, and
// those of pushes stay.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		var blobs []digest.Digest
		for i := range 5 {
			_, blob := o.push(t, "library/nginx", fmt.Sprint(i), strings.Repeat(fmt.Sprint(i), 100_000))
			blobs = append(blobs, blob)
		}
		o.push(t, "library/redis", "1", strings.Repeat("4", 100_000)) // the last of nginx
		store := &registry.MemStore{}
		limit := func(opts *mirror.Options) { opts.MaxBytes = 350_000 }
		c := newClient(t, o, store, limit)
		get := func(repo string, i int) {
			t.Helper()
			qt.Assert(t, qt.Equals(c.get("/v2/docker.io/"+repo+"/blobs/"+string(blobs[i])).status, 200))
			synctest.Wait()
			time.Sleep(time.Second)
		}
		isStored := func() (stored string) {
			for i, d := range blobs {
				if _, err := store.StatBlob(t.Context(), mirror.CachePrefix+"docker.io/library/nginx", d); err == nil {
					stored += fmt.Sprint(i)
				}
			}
			return stored
		}
		get("nginx", 0)
		get("nginx", 1)
		get("nginx", 2)
		get("nginx", 0)
		qt.Check(t, qt.Equals(isStored(), "012"))
		get("nginx", 3)
		qt.Check(t, qt.Equals(isStored(), "023"))
		get("nginx", 4)
		get("redis", 4) // it counts once
		qt.Check(t, qt.Equals(isStored(), "034"))
		qt.Check(t, qt.Equals(c.mirror.Bytes(), 300_000))

		// A pushed copy stays.
		push := c.do(http.MethodPost, "/v2/docker.io/library/nginx/blobs/uploads/?digest="+string(blobs[1]), "Content-Type: application/octet-stream", strings.Repeat("1", 100_000))
		qt.Assert(t, qt.Equals(push.status, 201))

		// A mirror that starts again knows what there is.
		qt.Assert(t, qt.IsNil(c.mirror.Close()))
		c = newClient(t, o, store, limit)
		synctest.Wait()
		qt.Check(t, qt.Equals(c.mirror.Bytes(), 300_000))
		get("nginx", 2)
		qt.Check(t, qt.Equals(len(isStored()), 3))
		qt.Check(t, qt.Equals(c.mirror.Bytes(), 300_000))
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/library/nginx/blobs/"+string(blobs[1])).status, 200))
	})
}

// TestEvictionDuringPull evicts a blob that a client reads: the client gets all of it.
func TestEvictionDuringPull(t *testing.T) {
	o := newOrigin()
	text := registrytest.Random(1, 8<<20)
	_, blob := o.push(t, "library/nginx", "1", text)
	_, other := o.push(t, "library/nginx", "2", registrytest.Random(2, 8<<20))
	c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.MaxBytes = 9 << 20 })
	path := "/v2/docker.io/nginx/blobs/"
	qt.Assert(t, qt.Equals(c.get(path+string(blob)).status, 200))
	resp, err := c.Get("http://mirror.test" + path + string(blob))
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	qt.Assert(t, qt.Equals(c.get(path+string(other)).status, 200))
	got, err := digest.SHA256.FromReader(resp.Body)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, blob))
}

// TestFullStore pulls through a mirror whose store is full: clients get the content, which
// is not kept.
func TestFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, blob := o.push(t, "library/nginx", "1", large())
		c := newClient(t, o, &registry.MemStore{Limits: registry.MemLimits{TotalBytes: 100}}, nil)
		for range 2 {
			qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
			qt.Check(t, qt.IsTrue(c.get("/v2/docker.io/nginx/blobs/"+string(blob)).body == large()))
			synctest.Wait()
		}
	})
}

// TestUncounted has a store that can't list what an earlier process has fetched.
func TestUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		newClient(t, newOrigin(), unlisted{&registry.MemStore{}}, func(opts *mirror.Options) {
			opts.MaxBytes = 1000
			opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		synctest.Wait()
		qt.Check(t, qt.StringContains(log.String(), `level=WARN msg="content that was fetched is not counted" repository="" error="no list"`))
	})
}

type unlisted struct{ registry.Store }

func (unlisted) Repositories(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", errors.New("no list")) }
}
