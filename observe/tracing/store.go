// SPDX-License-Identifier: Apache-2.0

// Spans of a store's calls.

package tracing

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/berth-oci/registry"
)

// Names of attributes.
const (
	repoKey    = attribute.Key("berth.repository")
	fromKey    = attribute.Key("berth.from")
	digestKey  = attribute.Key("berth.digest")
	tagKey     = attribute.Key("berth.tag")
	tagsKey    = attribute.Key("berth.tags")
	uploadKey  = attribute.Key("berth.upload")
	bytesKey   = attribute.Key("berth.bytes")
	resultsKey = attribute.Key("berth.results")
)

// Store returns a store that makes a span of each call of s, of the kind internal,
// named after the method: "Store.GetTag", "Upload.ReadFrom". A call in a local span that is
// not sampled makes none, whatever a sampler would say. Propagator is not used.
//
// The span of OpenBlob ends when the content is closed, that of a list with its last
// element; their attributes berth.bytes and berth.results say how much was read, or, for
// a Collector's methods, removed. The
// span of CreateUpload and ResumeUpload ends when the lease is closed; those of the
// lease's methods are its children. Other attributes: berth.repository, berth.from,
// berth.digest, berth.tag, berth.tags, berth.upload. If a call fails with an error of the spec, error.type is its code, such as
// BLOB_UNKNOWN; the span's status is Error only for those that a client sees as a 5xx,
// with the error's text.
//
// The result has a method Unwrap() registry.Store, which returns s. It passes
// everything of the contract through, including methods that later versions add to
// it, though those, and Now, without a span. Content keeps its shortcuts, such as
// sendfile, and a *registry.MemStore those that the registry has for it.
func Store(s registry.Store, o Options) registry.Store {
	if s == nil {
		panic("tracing: Store requires a store")
	}
	traced := &store{Store: s, tracer: o.tracer()}
	if m, ok := s.(*registry.MemStore); ok {
		return memStore{traced, promoted{deeper{m}}}
	}
	return traced
}

// memStore is a store that the registry knows to be in memory: it has the unexported
// methods of MemStore. The others are those of store, and of the Store in it, which are
// less deep.
type memStore struct {
	*store
	promoted
}

type (
	promoted struct{ deeper }
	deeper   struct{ *registry.MemStore }
)

type store struct {
	registry.Store
	tracer trace.Tracer
}

var (
	_ registry.Store = (*store)(nil)
	_ registry.Store = memStore{}
)

// Unwrap returns the store without spans.
func (s *store) Unwrap() registry.Store { return s.Store }

// start starts the span of a call, unless ctx has one of this process that is not sampled,
// such as that of a request. To have samplers decide again would cost a multiple.
func (s *store) start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if outer := trace.SpanFromContext(ctx); !outer.IsRecording() {
		if c := outer.SpanContext(); c.IsValid() && !c.IsRemote() && !c.IsSampled() {
			return ctx, noop.Span{}
		}
	}
	return s.tracer.Start(ctx, name, trace.WithAttributes(slices.Clone(attributes)...)) // else they escape, recorded or not
}

// finish ends the span of a call.
func finish(span trace.Span, err error) {
	setError(span, err)
	span.End()
}

// setError describes an error.
func setError(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	var e *registry.Error
	switch {
	case errors.Is(err, context.Canceled): // most likely by the client
		span.SetAttributes(semconv.ErrorTypeKey.String("canceled"))
	case errors.As(err, &e):
		span.SetAttributes(semconv.ErrorTypeKey.String(e.Code))
		if e.Status >= 500 {
			span.SetStatus(codes.Error, err.Error())
		}
	default:
		span.SetAttributes(semconv.ErrorTypeOther)
		span.SetStatus(codes.Error, err.Error())
	}
}

func (s *store) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	ctx, span := s.start(ctx, "Store.StatBlob", repoKey.String(repo), digestKey.String(string(d)))
	info, err := s.Store.StatBlob(ctx, repo, d)
	finish(span, err)
	return info, err
}

func (s *store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	ctx, span := s.start(ctx, "Store.OpenBlob", repoKey.String(repo), digestKey.String(string(d)))
	content, err := s.Store.OpenBlob(ctx, repo, d)
	if err != nil || content == nil {
		finish(span, err)
		return content, err
	}
	if !span.IsRecording() {
		span.End()
		return content, nil
	}
	return &reader{ReadSeekCloser: content, span: span}, nil
}

func (s *store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return list(ctx, s, "Store.Blobs", func(ctx context.Context) iter.Seq2[registry.Info, error] {
		return s.Store.Blobs(ctx, repo, after)
	}, repoKey.String(repo))
}

func (s *store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	ctx, span := s.start(ctx, "Store.MountBlob", repoKey.String(repo), fromKey.String(from), digestKey.String(string(d)))
	err := s.Store.MountBlob(ctx, repo, from, d)
	finish(span, err)
	return err
}

func (s *store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return list(ctx, s, "Store.FindBlob", func(ctx context.Context) iter.Seq2[string, error] {
		return s.Store.FindBlob(ctx, d)
	}, digestKey.String(string(d)))
}

func (s *store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	ctx, span := s.start(ctx, "Store.DeleteBlob", repoKey.String(repo), digestKey.String(string(d)))
	err := s.Store.DeleteBlob(ctx, repo, d)
	finish(span, err)
	return err
}

func (s *store) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	ctx, span := s.start(ctx, "Store.CreateUpload", repoKey.String(repo))
	u, err := s.Store.CreateUpload(ctx, repo, opts)
	return s.lease(span, u, err)
}

func (s *store) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	ctx, span := s.start(ctx, "Store.ResumeUpload", repoKey.String(repo), uploadKey.String(id))
	u, err := s.Store.ResumeUpload(ctx, repo, id)
	return s.lease(span, u, err)
}

// lease returns a lease that ends span when it is closed.
func (s *store) lease(span trace.Span, u registry.Upload, err error) (registry.Upload, error) {
	if err != nil || u == nil || !span.IsRecording() {
		finish(span, err)
		return u, err
	}
	span.SetAttributes(uploadKey.String(u.ID()))
	return &upload{Upload: u, store: s, span: span}, nil
}

func (s *store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	ctx, span := s.start(ctx, "Store.UploadSize", repoKey.String(repo), uploadKey.String(id))
	size, err := s.Store.UploadSize(ctx, repo, id)
	finish(span, err)
	return size, err
}

func (s *store) CancelUpload(ctx context.Context, repo, id string) error {
	ctx, span := s.start(ctx, "Store.CancelUpload", repoKey.String(repo), uploadKey.String(id))
	err := s.Store.CancelUpload(ctx, repo, id)
	finish(span, err)
	return err
}

func (s *store) PublishedUpload(ctx context.Context, repo, id string) (digest.Digest, error) {
	ctx, span := s.start(ctx, "Store.PublishedUpload", repoKey.String(repo), uploadKey.String(id))
	d, err := s.Store.PublishedUpload(ctx, repo, id)
	finish(span, err)
	return d, err
}

func (s *store) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	ctx, span := s.start(ctx, "Store.GetManifest", repoKey.String(repo), digestKey.String(string(d)))
	m, err := s.Store.GetManifest(ctx, repo, d)
	finish(span, err)
	return m, err
}

func (s *store) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	ctx, span := s.start(ctx, "Store.StatManifest", repoKey.String(repo), digestKey.String(string(d)))
	info, err := s.Store.StatManifest(ctx, repo, d)
	finish(span, err)
	return info, err
}

func (s *store) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	ctx, span := s.start(ctx, "Store.GetTag", repoKey.String(repo), tagKey.String(tag))
	m, err := s.Store.GetTag(ctx, repo, tag)
	if err == nil && span.IsRecording() {
		span.SetAttributes(digestKey.String(string(m.Digest)))
	}
	finish(span, err)
	return m, err
}

func (s *store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	ctx, span := s.start(ctx, "Store.PutManifest", repoKey.String(repo), digestKey.String(string(m.Digest)), tagsKey.StringSlice(tags))
	err := s.Store.PutManifest(ctx, repo, m, tags, allow)
	finish(span, err)
	return err
}

func (s *store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	ctx, span := s.start(ctx, "Store.DeleteManifest", repoKey.String(repo), digestKey.String(string(d)))
	err := s.Store.DeleteManifest(ctx, repo, d)
	finish(span, err)
	return err
}

func (s *store) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	ctx, span := s.start(ctx, "Store.DeleteTag", repoKey.String(repo), tagKey.String(tag))
	err := s.Store.DeleteTag(ctx, repo, tag, allow)
	finish(span, err)
	return err
}

func (s *store) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return list(ctx, s, "Store.Manifests", func(ctx context.Context) iter.Seq2[registry.Info, error] {
		return s.Store.Manifests(ctx, repo, after)
	}, repoKey.String(repo))
}

func (s *store) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return list(ctx, s, "Store.Tags", func(ctx context.Context) iter.Seq2[string, error] {
		return s.Store.Tags(ctx, repo, after)
	}, repoKey.String(repo))
}

func (s *store) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return list(ctx, s, "Store.Referrers", func(ctx context.Context) iter.Seq2[registry.Referrer, error] {
		return s.Store.Referrers(ctx, repo, subject, after)
	}, repoKey.String(repo), digestKey.String(string(subject)))
}

func (s *store) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return list(ctx, s, "Store.Repositories", func(ctx context.Context) iter.Seq2[string, error] {
		return s.Store.Repositories(ctx, after)
	})
}

func (s *store) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	ctx, span := s.start(ctx, "Store.CollectBlobs", repoKey.String(repo))
	deleted, err := s.Store.CollectBlobs(ctx, repo, blobs, since)
	span.SetAttributes(resultsKey.Int(len(deleted)))
	finish(span, err)
	return deleted, err
}

func (s *store) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	ctx, span := s.start(ctx, "Store.CollectManifests", repoKey.String(repo))
	deleted, err := s.Store.CollectManifests(ctx, repo, manifests, since)
	span.SetAttributes(resultsKey.Int(len(deleted)))
	finish(span, err)
	return deleted, err
}

func (s *store) CollectRest(ctx context.Context, since time.Time) (registry.Collected, error) {
	ctx, span := s.start(ctx, "Store.CollectRest")
	collected, err := s.Store.CollectRest(ctx, since)
	span.SetAttributes(resultsKey.Int(collected.Blobs+collected.Uploads), bytesKey.Int64(collected.Bytes))
	finish(span, err)
	return collected, err
}

// list returns a list with a span for each time that it is read.
func list[T any](ctx context.Context, s *store, name string, open func(context.Context) iter.Seq2[T, error], attributes ...attribute.KeyValue) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, span := s.start(ctx, name, attributes...)
		defer span.End()
		n := 0
		for v, err := range open(ctx) {
			if err != nil {
				setError(span, err)
			} else {
				n++
			}
			if !yield(v, err) {
				break
			}
		}
		span.SetAttributes(resultsKey.Int(n))
	}
}

// reader is the content of a blob. Its span ends when it is closed.
type reader struct {
	io.ReadSeekCloser
	span trace.Span
	n    int64 // the number of bytes read
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadSeekCloser.Read(p)
	r.n += int64(n)
	if err != io.EOF {
		setError(r.span, err)
	}
	return n, err
}

// Prepare calls the content's method of that name, if it has one: see
// registry.BlobStore.
func (r *reader) Prepare() error {
	content, ok := r.ReadSeekCloser.(interface{ Prepare() error })
	if !ok {
		return nil
	}
	err := content.Prepare()
	setError(r.span, err)
	return err
}

// WriteTo lets the content write itself, or w read from it, as io.Copy does.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, r.ReadSeekCloser)
	r.n += n
	return n, err
}

// WriteToN is WriteTo for at most n bytes.
func (r *reader) WriteToN(w io.Writer, n int64) (written int64, err error) {
	if direct, ok := r.ReadSeekCloser.(interface {
		WriteToN(w io.Writer, n int64) (int64, error)
	}); ok {
		written, err = direct.WriteToN(w, n)
	} else {
		written, err = io.CopyN(w, r.ReadSeekCloser, n)
	}
	r.n += written
	return written, err
}

func (r *reader) Close() error {
	err := r.ReadSeekCloser.Close()
	r.span.SetAttributes(bytesKey.Int64(r.n))
	finish(r.span, err)
	return err
}

// upload is the lease of an upload session. Its span ends when it is closed.
type upload struct {
	registry.Upload
	store *store
	span  trace.Span
}

func (u *upload) start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return u.store.start(trace.ContextWithSpan(ctx, u.span), name, attributes...)
}

func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	_, span := u.start(context.Background(), "Upload.ReadFrom")
	n, err := u.Upload.ReadFrom(r)
	span.SetAttributes(bytesKey.Int64(n))
	finish(span, err)
	return n, err
}

func (u *upload) Commit(ctx context.Context, d digest.Digest) error {
	ctx, span := u.start(ctx, "Upload.Commit", digestKey.String(string(d)))
	err := u.Upload.Commit(ctx, d)
	finish(span, err)
	return err
}

func (u *upload) Rollback() error {
	_, span := u.start(context.Background(), "Upload.Rollback")
	err := u.Upload.Rollback()
	finish(span, err)
	return err
}

func (u *upload) Close() error {
	err := u.Upload.Close()
	finish(u.span, err) // ending a span again has no effect
	return err
}
