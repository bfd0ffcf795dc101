// SPDX-License-Identifier: Apache-2.0

package replicas

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-oci/registry/bucket/miniotest"
)

// startRelay starts a proxy of a node, and returns its address. It finishes the requests
// of a replica that is killed: a cluster of MinIO may lose an object whose replacement is
// cancelled, as TestS3Cancels of bucket shows, and no replica can help that.
func startRelay(t *testing.T, node string) string {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	proxy := miniotest.NewProxy(node)
	proxy.Transport = transport
	relay := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	relay.Config.ErrorLog = proxy.ErrorLog
	relay.Start()
	t.Cleanup(func() {
		relay.Close()
		transport.CloseIdleConnections()
	})
	return strings.TrimPrefix(relay.URL, "http://")
}
