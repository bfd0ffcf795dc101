// SPDX-License-Identifier: Apache-2.0

// Redirect, which lets clients download blobs from the bucket itself.

package bucket

import (
	"net/http"
	"time"

	"github.com/berth-oci/registry"
)

// signedURLExpiry is how long a client may use the URL of a redirect.
const signedURLExpiry = 15 * time.Minute

// Redirect returns a handler that responds to a GET of a blob with 307 and a
// signed URL of the bucket, and passes all other requests to h. If the bucket
// can't sign URLs, as in memory, h gets all requests.
//
// The handler redirects without checking permissions: put the check in front of
// it.
func (s *Store) Redirect(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		location, d := s.signedURL(r)
		if location == "" {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", location)
		w.Header().Set("Docker-Content-Digest", d)
		w.Header().Set("Cache-Control", "no-store") // the URL expires
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
}

// signedURL returns the URL to redirect r to, and the blob's digest, or "" if r
// should not be redirected: the registry itself handles errors and conditions.
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
	l, err := s.readLink(r.Context(), req.Repo, req.Digest)
	if err != nil || !l.exists() {
		return "", ""
	}
	// The URL names the time by this process's clock, and the bucket has its own.
	location, err = s.bucket.SignedURL(r.Context(), s.opts.Prefix+dataKey(req.Digest, l.Data), signedURLExpiry+s.skew())
	if err != nil {
		return "", ""
	}
	return location, string(req.Digest)
}
