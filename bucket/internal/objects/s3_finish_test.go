// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// TestS3Finishes cancels PUTs whose server is slow. Those that replace an object go on, a
// bounded number of them, and until the bucket is closed.
func TestS3Finishes(t *testing.T) {
	const limit = 100
	began, cancelled, respond := make(chan struct{}, 2*limit), make(chan struct{}, 2*limit), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		select {
		case <-respond:
		case <-r.Context().Done():
			cancelled <- struct{}{}
		}
	}))
	defer server.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "user")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "password")
	u := &url.URL{Scheme: "s3", Host: "name", RawQuery: "use_path_style=true&region=us-east-1&endpoint=" + url.QueryEscape(server.URL)}
	b, err := objects.OpenS3(t.Context(), u)
	qt.Assert(t, qt.IsNil(err))
	put := func(c objects.Condition) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-began
			cancel()
		}()
		_, err := b.Put(ctx, "key", []byte("bytes"), c)
		qt.Assert(t, qt.ErrorIs(err, context.Canceled))
	}
	put(objects.Condition{})
	<-cancelled
	put(objects.Condition{Absent: true})
	<-cancelled
	for range limit {
		put(objects.Condition{Version: "v"})
	}
	qt.Assert(t, qt.HasLen(cancelled, 0))
	put(objects.Condition{Version: "v"}) // one too many
	<-cancelled
	respond <- struct{}{} // to one of them: soon after, another may go on
	for another := false; !another; {
		put(objects.Condition{Version: "v"})
		select {
		case <-cancelled:
		case <-time.After(100 * time.Millisecond):
			another = true
		}
	}
	qt.Assert(t, qt.IsNil(b.Close()))
	for range limit {
		<-cancelled
	}
}

var cancels = flag.Int("cancels", 0, "the number of PUTs that TestS3Cancels cancels on a cluster of MinIO")

// TestS3Cancels cancels PUTs that replace objects of a cluster. None may be lost.
func TestS3Cancels(t *testing.T) {
	if *cancels == 0 {
		t.Skip("it takes long: -cancels=2000")
	}
	b := open(t, miniotest.StartCluster(t, 4).URL(t))
	var wg sync.WaitGroup
	defer wg.Wait()
	for client := range 8 {
		wg.Go(func() {
			for i := range *cancels / 8 {
				key := fmt.Sprintf("%d/%d", client, i)
				version, err := b.Put(t.Context(), key, []byte(strings.Repeat("old ", 100)), objects.Condition{Absent: true})
				if !qt.Check(t, qt.IsNil(err)) {
					return
				}
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(60*time.Millisecond))
				b.Put(ctx, key, []byte("new"), objects.Condition{Version: version})
				cancel()
				time.Sleep(100 * time.Millisecond)
				if _, err := b.Stat(t.Context(), key); errors.Is(err, objects.ErrNotExist) {
					t.Errorf("%s is lost", key)
				}
			}
		})
	}
}
