// SPDX-License-Identifier: Apache-2.0

// The memory of the process.

package main

import (
	"net/http"
	"time"

	"github.com/berth-oci/registry/internal/recorder"
)

// freeAfterDeletes calls free, which returns memory to the operating system, after
// deletes that succeeded, once there has been a pause without any. Go's collector
// does so when it next runs, but in an idle server that may take many minutes.
func freeAfterDeletes(h http.Handler, pause time.Duration, free func()) http.Handler {
	timer := time.AfterFunc(pause, free)
	timer.Stop()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodDelete {
			h.ServeHTTP(w, r)
			return
		}
		resp := &recorder.Recorder{ResponseWriter: w}
		h.ServeHTTP(resp, r)
		if resp.Status < 300 {
			timer.Reset(pause)
		}
	})
}
