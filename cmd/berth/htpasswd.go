// SPDX-License-Identifier: Apache-2.0

// Users in the format of Apache's htpasswd.

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"os"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry/auth"
)

// htpasswd holds the users of a file in the format of htpasswd -B: each line is a
// name, a colon and a bcrypt hash.
type htpasswd struct {
	hashes  map[string][]byte
	costs   []int          // of the hashes
	dummies map[int][]byte // a hash of each cost, for unknown users
	seed    maphash.Seed
	compare func(hash, password []byte) error // bcrypt, except in tests
}

func openHtpasswd(name string) (*htpasswd, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	users, err := readHtpasswd(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return users, nil
}

func readHtpasswd(r io.Reader) (*htpasswd, error) {
	h := &htpasswd{
		hashes:  make(map[string][]byte),
		dummies: make(map[int][]byte),
		seed:    maphash.MakeSeed(),
		compare: bcrypt.CompareHashAndPassword,
	}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		c, err := bcrypt.Cost([]byte(hash))
		if !ok || user == "" || err != nil {
			return nil, fmt.Errorf("line %d is not in the format of htpasswd -B: a name, a colon and a bcrypt hash", n)
		}
		if c > maxCost {
			return nil, fmt.Errorf("line %d: a hash of cost %d takes too long: the most is %d", n, c, maxCost)
		}
		if h.hashes[user] != nil {
			return nil, fmt.Errorf("line %d: the user %q occurs twice", n, user)
		}
		h.hashes[user] = []byte(hash)
		h.costs = append(h.costs, c)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if h.costs == nil {
		h.costs = []int{bcrypt.MinCost}
	}
	for _, cost := range h.costs {
		if h.dummies[cost] != nil {
			continue
		}
		var err error
		if h.dummies[cost], err = bcrypt.GenerateFromPassword([]byte(rand.Text()), cost); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// check returns an auth.Check. It computes bcrypt only once for each correct
// password, since clients send their passwords with each request.
func (h *htpasswd) check() auth.Check {
	return auth.Throttle(h.verify, 0, math.MaxInt64)
}

// verify takes the same time for users that exist and for those that don't. If the
// hashes have several costs, an unknown user has one of them, always the same.
func (h *htpasswd) verify(_ context.Context, user, password string) error {
	hash, ok := h.hashes[user]
	if !ok {
		n := maphash.String(h.seed, user) % uint64(len(h.costs))
		hash = h.dummies[h.costs[n]]
	}
	if h.compare(hash, []byte(password)) != nil || !ok {
		return auth.ErrCredentials
	}
	return nil
}
