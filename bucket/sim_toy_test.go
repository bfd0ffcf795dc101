// SPDX-License-Identifier: Apache-2.0

// A toy: a store whose state is one object, replaced by conditional writes. It is
// slow and correct, and checks the simulation itself.

package bucket_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

type toy struct {
	registry.UnimplementedStore
	b objects.Bucket
	// broken lets the toy make a mistake: see TestSimulationFindsMistakes.
	broken string
}

type toyState struct {
	Repos   map[string]*toyRepo
	Uploads map[string]*toyUpload
	Done    []string // the last changes
}

type toyRepo struct {
	Blobs     map[digest.Digest][]string // the keys of its parts
	Manifests map[digest.Digest]registry.Manifest
	Tags      map[string]digest.Digest
}

type toyUpload struct {
	Parts     []string
	Size      int64 // without the last lease, once it is published
	Published digest.Digest
}

func (r *toyRepo) empty() bool { return r == nil || len(r.Blobs)+len(r.Manifests) == 0 }

func toyUUID() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func unavailable(err error) error {
	if e := (*registry.Error)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("%w: %v", registry.ErrUnavailable, err)
}

func (t *toy) bytes(ctx context.Context, key string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := t.b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return data, r.Version, err
}

func (t *toy) state(ctx context.Context) (*toyState, string, error) {
	st := &toyState{Repos: make(map[string]*toyRepo), Uploads: make(map[string]*toyUpload)}
	data, version, err := t.bytes(ctx, "state")
	if err == objects.ErrNotExist {
		return st, "", nil
	}
	if err == nil {
		err = json.Unmarshal(data, st)
	}
	return st, version, unavailable(err)
}

func (t *toy) change(ctx context.Context, f func(*toyState) error) error {
	ctx = context.WithoutCancel(ctx)
	id := toyUUID()
	for range 100 {
		st, version, err := t.state(ctx)
		if err != nil {
			return err
		}
		if slices.Contains(st.Done, id) {
			return nil
		}
		if err := f(st); err != nil {
			return err
		}
		if st.Done = append(st.Done, id); len(st.Done) > 200 {
			st.Done = st.Done[1:]
		}
		data, err := json.Marshal(st)
		if err != nil {
			return err
		}
		c := objects.Condition{Version: version, Absent: version == ""}
		if t.broken == "unconditional" {
			c = objects.Condition{}
		}
		_, err = t.b.Put(ctx, "state", data, c)
		if t.broken == "retries" && errors.Is(err, objects.ErrCondition) {
			id = toyUUID() // forgets that its write may have taken effect
		}
		if !errors.Is(err, objects.ErrCondition) {
			if err != nil && t.broken == "acknowledges" {
				return nil
			}
			return unavailable(err)
		}
	}
	return registry.ErrUnavailable
}

func (st *toyState) repo(name string) *toyRepo {
	if st.Repos[name] == nil {
		st.Repos[name] = &toyRepo{make(map[digest.Digest][]string), make(map[digest.Digest]registry.Manifest), make(map[string]digest.Digest)}
	}
	return st.Repos[name]
}

func (t *toy) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	st, _, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	parts, ok := st.repo(repo).Blobs[d]
	if !ok {
		return nil, registry.ErrBlobUnknown
	}
	data, err := t.join(ctx, parts)
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(data), io.NopCloser(nil)}, err
}

func (t *toy) join(ctx context.Context, parts []string) (all []byte, err error) {
	for _, key := range parts {
		data, _, err := t.bytes(ctx, key)
		if err != nil {
			return nil, unavailable(err)
		}
		all = append(all, data...)
	}
	return all, nil
}

func (t *toy) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	return t.change(ctx, func(st *toyState) error {
		parts, ok := st.repo(from).Blobs[d]
		if !ok {
			return registry.ErrBlobUnknown
		}
		st.repo(repo).Blobs[d] = parts
		return nil
	})
}

func (t *toy) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return t.change(ctx, func(st *toyState) error {
		if _, ok := st.repo(repo).Blobs[d]; !ok {
			return registry.ErrBlobUnknown
		}
		delete(st.repo(repo).Blobs, d)
		return nil
	})
}

func (t *toy) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	st, _, err := t.state(ctx)
	m, ok := st.repo(repo).Manifests[d]
	if !ok && err == nil {
		err = registry.ErrManifestUnknown
	}
	return m, err
}

func (t *toy) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	st, _, err := t.state(ctx)
	m, ok := st.repo(repo).Manifests[st.repo(repo).Tags[tag]]
	if !ok && err == nil {
		err = registry.ErrManifestUnknown
	}
	return m, err
}

func (t *toy) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	return t.change(ctx, func(st *toyState) error {
		r := st.repo(repo)
		for _, tag := range tags {
			if allow != nil {
				if err := allow(tag, r.Tags[tag]); err != nil {
					return err
				}
			}
		}
		r.Manifests[m.Digest] = m
		for _, tag := range tags {
			r.Tags[tag] = m.Digest
		}
		return nil
	})
}

func (t *toy) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return t.change(ctx, func(st *toyState) error {
		if _, ok := st.repo(repo).Manifests[d]; !ok {
			return registry.ErrManifestUnknown
		}
		delete(st.repo(repo).Manifests, d)
		if t.broken != "keeps tags" {
			maps.DeleteFunc(st.repo(repo).Tags, func(_ string, at digest.Digest) bool { return at == d })
		}
		return nil
	})
}

func (t *toy) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	return t.change(ctx, func(st *toyState) error {
		d := st.repo(repo).Tags[tag]
		if d == "" {
			return registry.ErrManifestUnknown
		}
		if allow != nil {
			if err := allow(tag, d); err != nil {
				return err
			}
		}
		delete(st.repo(repo).Tags, tag)
		return nil
	})
}

// toyList yields the names of a map of the state.
func toyList[K cmp.Ordered, V any](ctx context.Context, t *toy, all func(*toyState) map[K]V) iter.Seq2[K, error] {
	return func(yield func(K, error) bool) {
		var zero K
		st, _, err := t.state(ctx)
		if err != nil {
			yield(zero, err)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(all(st))) {
			if !yield(name, nil) {
				return
			}
		}
	}
}

func (t *toy) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return toyList(ctx, t, func(st *toyState) map[string]digest.Digest {
		tags := st.repo(repo).Tags
		maps.DeleteFunc(tags, func(tag string, _ digest.Digest) bool { return tag <= after })
		return tags
	})
}

func (t *toy) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return toyList(ctx, t, func(st *toyState) map[string]*toyRepo {
		maps.DeleteFunc(st.Repos, func(name string, r *toyRepo) bool { return name <= after || r.empty() })
		return st.Repos
	})
}

func (t *toy) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		st, _, err := t.state(ctx)
		if err != nil {
			yield(registry.Referrer{}, err)
			return
		}
		all := st.repo(repo).Manifests
		for _, d := range slices.Sorted(maps.Keys(all)) {
			if all[d].Subject == subject && d > after && !yield(all[d].Referrer, nil) {
				return
			}
		}
	}
}
