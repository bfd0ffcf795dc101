// SPDX-License-Identifier: Apache-2.0

// TLS, for tests.

package registry

import (
	"net/http/httptest"

	"github.com/berth-oci/registry/internal/tlsserver"
)

// TLS starts a new registry that uses HTTPS, with a certificate for the given
// domain. The server's Client trusts the certificate, and sends requests for any
// host to the server. The caller must close the server.
func TLS(domain string) (*httptest.Server, error) {
	return tlsserver.Start(New(), domain)
}
