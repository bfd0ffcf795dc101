// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// distant is a bucket whose every call takes a round trip, in fake time.
type distant struct{ objects.Bucket }

const roundTrip = 50 * time.Millisecond

func (b distant) Get(ctx context.Context, key string, offset, n int64) (*objects.Reader, error) {
	time.Sleep(roundTrip)
	return b.Bucket.Get(ctx, key, offset, n)
}

func (b distant) Stat(ctx context.Context, key string) (objects.Object, error) {
	time.Sleep(roundTrip)
	return b.Bucket.Stat(ctx, key)
}

func (b distant) Put(ctx context.Context, key string, data []byte, c objects.Condition) (string, error) {
	time.Sleep(roundTrip)
	return b.Bucket.Put(ctx, key, data, c)
}

func (b distant) Copy(ctx context.Context, to, from string, size int64) error {
	time.Sleep(roundTrip)
	return b.Bucket.Copy(ctx, to, from, size)
}

func (b distant) Delete(ctx context.Context, key, version string) error {
	time.Sleep(roundTrip)
	return b.Bucket.Delete(ctx, key, version)
}

func (b distant) List(ctx context.Context, q objects.ListQuery, n int) ([]objects.Object, string, error) {
	time.Sleep(roundTrip)
	return b.Bucket.List(ctx, q, n)
}

// TestRoundTrips counts the calls to the bucket that a request makes one after the
// other: the time that each client waits, if the bucket is far away.
func TestRoundTrips(t *testing.T) {
	if testing.Short() {
		t.Skip("it counts requests")
	}
	synctest.Test(t, func(t *testing.T) {
		s := bucket.NewOn(distant{objects.NewMemory()}, nil)
		defer s.Close()
		qt.Assert(t, qt.IsNil(s.Check(t.Context())))
		s.Wait()
		h := registry.New(registry.WithStore(s))
		var location string
		// send sends a request, and returns the number of round trips that it takes.
		send := func(method, target, contentType, body string, status int) int {
			t.Helper()
			r := httptest.NewRequest(method, target, strings.NewReader(body))
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			w := httptest.NewRecorder()
			began := time.Now()
			h.ServeHTTP(w, r)
			took := time.Since(began)
			got, _ := io.ReadAll(w.Body)
			qt.Assert(t, qt.Equals(w.Code, status), qt.Commentf("%s %s: %s", method, target, got))
			if status == http.StatusAccepted {
				location = w.Header().Get("Location")
			}
			s.Wait()
			return int(took / roundTrip)
		}
		const mediaType = "application/vnd.oci.image.manifest.v1+json"
		pushBlob := func(repo, data string) int {
			d := digest.FromString(data)
			return send("HEAD", "/v2/"+repo+"/blobs/"+d.String(), "", "", 404) +
				send("POST", "/v2/"+repo+"/blobs/uploads/", "", "", 202) +
				send("PUT", location+"?digest="+d.String(), "", data, 201)
		}
		image := func(config, layer string) string {
			return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
				digest.FromString(config), len(config), digest.FromString(layer), len(layer))
		}
		check := func(name string, got, most int) {
			t.Helper()
			t.Logf("| %s | %d |", name, got)
			if got > most {
				t.Errorf("%s: %d round trips, want at most %d", name, got, most)
			}
		}

		first := pushBlob("a", "config") + pushBlob("a", "layer") +
			send("HEAD", "/v2/a/manifests/latest", "", "", 404) +
			send("PUT", "/v2/a/manifests/latest", mediaType, image("config", "layer"), 201)
		check("push an image with one layer, one request after the other", first, 20)

		check("begin and finish a blob", send("POST", "/v2/a/blobs/uploads/", "", "", 202)+
			send("PUT", location+"?digest="+digest.FromString("blob").String(), "", "blob", 201), 5)
		check("push a blob in one request", send("POST", "/v2/a/blobs/uploads/?digest="+digest.FromString("one").String(), "", "one", 201), 3)
		pushBlob("a", "config 2")
		pushBlob("a", "layer 2")
		check("push a manifest", send("PUT", "/v2/a/manifests/latest", mediaType, image("config 2", "layer 2"), 201), 4)
		check("push it again", send("PUT", "/v2/a/manifests/latest", mediaType, image("config 2", "layer 2"), 201), 5)
		check("pull by tag", send("GET", "/v2/a/manifests/latest", "", "", 200), 2)
		check("pull by digest", send("GET", "/v2/a/manifests/"+digest.FromString(image("config 2", "layer 2")).String(), "", "", 200), 1)
		check("HEAD a blob", send("HEAD", "/v2/a/blobs/"+digest.FromString("blob").String(), "", "", 200), 1)
		check("GET a blob", send("GET", "/v2/a/blobs/"+digest.FromString("blob").String(), "", "", 200), 2)
		check("mount a blob", send("POST", "/v2/b/blobs/uploads/?from=a&mount="+digest.FromString("blob").String(), "", "", 201), 5)

		subject := digest.FromString(image("config 2", "layer 2"))
		n := 0
		pushReferrers := func(upTo int) {
			for ; n < upTo; n++ {
				referrer := fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"n":"%d"}}`, mediaType, subject, n)
				send("PUT", "/v2/a/manifests/"+digest.FromString(referrer).String(), "application/vnd.oci.image.index.v1+json", referrer, 201)
			}
		}
		pushReferrers(1000)
		check("list 1,000 referrers", send("GET", "/v2/a/referrers/"+subject.String(), "", "", 200), 6)
		pushReferrers(10_000)
		check("list the first 1,000 of 10,000 referrers", send("GET", "/v2/a/referrers/"+subject.String()+"?n=1000", "", "", 200), 6)
		check("list 10,000 referrers, in one page", send("GET", "/v2/a/referrers/"+subject.String(), "", "", 200), 40)
	})
}
