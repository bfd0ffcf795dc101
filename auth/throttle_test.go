// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// TestFloodOfWrongPasswords checks that wrong passwords use a bounded number of
// calls at once, that the rest of a flood is told to come back later, and that a
// user whose password is remembered does not wait.
func TestFloodOfWrongPasswords(t *testing.T) {
	const concurrent, queue = 2, 2 * 16
	var running, most atomic.Int32
	entered, release := make(chan struct{}, 1000), make(chan struct{})
	check := auth.Throttle(func(ctx context.Context, user, password string) error {
		if user != "alice" {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			entered <- struct{}{}
			<-release
		}
		return users.Check(ctx, user, password)
	}, concurrent, time.Hour)
	h := auth.Basic("r", check, nil)(registry.New())
	qt.Assert(t, qt.Equals(call(t, h, "GET", "/v2/", "", as("alice")).StatusCode, 200))

	var mu sync.Mutex
	statuses := make(map[int]int)
	var flood sync.WaitGroup
	busy := make(chan struct{}, 1000)
	for i := range concurrent + queue + 50 {
		flood.Add(1)
		go func() {
			defer flood.Done()
			a := call(t, h, "GET", "/v2/", "", basic("bob", fmt.Sprint("wrong", i)))
			mu.Lock()
			statuses[a.StatusCode]++
			mu.Unlock()
			if a.StatusCode == 429 {
				qt.Check(t, qt.Equals(a.Header.Get("Retry-After"), "1"))
				qt.Check(t, qt.Equals(a.code(), "TOOMANYREQUESTS"))
				busy <- struct{}{}
			}
		}()
	}
	for range concurrent {
		<-entered
	}
	for range 50 {
		<-busy
	}
	// The flood fills the calls and the queue.
	qt.Check(t, qt.Equals(call(t, h, "GET", "/v2/", "", as("alice")).StatusCode, 200))
	qt.Check(t, qt.Equals(call(t, h, "GET", "/v2/", "", as("bob")).StatusCode, 429))
	close(release)
	flood.Wait()
	qt.Check(t, qt.DeepEquals(statuses, map[int]int{401: concurrent + queue, 429: 50}))
	qt.Check(t, qt.Equals(most.Load(), concurrent))
	qt.Check(t, qt.Equals(call(t, h, "GET", "/v2/", "", as("bob")).StatusCode, 200))
}

// TestThrottleRemembers checks which results are remembered.
func TestThrottleRemembers(t *testing.T) {
	calls := 0
	failure := error(nil)
	check := auth.Throttle(func(ctx context.Context, user, password string) error {
		calls++
		if failure != nil {
			return failure
		}
		return users.Check(ctx, user, password)
	}, 1, time.Hour)
	verify := func(user, password string, wantCalls int, want error) {
		t.Helper()
		calls = 0
		qt.Check(t, qt.ErrorIs(check(t.Context(), user, password), want))
		qt.Check(t, qt.Equals(calls, wantCalls))
	}
	failure = registry.ErrUnavailable
	verify("alice", "wonderland", 1, failure)
	failure = nil
	verify("alice", "wonderland", 1, nil)
	verify("alice", "wonderland", 0, nil)
	for _, user := range []string{"alice", "nobody"} {
		verify(user, "wrong", 1, auth.ErrCredentials)
		verify(user, "wrong", 0, auth.ErrCredentials)
	}
	// A name and a password are not mistaken for others with the same text.
	verify("alice wonder", "land", 1, auth.ErrCredentials)
	// Only a bounded number is remembered, and wrong passwords do not displace
	// right ones.
	for i := range 10_000 {
		check(t.Context(), "bob", fmt.Sprint(i))
	}
	verify("bob", "0", 1, auth.ErrCredentials)
	verify("bob", "9999", 0, auth.ErrCredentials)
	verify("alice", "wonderland", 0, nil)
}

// TestThrottleCancelled checks that a caller that waits can give up.
func TestThrottleCancelled(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	check := auth.Throttle(func(context.Context, string, string) error {
		entered <- struct{}{}
		<-release
		return nil
	}, 1, 0)
	done := make(chan error)
	go func() { done <- check(context.Background(), "a", "") }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	qt.Check(t, qt.ErrorIs(check(ctx, "b", ""), context.Canceled))
	close(release)
	qt.Check(t, qt.IsNil(<-done))
}

// TestLongScopes checks that a token server rejects scopes whose length would cost
// it time, before it looks at them.
func TestLongScopes(t *testing.T) {
	for name, query := range map[string]string{
		"actions":      "scope=repository:a:" + strings.Repeat("pull,", 150_000),
		"few_actions":  "scope=repository:a:" + strings.Repeat("pull,", 1000),
		"commas":       "scope=repository:a:" + strings.Repeat(",", 900_000),
		"scopes":       "scope=" + strings.Repeat("a:b:c+", 150_000),
		"parameters":   strings.Repeat("scope=a:b:c&", 80_000),
		"unknown_type": "scope=x:y:" + strings.Repeat("z,", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			s := newTokenServer()
			called := false
			s.Policy = func(context.Context, string, auth.Action, registry.Request) error { called = true; return nil }
			a := call(t, s, "GET", "/token?"+query, "", as("alice"))
			qt.Check(t, qt.Equals(a.StatusCode, 400))
			a = call(t, s, "POST", "/token", "grant_type=password&username=alice&password=wonderland&"+query, form)
			qt.Check(t, qt.Equals(a.StatusCode, 400))
			qt.Check(t, qt.IsFalse(called))
		})
	}
}
