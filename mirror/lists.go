// SPDX-License-Identifier: Apache-2.0

// Lists: of what is stored here and, for tags and referrers, of what the upstream has.

package mirror

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// maxList is the size in bytes of the largest list that is read from an upstream, all
// pages together.
const maxList = 8 << 20

// upstreamList is a list of an upstream, in byte order.
type upstreamList struct {
	until     time.Time
	tags      []string
	referrers []registry.Referrer
	size      int64 // of the documents that it was read from
}

// Repositories implements registry.Store: the repositories that were pushed, and those
// with content that was fetched.
func (m *Mirror) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	pushed := func(yield func(string, error) bool) {
		skip := false
		for name, err := range m.store.Repositories(ctx, after) {
			if skip = err == nil && strings.HasPrefix(name, CachePrefix); skip {
				break
			}
			if !yield(name, err) {
				return
			}
		}
		if !skip {
			return
		}
		for name, err := range m.store.Repositories(ctx, CachePrefix+"~") { // which no name has
			if !yield(name, err) {
				return
			}
		}
	}
	fetched := func(yield func(string, error) bool) {
		for name, err := range m.store.Repositories(ctx, CachePrefix+after) {
			name, ok := strings.CutPrefix(name, CachePrefix)
			if err == nil && !ok {
				return
			}
			if t, _ := m.resolve(name); err == nil && t.up == nil {
				continue // it is no longer mirrored, and can't be read
			}
			if !yield(name, err) {
				return
			}
		}
	}
	return merge(strings.Compare, pushed, fetched)
}

// FindBlob implements registry.Store.
func (m *Mirror) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range m.store.FindBlob(ctx, d) {
			if !yield(strings.TrimPrefix(name, CachePrefix), err) {
				return
			}
		}
	}
}

// Blobs implements registry.Store.
func (m *Mirror) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return m.storedHere(repo, func(repo string) iter.Seq2[registry.Info, error] { return m.store.Blobs(ctx, repo, after) })
}

// Manifests implements registry.Store.
func (m *Mirror) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return m.storedHere(repo, func(repo string) iter.Seq2[registry.Info, error] { return m.store.Manifests(ctx, repo, after) })
}

// storedHere merges the lists of what was pushed and of what was fetched.
func (m *Mirror) storedHere(repo string, list func(repo string) iter.Seq2[registry.Info, error]) iter.Seq2[registry.Info, error] {
	t, err := m.resolve(repo)
	switch {
	case err != nil:
		return failing[registry.Info](err)
	case t.up == nil || t.byDefault:
		return list(t.local)
	}
	return merge(func(a, b registry.Info) int { return cmp.Compare(a.Digest, b.Digest) }, list(t.local), list(t.cache))
}

// Tags implements registry.Store: those that were pushed, those that were fetched, and
// those of the upstream.
func (m *Mirror) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return withUpstream(ctx, m, repo, strings.Compare,
		func(repo, after string) iter.Seq2[string, error] { return m.store.Tags(ctx, repo, after) }, after,
		func(t target) ([]string, error) {
			l, err := m.listOf(ctx, t, "tags", m.fetchTags)
			return l.tags, err
		})
}

// Referrers implements registry.Store: those that are stored, and those of the upstream.
func (m *Mirror) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return withUpstream(ctx, m, repo, compareReferrers,
		func(repo string, after registry.Referrer) iter.Seq2[registry.Referrer, error] {
			return m.store.Referrers(ctx, repo, subject, after.Digest)
		}, registry.Referrer{Digest: after},
		func(t target) ([]registry.Referrer, error) {
			l, err := m.listOf(ctx, t, "referrers/"+string(subject), func(ctx context.Context, t target) (*upstreamList, error) {
				return m.fetchReferrers(ctx, t, subject)
			})
			return l.referrers, err
		})
}

// withUpstream merges the lists of what is stored with a sorted list of the upstream, and
// yields what comes after an element. If the upstream fails, what is stored is better than
// an error, unless that is nothing.
func withUpstream[T any](ctx context.Context, m *Mirror, repo string, compare func(a, b T) int, stored func(repo string, after T) iter.Seq2[T, error], after T, upstream func(target) ([]T, error)) iter.Seq2[T, error] {
	t, err := m.resolve(repo)
	switch {
	case err != nil:
		return failing[T](err)
	case t.up == nil:
		return stored(t.local, after)
	case !m.mayFetch(ctx, t):
		return merge(compare, stored(t.local, after), stored(t.cache, after))
	}
	all, err := upstream(t)
	if err == nil {
		start, found := slices.BinarySearchFunc(all, after, compare)
		if found {
			start++
		}
		return merge(compare, stored(t.local, after), stored(t.cache, after), elements(all[start:]))
	}
	return withoutUpstream(ctx, m, t, err, compare, stored, after)
}

// withoutUpstream is withUpstream after the upstream's list could not be had.
func withoutUpstream[T any](ctx context.Context, m *Mirror, t target, err error, compare func(a, b T) int, stored func(repo string, after T) iter.Seq2[T, error], after T) iter.Seq2[T, error] {
	var f *failure
	if !errors.As(err, &f) {
		return failing[T](err)
	}
	if f.kind == missing {
		return merge(compare, stored(t.local, after), stored(t.cache, after))
	}
	lists := []iter.Seq2[T, error]{stored(t.local, after)}
	var first T // which is before all others
	some := hasAny(stored(t.local, first))
	if !f.hides(t.up) {
		lists = append(lists, stored(t.cache, after))
		some = some || hasAny(stored(t.cache, first))
	}
	if !some {
		return failing[T](m.failed(ctx, t, err, registry.ErrNameUnknown))
	}
	warn(ctx, f)
	return merge(compare, lists...)
}

func compareReferrers(a, b registry.Referrer) int { return cmp.Compare(a.Digest, b.Digest) }

func hasAny[T any](list iter.Seq2[T, error]) bool {
	for _, err := range list {
		return err == nil
	}
	return false
}

// listOf returns a list of the upstream: the one that is kept during the time to live,
// or later if the upstream fails.
func (m *Mirror) listOf(ctx context.Context, t target, name string, fetch func(context.Context, target) (*upstreamList, error)) (*upstreamList, error) {
	key := t.cache + " " + name
	old, ok := m.lists.Get(key)
	if ok && time.Now().Before(old.until) {
		return old, nil
	}
	l, err := flight(ctx, m, "list "+key, func(ctx context.Context) (*upstreamList, error) {
		l, err := fetch(ctx, t)
		if err == nil {
			l.until = time.Now().Add(t.up.TTL)
			m.keepList(key, l)
		}
		return l, err
	})
	var f *failure
	if errors.As(err, &f) && ok && !f.hides(t.up) {
		t.up.stale.Add(1)
		warn(ctx, f)
		return old, nil
	}
	if err != nil {
		return new(upstreamList), err
	}
	return l, nil
}

// keepList keeps a list, and lets others go: few repositories have long ones.
func (m *Mirror) keepList(key string, l *upstreamList) {
	m.lists.Remove(key)
	m.listBytes.Add(l.size)
	m.lists.Add(key, l)
	for m.listBytes.Load() > maxListBytes {
		if _, _, ok := m.lists.RemoveOldest(); !ok {
			return
		}
	}
}

// fetchTags gets the tags of a repository: section "Listing Tags".
func (m *Mirror) fetchTags(ctx context.Context, t target) (*upstreamList, error) {
	l := new(upstreamList)
	err := m.pages(ctx, t, call{kind: "tags", ref: "list"}, func(page []byte) error {
		l.size += int64(len(page))
		var doc struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(page, &doc); err != nil {
			return err
		}
		for _, tag := range doc.Tags {
			if validTag.MatchString(tag) {
				l.tags = append(l.tags, tag)
			}
		}
		return nil
	})
	slices.Sort(l.tags)
	l.tags = slices.Clone(slices.Compact(l.tags)) // which keeps no more than it needs
	return l, err
}

// fetchReferrers gets the referrers of a manifest, from the API or from the tag that stands
// for it: section "Unavailable Referrers API".
func (m *Mirror) fetchReferrers(ctx context.Context, t target, subject digest.Digest) (*upstreamList, error) {
	l := new(upstreamList)
	add := func(page []byte) error {
		l.size += int64(len(page))
		var doc struct {
			Manifests []json.RawMessage `json:"manifests"`
		}
		if err := json.Unmarshal(page, &doc); err != nil {
			return err
		}
		for _, raw := range doc.Manifests {
			var d ocispec.Descriptor
			if err := json.Unmarshal(raw, &d); err != nil {
				return err
			}
			if d.Digest.Validate() == nil && utf8.Valid(raw) { // as in pushes
				l.referrers = append(l.referrers, registry.Referrer{Digest: d.Digest, ArtifactType: d.ArtifactType, Descriptor: raw})
			}
		}
		return nil
	}
	err := m.pages(ctx, t, call{kind: "referrers", ref: string(subject)}, add)
	var f *failure
	if errors.As(err, &f) && f.kind == missing {
		tag := strings.ReplaceAll(string(subject), ":", "-")
		err = m.pages(ctx, t, call{kind: "manifests", ref: tag[:min(len(tag), 128)]}, add)
	}
	if errors.As(err, &f) && f.kind == missing {
		err = nil // nothing refers to it
	}
	slices.SortStableFunc(l.referrers, compareReferrers)
	l.referrers = slices.Clone(slices.CompactFunc(l.referrers, func(a, b registry.Referrer) bool { return compareReferrers(a, b) == 0 }))
	return l, err
}

// pages calls add with each page of a list of the upstream.
func (m *Mirror) pages(ctx context.Context, t target, c call, add func(page []byte) error) error {
	release, err := t.up.reserve(ctx)
	if err != nil {
		return err
	}
	defer release()
	c.method, c.name = http.MethodGet, t.name
	left := int64(maxList)
	seen := make(map[string]bool)
	for !seen[c.ref] {
		seen[c.ref] = true
		resp, err := t.up.do(ctx, c)
		if err != nil {
			return err
		}
		page, err := io.ReadAll(io.LimitReader(resp.Body, left+1))
		resp.Body.Close()
		t.up.bytes.Add(uint64(len(page)))
		if left -= int64(len(page)); err == nil && left < 0 {
			err = notContent("a list of more than %d bytes", maxList)
		} else if err == nil {
			if err = add(page); err != nil {
				err = notContent("a malformed list: %w", err)
			}
		}
		if err != nil {
			return t.up.failure(err)
		}
		query := nextPage(resp.Header)
		if query == "" {
			return nil
		}
		ref, _, _ := strings.Cut(c.ref, "?")
		c.ref = ref + "?" + query
	}
	return nil
}

// links matches the links of a header Link: RFC 8288 section 3.
var links = regexp.MustCompile(`<([^>]*)>([^<]*)`)

// nextPage returns the query of the next page, "" for none. The rest of its URL is not
// used, so that an upstream can't send the mirror elsewhere.
func nextPage(h http.Header) string {
	for _, link := range links.FindAllStringSubmatch(strings.Join(h.Values("Link"), ","), -1) {
		if !strings.Contains(strings.ReplaceAll(link[2], `"`, ""), "rel=next") {
			continue
		}
		if u, err := url.Parse(link[1]); err == nil {
			return u.RawQuery
		}
	}
	return ""
}

// validTag matches tags: section "Pulling manifests".
var validTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// failing is a list that can't be read.
func failing[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// elements yields the elements of a list.
func elements[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// head is the first element of the rest of a list.
type head[T any] struct {
	value T
	next  func() (T, error, bool)
}

// merge merges sorted lists, and drops what is in several. The list of a repository that is
// unknown is empty; if all are unknown, the result is an error.
func merge[T any](compare func(a, b T) int, lists ...iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var heads []*head[T]
		var unknown []error
		advance := func(h *head[T]) (ok bool, err error) {
			h.value, err, ok = h.next()
			if ok && err != nil && isUnknown(err) {
				unknown = append(unknown, err)
				return false, nil
			}
			return ok, err
		}
		for _, l := range lists {
			next, stop := iter.Pull2(l)
			defer stop()
			h := &head[T]{next: next}
			ok, err := advance(h)
			if err != nil {
				yield(h.value, err)
				return
			}
			if ok {
				heads = append(heads, h)
			}
		}
		if len(unknown) == len(lists) {
			var none T
			yield(none, unknown[0])
			return
		}
		for len(heads) > 0 {
			least := slices.MinFunc(heads, func(a, b *head[T]) int { return compare(a.value, b.value) }).value
			if !yield(least, nil) {
				return
			}
			for i := 0; i < len(heads); i++ {
				for compare(heads[i].value, least) == 0 {
					ok, err := advance(heads[i])
					if err != nil {
						yield(least, err)
						return
					}
					if !ok {
						heads = slices.Delete(heads, i, i+1)
						i--
						break
					}
				}
			}
		}
	}
}
