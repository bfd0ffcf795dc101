// SPDX-License-Identifier: Apache-2.0

// What the profiles are made of: faults that are no faults, but habits.

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

// asked changes a request on its way in.
func asked(edit func(r *http.Request)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			edit(r)
			h.ServeHTTP(w, r)
		})
	}
}

// unheard has the registry not know some parameters of a request.
func unheard(parameters ...string) func(http.Handler) http.Handler {
	return asked(func(r *http.Request) {
		query := r.URL.Query()
		for _, name := range parameters {
			query.Del(name)
		}
		r.URL.RawQuery = query.Encode()
	})
}

// defaultPage is the n of a request that has none.
func defaultPage(n int) func(http.Handler) http.Handler {
	return asked(func(r *http.Request) {
		if query := r.URL.Query(); !query.Has("n") {
			query.Set("n", strconv.Itoa(n))
			r.URL.RawQuery = query.Encode()
		}
	})
}

// largestPage takes a larger n for the given one.
func largestPage(largest int) func(http.Handler) http.Handler {
	return asked(func(r *http.Request) {
		query := r.URL.Query()
		if n, err := strconv.Atoi(query.Get("n")); err == nil && n > largest {
			query.Set("n", strconv.Itoa(largest))
			r.URL.RawQuery = query.Encode()
		}
	})
}

// pageTooLarge matches an n above the largest.
func pageTooLarge(largest int) func(*http.Request, registry.Request) bool {
	return func(_ *http.Request, req registry.Request) bool { return req.N > largest }
}

// answered changes an answer on its way out. It is held until it is complete,
// so this is not for content.
func answered(edit func(r *http.Request, a *httptest.ResponseRecorder)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a := httptest.NewRecorder()
			h.ServeHTTP(a, r)
			edit(r, a)
			a.Header().Del("Content-Length")
			for name, values := range a.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(a.Code)
			if r.Method != http.MethodHead {
				w.Write(a.Body.Bytes())
			}
		})
	}
}

// insteadOf answers with another status and code where the registry would
// answer with the given code.
func insteadOf(code string, status int, other string) func(http.Handler) http.Handler {
	return answered(func(_ *http.Request, a *httptest.ResponseRecorder) {
		before, after := []byte(`"code":"`+code+`"`), []byte(`"code":"`+other+`"`)
		if a.Code >= 400 && bytes.Contains(a.Body.Bytes(), before) {
			a.Code = status
			a.Body = bytes.NewBuffer(bytes.ReplaceAll(a.Body.Bytes(), before, after))
		}
	})
}

// header sets a field of each answer, or with "" takes it away.
func header(name, value string) func(http.Handler) http.Handler {
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

// errorType sets the Content-Type of errors.
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

// origin is the scheme and host that a request was sent to.
func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// absolute makes the Location of an answer a whole URL.
func absolute(r *http.Request, a *httptest.ResponseRecorder) {
	if location := a.Header().Get("Location"); strings.HasPrefix(location, "/") {
		a.Header().Set("Location", origin(r)+location)
	}
}

// freshRange has a new upload, of which there is no byte, be told by a Range.
func freshRange(value string) func(http.Handler) http.Handler {
	return answered(func(_ *http.Request, a *httptest.ResponseRecorder) {
		if a.Code == http.StatusAccepted {
			a.Header().Set("Range", value)
		}
	})
}

// uploadState has the Location of an upload tell how far it is, in a query
// parameter. Where refuse is given, that holds for the next request alone: a
// client that builds the URL itself, or goes on with an old one, is refused.
func uploadState(refuse func(h http.Handler, w http.ResponseWriter, r *http.Request)) func(http.Handler) http.Handler {
	const parameter = "_state"
	return func(h http.Handler) http.Handler {
		tell := answered(func(r *http.Request, a *httptest.ResponseRecorder) {
			if location := a.Header().Get("Location"); a.Code < 300 && strings.Contains(location, "/blobs/uploads/") {
				a.Header().Set("Location", location+"?"+parameter+"="+url.QueryEscape(uploadPosition(h, r, location)))
			}
		})(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			if refuse != nil && (req.Op == registry.OpUploadPatch || req.Op == registry.OpUploadPut) {
				if at := uploadPosition(h, r, r.URL.Path); at != "" && r.URL.Query().Get(parameter) != at {
					refuse(h, w, r)
					return
				}
			}
			tell.ServeHTTP(w, r)
		})
	}
}

// uploadPosition asks h how far an upload is, "" for an upload that it does not
// know.
func uploadPosition(h http.Handler, r *http.Request, location string) string {
	status := inside(h, r, http.MethodGet, location)
	if status.Code != http.StatusNoContent {
		return ""
	}
	return "at " + status.Header().Get("Range")
}

// inside sends h a request without a body on behalf of r.
func inside(h http.Handler, r *http.Request, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	other := httptest.NewRequest(method, target, nil)
	h.ServeHTTP(w, other.WithContext(r.Context()))
	return w
}

// cancelOnFailure ends the upload whose last request is refused.
func cancelOnFailure(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered(func(r *http.Request, a *httptest.ResponseRecorder) {
			if a.Code >= 400 {
				inside(h, r, http.MethodDelete, r.URL.Path)
			}
		})(h).ServeHTTP(w, r)
	})
}

// insistOnAccept answers 404 MANIFEST_UNKNOWN where a manifest is of one of the
// given types, and the request's Accept does not have that very type.
func insistOnAccept(mediaTypes ...string) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			has := inside(h, r, http.MethodHead, r.URL.RequestURI()).Header().Get("Content-Type")
			if slices.Contains(mediaTypes, has) && !accepts(r, has) {
				registry.WriteError(w, r, registry.ErrManifestUnknown)
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

func accepts(r *http.Request, mediaType string) bool {
	for _, field := range r.Header.Values("Accept") {
		for element := range strings.SplitSeq(field, ",") {
			if t, _, err := mime.ParseMediaType(element); err == nil && t == mediaType {
				return true
			}
		}
	}
	return false
}

// typesBut matches a push of a manifest whose Content-Type is not one of the
// given.
func typesBut(mediaTypes ...string) func(*http.Request, registry.Request) bool {
	return func(r *http.Request, _ registry.Request) bool {
		t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		return !slices.Contains(mediaTypes, t)
	}
}

// whileTagged is a fault of deleting a manifest by its digest while a tag points
// at it.
func whileTagged(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			var list struct {
				Tags []string `json:"tags"`
			}
			answer := inside(h, r, http.MethodGet, registry.Request{Op: registry.OpTags, Repo: req.Repo, N: -1}.URL())
			json.Unmarshal(answer.Body.Bytes(), &list) // nothing in what is no list
			for _, tag := range list.Tags {
				has := inside(h, r, http.MethodHead, registry.Request{Op: registry.OpManifestHead, Repo: req.Repo, Tag: tag}.URL())
				if req.Digest != "" && has.Header().Get("Docker-Content-Digest") == string(req.Digest) {
					fault(h).ServeHTTP(w, r)
					return
				}
			}
			h.ServeHTTP(w, r)
		})
	}
}

// unlessManifest is a fault of asking for the referrers of what is not there.
func unlessManifest(fault func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			subject := registry.Request{Op: registry.OpManifestHead, Repo: req.Repo, Digest: req.Digest}
			next := h
			if inside(h, r, http.MethodHead, subject.URL()).Code != http.StatusOK {
				next = fault(h)
			}
			next.ServeHTTP(w, r)
		})
	}
}

// tagged matches a request for a manifest by its tag.
func tagged(_ *http.Request, req registry.Request) bool { return req.Tag != "" }
