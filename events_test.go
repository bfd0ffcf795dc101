// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// TestEvents sends requests to one registry, one after the other, and checks the
// event of each.
func TestEvents(t *testing.T) {
	blob, config := "content", "{}"
	d, configDigest := digest.FromString(blob), digest.FromString(config)
	subject := digest.FromString("subject")
	manifest := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"x/y","digest":"` + string(configDigest) +
		`","size":2},"layers":[],"subject":{"mediaType":"x/y","digest":"` + string(subject) + `","size":1}}`
	md := digest.FromString(manifest)
	const bearer = "Bearer " // a user's name follows

	var events []registry.Event
	user := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := strings.TrimPrefix(r.Header.Get("Authorization"), bearer)
			registry.ReportUser(r.Context(), name)
			if name == "mallory" {
				registry.ReportError(r.Context(), errors.New("her token has expired"))
				registry.WriteError(w, r, registry.ErrDenied)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
	h := registry.Observe(func(e registry.Event) { events = append(events, e) })(user(registry.New()))

	upload := ""
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		want                     registry.Event // without the request and times
		err                      string
	}{
		{name: "ping", method: "GET", path: "/v2/",
			want: registry.Event{Status: 200, BytesOut: 2, Size: -1}},
		{name: "push of a blob", method: "POST", path: "/v2/a/blobs/uploads/?digest=" + string(d), body: blob, header: []string{"Authorization", bearer + "alice"},
			want: registry.Event{Status: 201, User: "alice", BytesIn: 7, Digest: d, Size: 7, Changed: true}},
		{name: "start of an upload", method: "POST", path: "/v2/a/blobs/uploads/",
			want: registry.Event{Status: 202, Size: -1}},
		{name: "chunk", method: "PATCH", path: "UPLOAD", body: config[:1],
			want: registry.Event{Status: 202, BytesIn: 1, Size: -1}},
		{name: "end of the upload", method: "PUT", path: "UPLOAD?digest=" + string(configDigest), body: config[1:],
			want: registry.Event{Status: 201, BytesIn: 1, Digest: configDigest, Size: 2, Changed: true}},
		{name: "mount", method: "POST", path: "/v2/b/blobs/uploads/?from=a&mount=" + string(d),
			want: registry.Event{Status: 201, Digest: d, Size: -1, Changed: true}},
		{name: "mount of an unknown blob", method: "POST", path: "/v2/b/blobs/uploads/?from=a&mount=" + string(md),
			want: registry.Event{Status: 202, Digest: md, Size: -1}},
		{name: "pull", method: "GET", path: "/v2/a/blobs/" + string(d),
			want: registry.Event{Status: 200, BytesOut: 7, Digest: d, Size: 7, MediaType: "application/octet-stream"}},
		{name: "pull of a range", method: "GET", path: "/v2/a/blobs/" + string(d), header: []string{"Range", "bytes=2-3"},
			want: registry.Event{Status: 206, BytesOut: 2, Digest: d, Size: 7, MediaType: "application/octet-stream"}},
		{name: "manifest", method: "PUT", path: "/v2/a/manifests/v1", body: manifest, header: []string{"Content-Type", ocispec.MediaTypeImageManifest + "; x=y"},
			want: registry.Event{Status: 201, BytesIn: int64(len(manifest)), Digest: md, Size: int64(len(manifest)), MediaType: ocispec.MediaTypeImageManifest, Subject: subject, Tags: []string{"v1"}, Changed: true}},
		{name: "tags of a digest", method: "PUT", path: "/v2/a/manifests/" + string(md) + "?tag=v2&tag=v3", body: manifest, header: []string{"Content-Type", ocispec.MediaTypeImageManifest},
			want: registry.Event{Status: 201, BytesIn: int64(len(manifest)), Digest: md, Size: int64(len(manifest)), MediaType: ocispec.MediaTypeImageManifest, Subject: subject, Tags: []string{"v2", "v3"}, Changed: true}},
		{name: "HEAD of a tag", method: "HEAD", path: "/v2/a/manifests/v1",
			want: registry.Event{Status: 200, Digest: md, Size: int64(len(manifest)), MediaType: ocispec.MediaTypeImageManifest}},
		{name: "delete of a tag", method: "DELETE", path: "/v2/a/manifests/v1",
			want: registry.Event{Status: 202, Size: -1, Tags: []string{"v1"}, Changed: true}},
		{name: "delete of a manifest", method: "DELETE", path: "/v2/a/manifests/" + string(md),
			want: registry.Event{Status: 202, Digest: md, Size: -1, Changed: true}},
		{name: "unknown blob", method: "HEAD", path: "/v2/a/blobs/" + string(md),
			want: registry.Event{Status: 404, Digest: md, Size: -1}, err: "blob unknown to registry"},
		{name: "no endpoint", method: "GET", path: "/v3/",
			want: registry.Event{Status: 404, BytesOut: 62, Size: -1}, err: "page not found"},
		{name: "rejected by middleware", method: "GET", path: "/v2/a/tags/list", header: []string{"Authorization", bearer + "mallory"},
			want: registry.Event{Status: 403, User: "mallory", BytesOut: 85, Size: -1}, err: "her token has expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := strings.Replace(test.path, "UPLOAD", upload, 1)
			r := httptest.NewRequest(test.method, path, strings.NewReader(test.body))
			for i := 0; i < len(test.header); i += 2 {
				r.Header.Set(test.header[i], test.header[i+1])
			}
			w := httptest.NewRecorder()
			events = nil
			h.ServeHTTP(w, r)
			if location := w.Header().Get("Location"); w.Code == 202 && location != "" {
				upload = location
			}
			qt.Assert(t, qt.HasLen(events, 1))
			e := events[0]
			if test.err == "" {
				qt.Check(t, qt.IsNil(e.Err))
			} else {
				qt.Check(t, qt.ErrorMatches(e.Err, test.err))
			}
			qt.Check(t, qt.Equals(e.HTTP, r))
			want, err := registry.ParseRequest(r)
			if err == nil {
				qt.Check(t, qt.DeepEquals(e.Request, want))
			}
			qt.Check(t, qt.IsFalse(e.Time.IsZero()))
			qt.Check(t, qt.DeepEquals(e.Header, w.Header()))
			e.Request, e.HTTP, e.Header, e.Err, e.Time, e.Duration = registry.Request{}, nil, nil, nil, test.want.Time, 0
			qt.Check(t, qt.DeepEquals(e, test.want))
		})
	}
}

// TestNestedEvents observes a registry that logs its requests.
func TestNestedEvents(t *testing.T) {
	var events []registry.Event
	observe := registry.Observe(func(e registry.Event) { events = append(events, e) })
	h := observe(observe(registry.New(registry.WithSlog(slog.New(slog.DiscardHandler)))))
	for _, path := range []string{"/v2/a/blobs/uploads/?digest=" + digest.FromString("").String(), "/v2/a/blobs/" + digest.FromString("x").String(), "/v2/"} {
		events = nil
		method := "GET"
		if strings.Contains(path, "?") {
			method = "POST"
		}
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
		qt.Assert(t, qt.HasLen(events, 2))
		qt.Check(t, qt.Equals(events[0].Status, events[1].Status))
		qt.Check(t, qt.Equals(events[0].Size, events[1].Size))
		qt.Check(t, qt.Equals(events[0].Err, events[1].Err))
		qt.Check(t, qt.Equals(events[0].Err != nil, events[0].Status == 404))
	}
}

func TestEventOfAnAbortedResponse(t *testing.T) {
	var event registry.Event
	h := registry.Observe(func(e registry.Event) { event = e })(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	qt.Check(t, qt.PanicMatches(func() { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil)) }, ".*abort Handler"))
	qt.Check(t, qt.Equals(event.Status, 0))
	qt.Check(t, qt.ErrorIs(event.Err, http.ErrAbortHandler))
}
