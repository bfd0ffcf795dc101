// SPDX-License-Identifier: Apache-2.0

// Redirect: blobs straight from the bucket.

package bucket

import (
	"net/http"
	"time"

	"gocloud.dev/blob"

	"github.com/berth-oci/registry"
)

// signedFor is how long a client may follow a redirection.
const signedFor = 15 * time.Minute

// Redirect returns a handler that answers a GET of a blob with 307, to where the
// client has it from the bucket itself, and leaves all else to h. It leaves that
// to h too where the bucket can't sign URLs, as memory can't.
//
// Whoever gets here is sent on: what checks permissions must be outside.
func (s *Store) Redirect(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		location, d := s.signedURL(r)
		if location == "" {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", location)
		w.Header().Set("Docker-Content-Digest", d)
		w.Header().Set("Cache-Control", "no-store") // the URL ends
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// signedURL returns the URL that r is to be sent to, with the blob's digest, or
// "" where it is not: h knows how to answer what is wrong, and conditions.
func (s *Store) signedURL(r *http.Request) (location, digest string) {
	req, err := registry.ParseRequest(r)
	if err != nil || req.Op != registry.OpBlobGet || req.Namespace != "" {
		return "", ""
	}
	for _, condition := range []string{"If-Match", "If-None-Match", "If-Range"} {
		if r.Header.Get(condition) != "" {
			return "", ""
		}
	}
	l, err := s.link(r.Context(), req.Repo, req.Digest)
	if err != nil {
		return "", ""
	}
	location, err = s.bucket.SignedURL(r.Context(), s.opts.Prefix+dataKey(req.Digest, l.Data), &blob.SignedURLOptions{
		Expiry: signedFor,
		Method: http.MethodGet,
	})
	if err != nil {
		return "", ""
	}
	return location, string(req.Digest)
}
