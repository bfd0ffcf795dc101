// SPDX-License-Identifier: Apache-2.0

// PushBlob and PushManifest: pushes with all their checks, over HTTP or not.

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// PushBlob stores content as the blob d of repo, as a push over HTTP does.
//
// Errors: ErrNameInvalid, ErrDigestInvalid, those of the store and those of
// content. On an error nothing is stored.
func PushBlob(ctx context.Context, s BlobStore, repo string, d digest.Digest, content io.Reader) error {
	if !validName(repo) {
		return ErrNameInvalid
	}
	if err := checkDigest(d); err != nil {
		return err
	}
	return pushBlob(ctx, s, repo, d, content, func() error { return nil })
}

// pushBlob is PushBlob for a valid name and digest. It calls end after content
// has been read to its end, and stores nothing if that fails.
func pushBlob(ctx context.Context, s BlobStore, repo string, d digest.Digest, content io.Reader, end func() error) error {
	u, err := s.CreateUpload(ctx, repo, UploadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return err
	}
	defer u.Close()
	if _, err = u.ReadFrom(content); err == nil {
		err = end()
	}
	if err == nil {
		err = u.Commit(ctx, d)
	}
	if err != nil {
		s.CancelUpload(context.WithoutCancel(ctx), repo, u.ID())
	}
	return err
}

// ManifestPush is a manifest to push.
type ManifestPush struct {
	// MediaType is the manifest's Content-Type, whose parameters are dropped.
	// If it is empty, the mediaType member of Content is used.
	MediaType string

	// Content is the manifest. It must not be changed afterwards.
	Content []byte

	// Digest is the expected digest of Content; if it is empty, the SHA-256
	// digest is computed.
	Digest digest.Digest

	// Tags will point at the manifest.
	Tags []string

	// Allow, unless nil, decides whether each of the tags may be moved.
	Allow AllowFunc

	// Sparse accepts an incomplete manifest: see [AllowSparse].
	Sparse bool
}

// PushManifest checks and stores a manifest in repo as a push over HTTP does,
// and returns it as stored (section "Pushing Manifests").
//
// Errors: ErrNameInvalid, ErrDigestInvalid, ErrManifestInvalid,
// ErrManifestBlobUnknown, and those of the store and of Allow. On an error
// nothing is stored, except as [ManifestStore.PutManifest] describes.
func PushManifest(ctx context.Context, s Store, repo string, p ManifestPush) (Manifest, error) {
	if !validName(repo) {
		return Manifest{}, ErrNameInvalid
	}
	for _, tag := range p.Tags {
		if !validTag(tag) {
			return Manifest{}, errBadTag
		}
	}
	m, refs, err := p.parse()
	if err != nil {
		return Manifest{}, err
	}
	if refs.incomplete != nil && !p.Sparse {
		return Manifest{}, refs.incomplete
	}
	// A check is also a use of the content that there is: see Collector.
	if err := refs.check(ctx, s, repo); err != nil && !(p.Sparse && errors.Is(err, ErrManifestBlobUnknown)) {
		return Manifest{}, err
	}
	allow := p.Allow
	if tagsAreImmutable(ctx) {
		allow = allowNew(m.Digest, p.Allow)
	}
	m.Blobs, m.Manifests, m.Sparse = refs.blobs, refs.manifests, p.Sparse
	return m, s.PutManifest(ctx, repo, m, p.Tags, allow)
}

// ParseManifest parses a manifest as PushManifest does, and returns it with the
// SHA-256 digest of its content, and with what it names. If mediaType is empty, the
// mediaType member of content is used.
//
// Errors: ErrManifestInvalid.
func ParseManifest(mediaType string, content []byte) (Manifest, error) {
	m, refs, err := ManifestPush{MediaType: mediaType, Content: content}.parse()
	m.Blobs, m.Manifests = refs.blobs, refs.manifests
	return m, err
}

// EachReference is ParseManifest for programs that read very many manifests: it copies no
// digests. It calls blob and manifest, which must not be nil, with the digests that the
// manifest names, in its order and with duplicates. They are usually parts of content: they
// must not be changed, and keep all of it in memory. EachReference returns the digest of the
// subject, "" if there is none.
//
// Errors: ErrManifestInvalid. It may be found after some calls.
func EachReference(mediaType string, content []byte, blob, manifest func(d []byte)) (subject digest.Digest, err error) {
	m, _, err := parseManifest(mediaType, content, blob, manifest)
	return m.Subject, err
}

// allowNew returns an AllowFunc that lets tags be created but not moved from
// another manifest than d, and that calls next, unless nil, for the others.
func allowNew(d digest.Digest, next AllowFunc) AllowFunc {
	return func(tag string, current digest.Digest) error {
		if current != "" && current != d {
			return fmt.Errorf("%w: the tag %s exists, and may not be moved", ErrDenied, tag)
		}
		if next == nil {
			return nil
		}
		return next(tag, current)
	}
}

// parse parses the manifest and checks its digest.
func (p ManifestPush) parse() (Manifest, references, error) {
	d, algorithm := p.Digest, digest.Canonical
	if d != "" {
		if err := checkDigest(d); err != nil {
			return Manifest{}, references{}, err
		}
		algorithm = d.Algorithm()
	}
	var blobs, manifests []digest.Digest
	m, refs, err := parseManifest(p.MediaType, p.Content,
		func(d []byte) { blobs = appendDigest(blobs, d) },
		func(d []byte) { manifests = appendDigest(manifests, d) })
	if err != nil {
		return Manifest{}, references{}, err
	}
	refs.blobs, refs.manifests = compact(blobs), compact(manifests)
	if m.Digest = algorithm.FromBytes(refs.payload); d != "" && d != m.Digest {
		return Manifest{}, references{}, ErrDigestInvalid
	}
	if m.Subject != "" {
		m.Referrer.Digest = m.Digest
		m.Referrer.Descriptor, err = referrerDescriptor(m, refs.annotations)
	}
	return m, refs, err
}

// appendDigest appends a digest to a list. The first time, it makes the list long enough for
// most manifests.
func appendDigest(list []digest.Digest, d []byte) []digest.Digest {
	if list == nil {
		list = make([]digest.Digest, 0, 16)
	}
	return append(list, digest.Digest(d))
}

// compact removes duplicates: an empty layer, for example.
func compact(list []digest.Digest) []digest.Digest {
	slices.Sort(list)
	return slices.Compact(list)
}

// referrerDescriptor returns the JSON of m's entry in a list of referrers. It is
// no larger than the members of m, but for a constant: nothing in it is escaped
// that was not escaped before.
func referrerDescriptor(m Manifest, annotations json.RawMessage) (json.RawMessage, error) {
	doc := bytes.NewBuffer(make([]byte, 0, len(annotations)+len(m.Referrer.ArtifactType)+1<<10))
	fmt.Fprintf(doc, `{"mediaType":%q,"digest":%q,"size":%d`, m.MediaType, m.Digest, len(m.Content))
	if m.Referrer.ArtifactType != "" {
		doc.WriteString(`,"artifactType":`)
		e := json.NewEncoder(doc)
		e.SetEscapeHTML(false)
		if err := e.Encode(m.Referrer.ArtifactType); err != nil {
			return nil, err
		}
		doc.Truncate(doc.Len() - len("\n"))
	}
	if annotations != nil {
		doc.WriteString(`,"annotations":`)
		if err := json.Compact(doc, annotations); err != nil {
			return nil, err
		}
	}
	doc.WriteByte('}')
	return slices.Clip(doc.Bytes()), nil
}

// statBlob returns the size of a blob, also of a store that does not implement
// StatBlob.
func statBlob(ctx context.Context, s BlobStore, repo string, d digest.Digest) (int64, error) {
	info, err := s.StatBlob(ctx, repo, d)
	if !errors.Is(err, ErrUnsupported) {
		return info.Size, err
	}
	content, err := s.OpenBlob(ctx, repo, d)
	if err != nil {
		return 0, err
	}
	defer content.Close()
	return content.Seek(0, io.SeekEnd)
}

// statManifest returns the size of a manifest, also of a store that does not implement
// StatManifest.
func statManifest(ctx context.Context, s Store, repo string, d digest.Digest) (int64, error) {
	info, err := s.StatManifest(ctx, repo, d)
	if !errors.Is(err, ErrUnsupported) {
		return info.Size, err
	}
	m, err := s.GetManifest(ctx, repo, d)
	return int64(len(m.Content)), err
}

// check returns an error if repo lacks content that a manifest names. It looks for
// several at once, unless they are in memory, where that would take longer.
func (refs references) check(ctx context.Context, s Store, repo string) error {
	parallel := maxParallelChecks
	if _, ok := unwrap(s).(inMemory); ok {
		parallel = 1
	}
	all := slices.Concat(refs.blobs, refs.manifests)
	var missing []error
	for i := 0; i < len(all) && len(missing) < maxErrors; i += parallel {
		errs := make([]error, min(parallel, len(all)-i))
		checkOne := func(k int) { errs[k] = checkChild(ctx, s, repo, all[i+k], i+k < len(refs.blobs)) }
		var wg sync.WaitGroup
		for k := range errs[1:] {
			wg.Add(1)
			go func() {
				defer wg.Done()
				checkOne(k + 1)
			}()
		}
		checkOne(0)
		wg.Wait()
		for _, err := range errs {
			switch {
			case err == nil || len(missing) == maxErrors:
			case errors.Is(err, ErrManifestBlobUnknown):
				missing = append(missing, err)
			default:
				return err
			}
		}
	}
	return errors.Join(missing...)
}

// maxParallelChecks is the number of children of a manifest that check looks for at
// once.
const maxParallelChecks = 16

// checkChild returns ErrManifestBlobUnknown if repo lacks a blob or a manifest.
func checkChild(ctx context.Context, s Store, repo string, d digest.Digest, isBlob bool) error {
	var err error
	kind := "manifest"
	if isBlob {
		kind = "blob"
		_, err = statBlob(ctx, s, repo, d)
	} else {
		_, err = statManifest(ctx, s, repo, d)
	}
	if errors.Is(err, ErrBlobUnknown) || errors.Is(err, ErrManifestUnknown) || errors.Is(err, ErrNameUnknown) {
		return fmt.Errorf("%w: %s %s", ErrManifestBlobUnknown, kind, d)
	}
	return err
}
