// SPDX-License-Identifier: Apache-2.0

// The part of GC that deletes what deletes and interrupted pushes leave in
// repositories.

package bucket

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// probe finds out whether the bucket has conditional deletes: MinIO, for one,
// ignores the condition.
func (g *collection) probe(ctx context.Context) error {
	s, key := g.store, checkPrefix+newUUID()
	defer s.remove(context.WithoutCancel(ctx), key)
	if _, _, err := s.replace(ctx, key, value{}, newID(), []byte("1")); err != nil {
		return err
	}
	one, err := s.read(ctx, key)
	if err != nil {
		return err
	}
	if _, _, err := s.replace(ctx, key, one, newID(), []byte("2")); err != nil {
		return err
	}
	err = s.bucket.Delete(ctx, s.opts.Prefix+key, one.object.Version)
	if err != nil && !errors.Is(err, objects.ErrCondition) {
		return nil // unsupported, or too slow today
	}
	g.conditionalDelete, err = s.exists(ctx, key)
	return err
}

// removeDeleted removes the object of a register that is deleted. Without
// conditional deletes that could undo a write, and the object stays.
func (g *collection) removeDeleted(ctx context.Context, key string) error {
	if !g.conditionalDelete {
		return nil
	}
	v, err := g.store.read(ctx, key)
	if err == errMalformed {
		return nil
	}
	if err != nil || v.id == "" || v.exists() || !g.isOld(v.object.Time) {
		return err
	}
	return g.removeVersion(ctx, key, v)
}

// removeVersion removes the object of a register, unless it has another value.
func (g *collection) removeVersion(ctx context.Context, key string, v value) error {
	if !g.conditionalDelete {
		return nil
	}
	err := g.store.bucket.Delete(ctx, g.store.opts.Prefix+key, v.object.Version)
	if errors.Is(err, objects.ErrCondition) {
		return nil
	}
	if err == nil {
		g.stats.Marks++
	}
	return g.store.storeError(ctx, err)
}

// sweepRepos walks all of repos/ once. It deletes the objects of registers that
// are deleted, and hints, entries of referrers and packs that are not true anymore. It
// adds repositories to the catalog whose content a push has left behind that failed.
func (g *collection) sweepRepos(ctx context.Context) error {
	var current liveManifest
	named := "" // the last repository that is in the catalog
	for o, err := range g.store.list(ctx, reposPrefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		if !g.isOld(o.time) {
			continue
		}
		repo, rest, _ := strings.Cut(o.name, "/_") // no component of a name begins with "_"
		kind, name, ok := strings.Cut(rest, "/")
		if !ok {
			continue
		}
		o.name = name
		switch kind {
		case "blobs", "manifests", "tags":
			if isDeletedSize(o.size) {
				err = g.removeDeleted(ctx, contentPrefix(repo)+kind+"/"+name)
			} else if kind != "tags" && repo != named {
				named = repo
				err = g.store.confirmRepo(ctx, repo)
			}
		case "packs":
			err = g.sweepPack(ctx, repo, name)
		case "referrers":
			err = g.sweepReferrer(ctx, repo, name, &current)
		case "tagged":
			err = g.sweepHint(ctx, repo, o, &current)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// liveManifest is the manifest that a sweep has looked up last.
type liveManifest struct {
	repo        string
	digest      digest.Digest
	incarnation string // "" if it does not exist
}

// isLive reports whether an incarnation of a manifest exists.
func (g *collection) isLiveManifest(ctx context.Context, m *liveManifest, repo string, d digest.Digest, incarnation string) (bool, error) {
	if m.repo != repo || m.digest != d {
		switch s, err := g.store.statManifest(ctx, repo, d); {
		case err == errNotFound:
			*m = liveManifest{repo, d, ""}
		case errors.Is(err, errCorrupt):
			return true, nil // nobody knows
		case err != nil:
			return false, err
		default:
			*m = liveManifest{repo, d, s.Incarnation}
		}
	}
	return m.incarnation == incarnation, nil
}

// sweepPack deletes a pack of a subject without referrers.
func (g *collection) sweepPack(ctx context.Context, repo, name string) error {
	subject := parseDigestPath(name[:max(strings.LastIndexByte(name, '/'), 0)])
	for _, err := range g.store.list(ctx, referrersPrefix(repo, subject), "", 1) {
		return err
	}
	g.stats.Entries++
	return g.store.remove(ctx, contentPrefix(repo)+"packs/"+name)
}

// sweepReferrer deletes an entry in a list of referrers whose manifest was deleted,
// or never written.
func (g *collection) sweepReferrer(ctx context.Context, repo, name string, current *liveManifest) error {
	alg, rest, _ := strings.Cut(name, "/")
	hex, rest, _ := strings.Cut(rest, "/")
	e, ok := parseReferrerEntry(rest)
	if !ok {
		return nil
	}
	live, err := g.isLiveManifest(ctx, current, repo, e.digest, e.incarnation)
	if live || err != nil {
		return err
	}
	g.stats.Entries++
	return g.store.remove(ctx, referrerKey(repo, digest.Digest(alg+":"+hex), e.digest, e.incarnation))
}

// sweepHint deletes a hint whose tag points elsewhere, and a tag whose manifest was
// deleted.
func (g *collection) sweepHint(ctx context.Context, repo string, o object, current *liveManifest) error {
	alg, rest, _ := strings.Cut(o.name, "/")
	hex, rest, _ := strings.Cut(rest, "/")
	d := digest.Digest(alg + ":" + hex)
	o.name = rest
	h, ok := parseHint(o)
	if !ok {
		return nil
	}
	live, err := g.isLiveManifest(ctx, current, repo, d, h.incarnation)
	if err != nil {
		return err
	}
	if live {
		needed, err := g.store.isNeeded(ctx, repo, d, h, g.cutoff)
		if needed || err != nil {
			return err
		}
	} else if err := g.store.untag(ctx, repo, h.tag, d, h.incarnation); err != nil {
		return err
	}
	g.stats.Entries++
	return g.store.remove(ctx, h.key(repo, d))
}
