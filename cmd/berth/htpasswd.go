// SPDX-License-Identifier: Apache-2.0

// Users in the format of Apache's htpasswd.

package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry/auth"
)

// htpasswd holds the users of a file in the format of htpasswd -B: each line is a
// name, a colon and a bcrypt hash.
type htpasswd struct {
	hashes map[string][]byte
	dummy  []byte // the hash for unknown users
	key    [32]byte

	mu    sync.Mutex
	known map[string][]byte // guarded by mu: the verified password of each user, as a MAC with key
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
	h := &htpasswd{hashes: make(map[string][]byte), known: make(map[string][]byte)}
	rand.Read(h.key[:])
	cost := bcrypt.MinCost
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
		h.hashes[user], cost = []byte(hash), max(cost, c)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var err error
	h.dummy, err = bcrypt.GenerateFromPassword(h.key[:], cost)
	return h, err
}

// check is an auth.Check. It computes bcrypt only once for each correct password,
// since clients send their passwords with each request.
func (h *htpasswd) check(_ context.Context, user, password string) error {
	mac := hmac.New(sha256.New, h.key[:])
	fmt.Fprintf(mac, "%d %s %s", len(user), user, password)
	sum := mac.Sum(nil)
	h.mu.Lock()
	known := h.known[user]
	h.mu.Unlock()
	if hmac.Equal(sum, known) {
		return nil
	}
	hash, ok := h.hashes[user]
	if !ok {
		hash = h.dummy // so that unknown users take as long as known ones
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return auth.ErrCredentials
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[user] = sum
	return nil
}
