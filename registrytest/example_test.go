// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package registrytest_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// getWithRetry sends a GET request until it is not rate limited. It waits as long
// as Retry-After says.
func getWithRetry(client *http.Client, url string) (*http.Response, error) {
	for {
		resp, err := client.Get(url)
		if err != nil || resp.StatusCode != http.StatusTooManyRequests {
			return resp, err
		}
		resp.Body.Close()
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(seconds) * time.Second)
	}
}

// TestRetryAfter tests a client that waits for a minute. In synctest's fake time,
// the test takes microseconds.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := registry.New()
		limited := false
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !limited {
				limited = true
				w.Header().Set("Retry-After", "60")
				registry.WriteError(w, r, registry.ErrTooManyRequests)
				return
			}
			inner.ServeHTTP(w, r)
		})
		start := time.Now()
		resp, err := getWithRetry(&http.Client{Transport: registrytest.Transport(h)}, "http://registry.example/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || time.Since(start) != time.Minute {
			t.Errorf("%s after %v", resp.Status, time.Since(start))
		}
	})
}

// A client can reach the handler without a socket, under any host name.
func ExampleTransport() {
	client := &http.Client{Transport: registrytest.Transport(registry.New())}
	resp, err := client.Get("https://registry.example/v2/")
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// 200 OK
}
