// SPDX-License-Identifier: Apache-2.0

// The quirks that profiles consist of: middleware for Rule.Fault, and conditions
// for Rule.Match.

package registrytest

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-oci/registry"
)

// rewriteRequest changes a request before it reaches the handler.
func rewriteRequest(edit func(r *http.Request)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			edit(r)
			h.ServeHTTP(w, r)
		})
	}
}

// ignoreParams removes query parameters from a request.
func ignoreParams(names ...string) func(http.Handler) http.Handler {
	return rewriteRequest(func(r *http.Request) {
		query := r.URL.Query()
		for _, name := range names {
			query.Del(name)
		}
		r.URL.RawQuery = query.Encode()
	})
}

// defaultPageSize sets n in a request without it.
func defaultPageSize(n int) func(http.Handler) http.Handler {
	return rewriteRequest(func(r *http.Request) {
		if query := r.URL.Query(); !query.Has("n") {
			query.Set("n", strconv.Itoa(n))
			r.URL.RawQuery = query.Encode()
		}
	})
}

// maxPageSize reduces a larger n to the maximum.
func maxPageSize(maximum int) func(http.Handler) http.Handler {
	return rewriteRequest(func(r *http.Request) {
		query := r.URL.Query()
		if n, err := strconv.Atoi(query.Get("n")); err == nil && n > maximum {
			query.Set("n", strconv.Itoa(maximum))
			r.URL.RawQuery = query.Encode()
		}
	})
}

// pageLargerThan matches a request with a larger n.
func pageLargerThan(maximum int) func(*http.Request, registry.Request) bool {
	return func(_ *http.Request, req registry.Request) bool { return req.N > maximum }
}

// rewriteResponse changes a response. It buffers the entire response, so it is
// not for blobs.
func rewriteResponse(edit func(r *http.Request, resp *httptest.ResponseRecorder)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp := httptest.NewRecorder()
			h.ServeHTTP(resp, r)
			edit(r, resp)
			resp.Header().Del("Content-Length")
			for name, values := range resp.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(resp.Code)
			if r.Method != http.MethodHead {
				w.Write(resp.Body.Bytes())
			}
		})
	}
}

// replaceError replaces errors with the given code: it changes their status and
// code.
func replaceError(code string, newStatus int, newCode string) func(http.Handler) http.Handler {
	return rewriteResponse(func(_ *http.Request, resp *httptest.ResponseRecorder) {
		before, after := []byte(`"code":"`+code+`"`), []byte(`"code":"`+newCode+`"`)
		if resp.Code >= 400 && bytes.Contains(resp.Body.Bytes(), before) {
			resp.Code = newStatus
			resp.Body = bytes.NewBuffer(bytes.ReplaceAll(resp.Body.Bytes(), before, after))
		}
	})
}

// setHeader sets a header of the response, or deletes it if value is empty.
func setHeader(name, value string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&editor{ResponseWriter: w, header: func(int) bool {
				if w.Header().Del(name); value != "" {
					w.Header().Set(name, value)
				}
				return true
			}}, r)
		})
	}
}

// errorType sets the Content-Type of error responses.
func errorType(mediaType string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&editor{ResponseWriter: w, header: func(status int) bool {
				if status >= 400 {
					w.Header().Set("Content-Type", mediaType)
				}
				return true
			}}, r)
		})
	}
}

// origin returns the scheme and host that a request was sent to.
func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// absoluteLocation makes the Location of a response an absolute URL.
func absoluteLocation(r *http.Request, resp *httptest.ResponseRecorder) {
	if location := resp.Header().Get("Location"); strings.HasPrefix(location, "/") {
		resp.Header().Set("Location", origin(r)+location)
	}
}

// initialRange sets the Range of a response that opens an upload.
func initialRange(value string) func(http.Handler) http.Handler {
	return rewriteResponse(func(_ *http.Request, resp *httptest.ResponseRecorder) {
		if resp.Code == http.StatusAccepted {
			resp.Header().Set("Range", value)
		}
	})
}

// uploadState adds a query parameter to the Location of an upload, which changes
// with each chunk. Unless reject is nil, it is called for a request without the
// current parameter: from a client that builds the URL itself, or uses an old
// Location.
func uploadState(reject func(h http.Handler, w http.ResponseWriter, r *http.Request)) func(http.Handler) http.Handler {
	const param = "_state"
	return func(h http.Handler) http.Handler {
		addState := rewriteResponse(func(r *http.Request, resp *httptest.ResponseRecorder) {
			if location := resp.Header().Get("Location"); resp.Code < 300 && strings.Contains(location, "/blobs/uploads/") {
				resp.Header().Set("Location", location+"?"+param+"="+url.QueryEscape(uploadPosition(h, r, location)))
			}
		})(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			if reject != nil && (req.Op == registry.OpUploadPatch || req.Op == registry.OpUploadPut) {
				if position := uploadPosition(h, r, r.URL.Path); position != "" && r.URL.Query().Get(param) != position {
					reject(h, w, r)
					return
				}
			}
			addState.ServeHTTP(w, r)
		})
	}
}

// uploadPosition returns a string that depends on the size of an upload, "" if h
// does not know the upload.
func uploadPosition(h http.Handler, r *http.Request, location string) string {
	resp := subrequest(h, r, http.MethodGet, location)
	if resp.Code != http.StatusNoContent {
		return ""
	}
	return "at " + resp.Header().Get("Range")
}

// subrequest sends h a request without a body on behalf of r.
func subrequest(h http.Handler, r *http.Request, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	sub := httptest.NewRequest(method, target, nil)
	h.ServeHTTP(w, sub.WithContext(r.Context()))
	return w
}

// cancelOnFailure cancels an upload if its closing request fails.
func cancelOnFailure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rewriteResponse(func(r *http.Request, resp *httptest.ResponseRecorder) {
			if resp.Code >= 400 {
				subrequest(h, r, http.MethodDelete, r.URL.Path)
			}
		})(h).ServeHTTP(w, r)
	})
}

// requireAccept responds with 404 MANIFEST_UNKNOWN to a pull of a manifest of one
// of the given types unless the request's Accept lists that type itself.
func requireAccept(mediaTypes ...string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mediaType := subrequest(h, r, http.MethodHead, r.URL.RequestURI()).Header().Get("Content-Type")
			if slices.Contains(mediaTypes, mediaType) && !accepts(r, mediaType) {
				registry.WriteError(w, r, registry.ErrManifestUnknown)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// accepts reports whether the Accept header lists a media type. Wildcards do not
// count.
func accepts(r *http.Request, mediaType string) bool {
	for _, value := range r.Header.Values("Accept") {
		for element := range strings.SplitSeq(value, ",") {
			if t, _, err := mime.ParseMediaType(element); err == nil && t == mediaType {
				return true
			}
		}
	}
	return false
}

// typeNotIn matches a push of a manifest unless its Content-Type is one of the
// given types.
func typeNotIn(mediaTypes ...string) func(*http.Request, registry.Request) bool {
	return func(r *http.Request, _ registry.Request) bool {
		t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		return !slices.Contains(mediaTypes, t)
	}
}

// ifTagged applies a fault to the delete of a manifest by digest while a tag
// points at it.
func ifTagged(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			var list struct {
				Tags []string `json:"tags"`
			}
			resp := subrequest(h, r, http.MethodGet, registry.Request{Op: registry.OpTags, Repo: req.Repo, N: -1}.RequestURI())
			json.Unmarshal(resp.Body.Bytes(), &list) // an error response has no tags
			for _, tag := range list.Tags {
				head := subrequest(h, r, http.MethodHead, registry.Request{Op: registry.OpManifestHead, Repo: req.Repo, Tag: tag}.RequestURI())
				if req.Digest != "" && head.Header().Get("Docker-Content-Digest") == string(req.Digest) {
					fault(h).ServeHTTP(w, r)
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	}
}

// ifSubjectMissing applies a fault to a request for the referrers of a manifest
// that the repository does not have.
func ifSubjectMissing(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			subject := registry.Request{Op: registry.OpManifestHead, Repo: req.Repo, Digest: req.Digest}
			next := h
			if subrequest(h, r, http.MethodHead, subject.RequestURI()).Code != http.StatusOK {
				next = fault(h)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// byTag matches a request for a manifest by tag.
func byTag(_ *http.Request, req registry.Request) bool { return req.Tag != "" }

// reject responds with an error of a real registry.
func reject(status int, code, message string) func(http.Handler) http.Handler {
	return Reject(&registry.Error{Status: status, Code: code, Message: message})
}

// hasUploadLocation matches the requests whose responses have the Location of an
// upload.
func hasUploadLocation(_ *http.Request, req registry.Request) bool {
	switch req.Op {
	case registry.OpUploadStart, registry.OpBlobPush, registry.OpBlobMount,
		registry.OpUploadPatch, registry.OpUploadPut, registry.OpUploadStatus:
		return true
	}
	return false
}

// opensUpload matches a POST that opens an upload, or may open one.
func opensUpload(r *http.Request, req registry.Request) bool {
	return r.Method == http.MethodPost && hasUploadLocation(r, req)
}

// anonymousMount matches a mount that leaves the choice of the source to the
// registry.
func anonymousMount(_ *http.Request, req registry.Request) bool {
	return req.Op == registry.OpBlobMount && req.From == ""
}

// pullsManifest matches a GET or HEAD of a manifest.
func pullsManifest(_ *http.Request, req registry.Request) bool {
	return req.Op == registry.OpManifestGet || req.Op == registry.OpManifestHead
}
