// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// htpasswd is the users of a file as htpasswd -B writes it: lines of a name, a
// colon and a bcrypt hash.
type htpasswd struct {
	hashes map[string][]byte
	nobody []byte // the hash that those are checked against who are not in the file
	key    [32]byte

	mu    sync.Mutex
	known map[string][]byte // guarded by mu: what the hash has taken already, as a MAC with key
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
			return nil, fmt.Errorf("line %d is not a name, a colon and a bcrypt hash (htpasswd -B)", n)
		}
		h.hashes[user], cost = []byte(hash), max(cost, c)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	var err error
	h.nobody, err = bcrypt.GenerateFromPassword(h.key[:], cost)
	return h, err
}

// check reports whether user has the given password. A password that was right
// before costs no bcrypt again: clients send it with each request.
func (h *htpasswd) check(user, password string) bool {
	mac := hmac.New(sha256.New, h.key[:])
	fmt.Fprintf(mac, "%d %s %s", len(user), user, password)
	sum := mac.Sum(nil)
	h.mu.Lock()
	known := h.known[user]
	h.mu.Unlock()
	if hmac.Equal(sum, known) {
		return true
	}
	hash, ok := h.hashes[user]
	if !ok {
		hash = h.nobody // for the time that it takes
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !ok {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[user] = sum
	return true
}
