// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package guard

import (
	"fmt"
	"net/http"

	"github.com/berth-oci/registry"
)

// CrossOrigin is middleware that rejects requests by which a web page of another
// origin would change something, with 403 DENIED: see
// [http.CrossOriginProtection]. Other clients than browsers are not affected. It
// requires Go 1.25.
func CrossOrigin() func(http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if protection.Check(r) != nil {
				registry.WriteError(w, r, fmt.Errorf("%w: the request comes from a web page of another origin", registry.ErrDenied))
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}
