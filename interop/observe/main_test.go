// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/notify"
)

// These environment variables make the test binary a registry that sends notifications
// to an endpoint, with a journal.
const (
	endpointVariable = "BERTH_OBSERVE_ENDPOINT"
	journalVariable  = "BERTH_OBSERVE_JOURNAL"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(endpointVariable); endpoint != "" {
		if err := serve(endpoint, os.Getenv(journalVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serve serves until standard input ends, and prints the address.
func serve(endpoint, journal string) error {
	sender, err := notify.New(notify.Options{
		URL: endpoint, Journal: journal, Durable: true,
		Backoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go http.Serve(l, registry.Observe(sender.Observe)(registry.New()))
	io.Copy(io.Discard, os.Stdin)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return sender.Close(ctx)
}

// pushBlob pushes content, and returns the response's status.
func pushBlob(url, repo string, content []byte) (digest.Digest, int, error) {
	d := digest.FromBytes(content)
	resp, err := http.Post(url+"/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", bytes.NewReader(content))
	if err != nil {
		return d, 0, err
	}
	resp.Body.Close()
	return d, resp.StatusCode, nil
}

// get returns the body of a response, which must be 200.
func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusOK), qt.Commentf("%s: %s", url, body))
	return body
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, timeout time.Duration, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, timeout)
		}
	}
}
