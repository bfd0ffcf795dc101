// SPDX-License-Identifier: Apache-2.0

package bounds

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
	full = flag.Bool("full", false, "run the floods in full")
	soak = flag.Duration("soak", 3*time.Second, "how long TestSoak runs")
)

// scale is a number of a flood, a fiftieth of it where there is no time.
func scale(n int) int {
	if *full {
		return n
	}
	return n / 50
}

// client has its own connections, as many as are asked for.
func client(t *testing.T) *http.Client {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// send sends a request, and returns the status and the header of the answer.
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
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	if resp.StatusCode >= 500 {
		t.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if resp.StatusCode >= 400 && !bytes.HasPrefix(answer, []byte(`{"errors":[`)) {
		t.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	if resp.StatusCode == http.StatusRequestEntityTooLarge && !bytes.Contains(answer, []byte("limit")) {
		t.Errorf("%s %s does not say which limit: %s", method, path, answer)
	}
	return resp.StatusCode, resp.Header
}
