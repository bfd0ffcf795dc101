// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"io"
	"maps"
)

// secretSearch finds secrets in files.
type secretSearch struct {
	kinds   map[string]string
	first   map[[2]byte][]string // the secrets, by their first two bytes, so that a file is read once, not once for each
	begins  [1 << 16]bool        // whether first has such bytes: faster than a map
	longest int
}

// search returns a search for the secrets that are known.
func (m *masker) search() *secretSearch {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &secretSearch{kinds: maps.Clone(m.secrets), first: make(map[[2]byte][]string)}
	for secret := range s.kinds {
		key := [2]byte{secret[0], secret[1]}
		s.first[key] = append(s.first[key], secret)
		s.begins[int(key[0])<<8|int(key[1])] = true
		s.longest = max(s.longest, len(secret))
	}
	return s
}

// in returns what a secret in r is, "" if r contains none.
func (s *secretSearch) in(r io.Reader) (kind string, err error) {
	buf := make([]byte, 1<<16+s.longest)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		window := buf[:kept+n]
		for i := 0; i+1 < len(window); i++ {
			if !s.begins[int(window[i])<<8|int(window[i+1])] {
				continue
			}
			for _, secret := range s.first[[2]byte{window[i], window[i+1]}] {
				if len(window)-i >= len(secret) && string(window[i:i+len(secret)]) == secret {
					return s.kinds[secret], nil
				}
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return "", nil
		default:
			return "", err
		}
		kept = copy(buf, window[len(window)-min(len(window), s.longest):])
	}
}
