// SPDX-License-Identifier: Apache-2.0

package notify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/notify"
)

func Example() {
	secret := []byte("shared with the receiver")
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := notify.Verify(secret, r.Header.Get(notify.SignatureHeader), body, 5*time.Minute); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		var envelope notify.Envelope
		if err := json.Unmarshal(body, &envelope); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, e := range envelope.Events { // a program must also ignore an ID that it knows
			fmt.Println(e.Action, e.Target.Repository, e.Target.Size)
		}
	}))
	defer receiver.Close()

	sender, err := notify.New(notify.Options{URL: receiver.URL, Secret: secret, Actions: []string{notify.Push}})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := registry.Observe(sender.Observe)(registry.New())
	path := "/v2/app/blobs/uploads/?digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", path, strings.NewReader("hello")))

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println(sender.Close(ctx))
	// Output:
	// push app 5
	// <nil>
}
