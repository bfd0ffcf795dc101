// SPDX-License-Identifier: Apache-2.0

package memlimit

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/berth-oci/registry/interop/internal/berth"
)

var (
	full = flag.Bool("full", false, "run the full floods")
	soak = flag.Duration("soak", 3*time.Second, "how long TestSoak runs")
)

// scale returns n for a full flood, and a fiftieth of it otherwise.
func scale(n int) int {
	if *full {
		return n
	}
	return n / 50
}

// newClient returns a client with its own connections.
func newClient(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// send sends a request, makes the checks that apply to every response, and returns
// the status and header of the response.
func send(t *testing.T, b *berth.Server, c *http.Client, method, path, contentType string, body []byte) (int, http.Header) {
	req, err := http.NewRequest(method, "http://"+b.Addr+path, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Do(req)
	if err != nil {
		t.Error(err)
		return 0, nil
	}
	defer resp.Body.Close()
	response, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	if resp.StatusCode >= 500 {
		t.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if resp.StatusCode >= 400 && !bytes.HasPrefix(response, []byte(`{"errors":[`)) {
		t.Errorf("%s %s: %s %s", method, path, resp.Status, response)
	}
	if resp.StatusCode == http.StatusRequestEntityTooLarge && !bytes.Contains(response, []byte("limit")) {
		t.Errorf("%s %s: the error does not name the limit: %s", method, path, response)
	}
	return resp.StatusCode, resp.Header
}
