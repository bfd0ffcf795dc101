// SPDX-License-Identifier: Apache-2.0

// References to images on the command line.

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	orasregistry "oras.land/oras-go/v2/registry"

	"github.com/berth-oci/registry"
)

// ref is REPO, REPO:TAG or REPO@DIGEST.
type ref struct {
	repo   string
	tag    string
	digest digest.Digest
}

func (r ref) String() string {
	switch {
	case r.tag != "":
		return r.repo + ":" + r.tag
	case r.digest != "":
		return r.repo + "@" + r.digest.String()
	}
	return r.repo
}

// parseRef parses a reference. Names are not normalized: they have no host.
func parseRef(s string) (ref, error) {
	name, d, hasDigest := strings.Cut(s, "@")
	r := ref{repo: name, digest: digest.Digest(d)}
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		r.repo, r.tag = name[:i], name[i+1:]
		if r.tag == "" || hasDigest {
			return ref{}, fmt.Errorf("%q is neither REPO:TAG nor REPO@DIGEST", s)
		}
	}
	if hasDigest && r.digest.Validate() != nil {
		return ref{}, fmt.Errorf("%q has no valid digest after the @", s)
	}
	if !validRepo(r.repo) {
		return ref{}, fmt.Errorf("%q is not the name of a repository: names are lower case, without a host", r.repo)
	}
	if r.tag != "" && !validTag(r.tag) {
		return ref{}, fmt.Errorf("%q is not a tag", r.tag)
	}
	return r, nil
}

// maxRepoName is the longest name of a repository that Berth accepts.
const maxRepoName = 255

func validRepo(name string) bool {
	return len(name) <= maxRepoName && orasregistry.Reference{Repository: name}.ValidateRepository() == nil
}

func validTag(tag string) bool {
	return orasregistry.Reference{Reference: tag}.ValidateReferenceAsTag() == nil
}

// get returns the manifest that r names in a store.
func (r ref) get(ctx context.Context, s registry.Store) (m registry.Manifest, err error) {
	if r.tag != "" {
		m, err = s.GetTag(ctx, r.repo, r.tag)
	} else {
		m, err = s.GetManifest(ctx, r.repo, r.digest)
	}
	if isUnknown(err) {
		err = fmt.Errorf("%v does not exist", r)
	} else if err != nil {
		err = fmt.Errorf("%v: %w", r, err)
	}
	return m, err
}

// clean returns text without characters that a terminal would interpret. The text
// may come from a server or an archive that nobody trusts.
func clean(text string) string {
	const maxText = 500
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
