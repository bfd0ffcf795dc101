// SPDX-License-Identifier: Apache-2.0

// Replacing damaged files by the bytes of a push.

package ocidir

import (
	"context"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
)

// heal replaces the files of the content d that are damaged, in all repositories,
// if the file that a push to repo would use is. The file source has the right bytes.
func (s *Store) heal(repo string, d digest.Digest, source string) error {
	c := comparer{files: s.files, digest: d, source: source}
	for _, name := range []string{poolPath(d), contentPath(repoDir(repo), d)} {
		if intact, err := c.isIntact(name); err != nil {
			return err
		} else if !intact {
			return s.replaceDamaged(d, &c)
		}
	}
	return nil
}

// replaceDamaged replaces all damaged files of the content d.
func (s *Store) replaceDamaged(d digest.Digest, c *comparer) error {
	replace := func(name string) (bool, error) {
		if intact, err := c.isIntact(name); intact || err != nil {
			return false, err
		}
		s.log.Warn("replacing a damaged file", "file", name)
		temp := tempName()
		if err := s.files.linkOrCopy(c.source, temp); err != nil {
			return false, err
		}
		err := s.files.moveTemp(temp, name)
		return err == nil, err
	}
	for repo, err := range s.Repositories(context.Background(), "") {
		if err != nil {
			return err
		}
		name := contentPath(repoDir(repo), d)
		if !s.files.exists(name) {
			continue
		}
		var replaceErr error
		err = s.update(repo, func(t *txn) error {
			var replaced bool
			if replaced, replaceErr = replace(name); replaced {
				t.unsynced[path.Dir(name)] = true
			}
			return replaceErr
		})
		if err != nil && replaceErr == nil { // nobody can read or change the repository
			s.log.Warn("replacing a damaged file", "repository", repo, "error", err)
			_, err = replace(name)
		}
		if err != nil {
			return err
		}
	}
	_, err := replace(poolPath(d))
	return err
}

// comparer compares files of the content digest with the file source. Files with
// several names are compared once.
type comparer struct {
	files  rootDir
	digest digest.Digest
	source string
	seen   []compared
}

type compared struct {
	info   fs.FileInfo
	intact bool
}

// isIntact reports whether a file has the bytes of the source, or does not exist. A
// signed manifest of Docker schema 1 has the digest of its payload: in a repository,
// it is intact with other bytes too.
func (c *comparer) isIntact(name string) (bool, error) {
	info, err := c.files.Stat(name)
	if isMissing(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, other := range c.seen {
		if os.SameFile(info, other.info) {
			return other.intact, nil
		}
	}
	intact, err := c.files.same(name, c.source)
	if err == nil && !intact && name != poolPath(c.digest) {
		intact = c.isSigned(name, info)
	}
	if err == nil {
		c.seen = append(c.seen, compared{info, intact})
	}
	return intact, err
}

// isSigned reports whether a file is a signed manifest with the digest.
func (c *comparer) isSigned(name string, info fs.FileInfo) bool {
	if info.Size() > maxManifest {
		return false
	}
	content, err := readFile(c.files, name)
	if err != nil {
		return false
	}
	_, ok := parseFact("application/vnd.docker.distribution.manifest.v1+prettyjws", c.digest, content)
	return ok
}
