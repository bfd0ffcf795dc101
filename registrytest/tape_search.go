// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"io"
	"maps"
)

// secretSearch finds secrets in files.
type secretSearch struct {
	kinds   map[string]string
	first   [1 << 16][]string // the secrets, by their first two bytes, so that a file is read once, not once for each
	longest int
}

// search returns a search for the secrets that are known.
func (m *masker) search() *secretSearch {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &secretSearch{kinds: maps.Clone(m.secrets)}
	for secret := range s.kinds {
		i := int(secret[0])<<8 | int(secret[1])
		s.first[i] = append(s.first[i], secret)
		s.longest = max(s.longest, len(secret))
	}
	return s
}

// in returns what a secret in r is, "" if r contains none.
func (s *secretSearch) in(r io.Reader) (kind string, err error) {
	buf := make([]byte, 1<<20+s.longest)
	kept := 0
	for {
		n, err := io.ReadFull(r, buf[kept:])
		window := buf[:kept+n]
		for i := 0; i+1 < len(window); i++ {
			for _, secret := range s.first[int(window[i])<<8|int(window[i+1])] {
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
