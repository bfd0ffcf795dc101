// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// serveArgs starts berth serve on a free port with further flags.
func serveArgs(t *testing.T, args ...string) *child {
	t.Helper()
	addrFile := filepath.Join(t.TempDir(), "addr")
	return startServe(t, exec.Command("berth", append([]string{"serve", "--addr=127.0.0.1:0", "--addr-file=" + addrFile}, args...)...), addrFile)
}

// TestH2C checks that HTTP/2 without TLS works with --h2c, and only then.
func TestH2C(t *testing.T) {
	for _, args := range [][]string{nil, {"--h2c"}} {
		c := serveArgs(t, args...)
		for _, version := range []int{1, 2} {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(version == 1)
			protocols.SetUnencryptedHTTP2(version == 2)
			transport := &http.Transport{Protocols: protocols}
			resp, err := (&http.Client{Transport: transport}).Get("http://" + c.addrs[0] + "/v2/")
			if wantErr := version == 2 && args == nil; (err != nil) != wantErr {
				t.Errorf("%v, HTTP/%d: %v", args, version, err)
			}
			if err == nil {
				resp.Body.Close()
				if resp.ProtoMajor != version {
					t.Errorf("%v: %s, want version %d", args, resp.Proto, version)
				}
			}
			transport.CloseIdleConnections()
		}
	}
}

// TestStalledConnectionOfHTTP2 checks that --progress breaks a connection of HTTP/2 on which
// the client reads nothing at all, though its windows allow the server to send much.
func TestStalledConnectionOfHTTP2(t *testing.T) {
	c := serveArgs(t, "--h2c", "--progress=300ms")
	url := "http://" + c.addrs[0] + "/v2/a/blobs/uploads/?digest="
	content := strings.Repeat("0123456789abcdef", 4<<20) // more than the buffers of sockets
	d := digest.FromString(content).String()
	resp, err := http.Post(url+d, "application/octet-stream", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Fatal(resp.Status)
	}

	conn, err := net.Dial("tcp", c.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	var header strings.Builder
	encoder := hpack.NewEncoder(&header)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", c.addrs[0]}, {":path", "/v2/a/blobs/" + d}} {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	const window = 1<<31 - 1
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	framer.WriteWindowUpdate(0, window-1<<16)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(header.String()), EndHeaders: true, EndStream: true})

	// Once the server has closed the connection, it responds to a write with a reset.
	for range 1000 {
		if err := framer.WritePing(false, [8]byte{}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the connection is still open")
}
