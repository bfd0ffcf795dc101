// SPDX-License-Identifier: Apache-2.0

// Reports to handlers in front of this package's, such as a log.

package auth

import (
	"context"

	"github.com/berth-oci/registry"
)

// report reports to [registry.Observe] the user who sent a request, "" without
// credentials, and the reason why it was rejected, which may contain details that
// the client does not get. If err is nil, it was not.
func report(ctx context.Context, user string, err error) {
	registry.ReportUser(ctx, user)
	if err != nil {
		registry.ReportError(ctx, err)
	}
}
