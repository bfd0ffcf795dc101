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

// slowServer is an S3 whose PUTs take until they are cancelled, or it responds.
type slowServer struct {
	objects.Bucket
	began, cancelled, respond chan struct{}
}

func startSlowServer(t *testing.T) *slowServer {
	s := &slowServer{began: make(chan struct{}), cancelled: make(chan struct{}), respond: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		s.began <- struct{}{}
		select {
		case <-s.respond:
		case <-r.Context().Done():
			s.cancelled <- struct{}{}
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "user")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "password")
	u := &url.URL{Scheme: "s3", Host: "name", RawQuery: "use_path_style=true&region=us-east-1&endpoint=" + url.QueryEscape(server.URL)}
	var err error
	s.Bucket, err = objects.OpenS3(t.Context(), u)
	qt.Assert(t, qt.IsNil(err))
	return s
}

// abandon begins a PUT and cancels it.
func (s *slowServer) abandon(t *testing.T, data []byte, c objects.Condition) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.began
		cancel()
	}()
	_, err := s.Put(ctx, "key", data, c)
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
}

// goesOn reports whether an abandoned PUT goes on, for which there is time to be cancelled.
func (s *slowServer) goesOn() bool {
	select {
	case <-s.cancelled:
		return false
	case <-time.After(100 * time.Millisecond):
		return true
	}
}

// TestS3Finishes abandons PUTs. Those that may replace an object go on, as long as they hold
// little memory and the bucket is open.
func TestS3Finishes(t *testing.T) {
	s := startSlowServer(t)
	large := make([]byte, 7<<20)
	for _, test := range []struct {
		name   string
		data   []byte
		c      objects.Condition
		goesOn bool
	}{
		{"a new object", []byte("data"), objects.Condition{}, false},
		{"an object that must be new", []byte("data"), objects.Condition{Absent: true}, false},
		{"a mark", nil, objects.Condition{}, true},
		{"another value", []byte("data"), objects.Condition{Version: "v"}, true},
		{"a large value", large, objects.Condition{Version: "v"}, true},
		{"a second one", large, objects.Condition{Version: "v"}, true},
		{"too much", large, objects.Condition{Version: "v"}, false},
	} {
		s.abandon(t, test.data, test.c)
		qt.Check(t, qt.Equals(s.goesOn(), test.goesOn), qt.Commentf("%s", test.name))
	}
	for range 4 {
		s.respond <- struct{}{}
	}
	s.abandon(t, large, objects.Condition{Version: "v"})
	qt.Check(t, qt.IsTrue(s.goesOn()))

	closed := make(chan struct{})
	go func() {
		defer close(closed)
		qt.Check(t, qt.IsNil(s.Close()))
	}()
	qt.Check(t, qt.IsTrue(s.goesOn())) // Close waits for it
	s.respond <- struct{}{}
	<-closed
	s.abandon(t, nil, objects.Condition{})
	qt.Check(t, qt.IsFalse(s.goesOn()))
}

// TestS3CloseCancels closes a bucket while a PUT does not end.
func TestS3CloseCancels(t *testing.T) {
	s := startSlowServer(t)
	s.abandon(t, nil, objects.Condition{})
	qt.Check(t, qt.IsTrue(s.goesOn()))
	go func() {
		<-s.cancelled
		close(s.respond)
	}()
	qt.Check(t, qt.IsNil(s.Close()))
	<-s.respond
}

var cancels = flag.Int("cancels", 0, "the number of PUTs that TestS3Cancels cancels on a cluster of MinIO")

// TestS3Cancels cancels PUTs that replace objects of a cluster, or write a mark again. None
// may be lost.
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
				var old, data []byte // of a mark
				var c objects.Condition
				if i%2 == 0 {
					old, data = []byte(strings.Repeat("old ", 100)), []byte("new")
				}
				version, err := b.Put(t.Context(), key, old, objects.Condition{Absent: true})
				if !qt.Check(t, qt.IsNil(err)) {
					return
				}
				if data != nil {
					c.Version = version
				}
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(60*time.Millisecond))
				b.Put(ctx, key, data, c)
				cancel()
				time.Sleep(100 * time.Millisecond)
				if _, err := b.Stat(t.Context(), key); errors.Is(err, objects.ErrNotExist) {
					t.Errorf("%s is lost", key)
				}
			}
		})
	}
}
