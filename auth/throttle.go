// SPDX-License-Identifier: Apache-2.0

// Protection of slow checks from floods of passwords.

package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

const (
	// queuePerCall is the number of calls of a throttled Check that wait for
	// each one in progress.
	queuePerCall = 16
	// rememberWrong is how long a wrong password is remembered.
	rememberWrong = 10 * time.Second
	// maxRemembered bounds the memory of a throttle: it remembers up to twice
	// as many right and twice as many wrong passwords.
	maxRemembered = 4096
)

// errBusy is returned if too many calls of a throttled Check wait.
var errBusy = &registry.Error{
	Status:     http.StatusTooManyRequests,
	Code:       registry.ErrTooManyRequests.Code,
	Message:    "too many logins in progress",
	RetryAfter: time.Second,
}

// Throttle returns a Check for one that is slow, because it hashes passwords or
// depends on a directory. Clients send a password with each request, and an
// attacker sends many wrong ones:
//
//   - A right password is accepted for the time remember without calling check,
//     and does not wait for others.
//   - A wrong one is rejected for 10 seconds without calling check.
//   - At most concurrent calls of check run at once; if it is 0, one less than
//     GOMAXPROCS, but at least one. 16 times as many wait; if more arrive, they
//     fail with 429 TOOMANYREQUESTS and Retry-After.
//
// Passwords are remembered as MACs, and a bounded number of them. Throttle panics
// if check is nil.
func Throttle(check Check, concurrent int, remember time.Duration) Check {
	if check == nil {
		panic("auth: Throttle requires a Check")
	}
	if concurrent <= 0 {
		concurrent = max(1, runtime.GOMAXPROCS(0)-1)
	}
	t := &throttle{
		check: check,
		calls: make(chan struct{}, concurrent),
		queue: make(chan struct{}, concurrent*queuePerCall),
		right: memory{ttl: remember},
		wrong: memory{ttl: rememberWrong},
	}
	rand.Read(t.key[:])
	return t.verify
}

// throttle is the state of a throttled Check.
type throttle struct {
	check Check
	key   [32]byte      // of the MACs
	calls chan struct{} // has an element for each call in progress
	queue chan struct{} // has an element for each caller that waits

	mu           sync.Mutex
	right, wrong memory // guarded by mu
}

// verify is a Check.
func (t *throttle) verify(ctx context.Context, user, password string) error {
	mac := hmac.New(sha256.New, t.key[:])
	fmt.Fprintf(mac, "%d %s %s", len(user), user, password)
	sum := [sha256.Size]byte(mac.Sum(nil))
	if known, err := t.recall(sum); known {
		return err
	}
	if err := t.acquire(ctx); err != nil {
		return err
	}
	defer func() { <-t.calls }()
	if known, err := t.recall(sum); known { // since another request sent it too
		return err
	}
	err := t.check(ctx, user, password)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.right.add(sum)
	case errors.Is(err, ErrCredentials):
		t.wrong.add(sum)
	}
	return err
}

// acquire waits until a call may start. The caller must receive from t.calls
// after it.
func (t *throttle) acquire(ctx context.Context) error {
	select {
	case t.calls <- struct{}{}:
		return nil
	default:
	}
	select {
	case t.queue <- struct{}{}:
		defer func() { <-t.queue }()
	default:
		return errBusy
	}
	select {
	case t.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// recall returns the result of an earlier call, if it is remembered.
func (t *throttle) recall(sum [sha256.Size]byte) (known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.right.has(sum):
		return true, nil
	case t.wrong.has(sum):
		return true, ErrCredentials
	}
	return false, nil
}

// memory is a bounded set of MACs that expire. The oldest are forgotten first.
type memory struct {
	ttl         time.Duration
	recent, old map[[sha256.Size]byte]time.Time // with the time of add
}

func (m *memory) add(sum [sha256.Size]byte) {
	if m.recent == nil || len(m.recent) >= maxRemembered {
		m.recent, m.old = make(map[[sha256.Size]byte]time.Time), m.recent
	}
	m.recent[sum] = time.Now()
}

func (m *memory) has(sum [sha256.Size]byte) bool {
	added, ok := m.recent[sum]
	if !ok {
		added, ok = m.old[sum]
	}
	return ok && time.Since(added) < m.ttl
}
