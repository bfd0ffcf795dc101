// SPDX-License-Identifier: Apache-2.0

// The memory of the process.

package main

import (
	"net/http"
	"runtime/debug"
	"time"
)

// freeAfterDeletes returns memory to the operating system after deletes, once
// there has been a pause without any. Go's collector does so when it next runs,
// but in an idle server that may take many minutes.
func freeAfterDeletes(h http.Handler, pause time.Duration) http.Handler {
	timer := time.AfterFunc(pause, debug.FreeOSMemory)
	timer.Stop()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if r.Method == http.MethodDelete {
			timer.Reset(pause)
		}
	})
}
