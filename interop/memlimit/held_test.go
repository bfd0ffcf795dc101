// SPDX-License-Identifier: Apache-2.0

// Floods that have the server keep more than they seem to send: strings of long
// requests, and content that was deleted while a slow client uses it.

package memlimit

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// longQueries opens sessions by requests whose query is as long as berth serve
// accepts; a few bytes of it belong to the session. A longer one is rejected.
func longQueries(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	query := "/v2/a/blobs/uploads/?digest-algorithm=sha256&x=" + strings.Repeat("x", 60_000)
	n := parallel(max(scale(14_000), 7_000), func(int) bool {
		status, _ := send(t, b, c, "POST", query, "", nil)
		return status == 202
	})
	qt.Check(t, qt.Equals(n, max(scale(14_000), 7_000)))
	conn := hold(t, b, []byte("POST "+query+strings.Repeat("x", 20_000)+" HTTP/1.1\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(resp.StatusCode, 431))
	return fmt.Sprintf("%d sessions with a query of 60 KB", n)
}

// heldBytes is the size of the content that one client holds. It must be larger
// than the buffers of a connection.
const heldBytes = 16 << 20

func heldContent(i int) []byte {
	data := make([]byte, heldBytes)
	rand.NewChaCha8([32]byte{byte(i), 2}).Read(data)
	return data
}

// hold sends a request on a connection of its own, which stays open until the test
// ends.
func hold(t *testing.T, b *berth.Server, request []byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", b.Addr)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { conn.Close() })
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	_, err = conn.Write(request)
	qt.Assert(t, qt.IsNil(err))
	return conn
}

// deletedWhileRead pushes blobs, begins to read each, and deletes it.
func deletedWhileRead(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	const n = 48
	accepted := 0
	for i := range n {
		data := heldContent(i)
		blob := "/v2/a/blobs/" + digest.FromBytes(data).String()
		status, _ := send(t, b, c, "POST", "/v2/a/blobs/uploads/?digest="+digest.FromBytes(data).String(), "application/octet-stream", data)
		if status == http.StatusRequestEntityTooLarge {
			continue
		}
		qt.Assert(t, qt.Equals(status, 201))
		accepted++
		conn := hold(t, b, []byte("GET "+blob+" HTTP/1.1\r\nHost: x\r\n\r\n"))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(resp.StatusCode, 200))
		status, _ = send(t, b, c, "DELETE", blob, "", nil)
		qt.Assert(t, qt.Equals(status, 202))
	}
	return fmt.Sprintf("%d of %d blobs of %d MiB accepted, and deleted while they were read; %s", accepted, n, heldBytes>>20, checkDisk(t, b, 256<<20))
}

// cancelledWhileStalled cancels uploads whose clients stall before the end. That
// makes room for the next at once, in memory or on the disk.
func cancelledWhileStalled(t *testing.T, b *berth.Server) string {
	c := newClient(t)
	const n = 32
	accepted := 0
	for i := range n {
		data := heldContent(i)
		status, header := send(t, b, c, "POST", "/v2/a/blobs/uploads/", "", nil)
		if status == http.StatusRequestEntityTooLarge {
			continue
		}
		qt.Assert(t, qt.Equals(status, 202))
		accepted++
		request := fmt.Appendf(nil, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", header.Get("Location"), len(data)+1)
		hold(t, b, append(request, data...)) // one byte is missing
		for range 100 {                      // the server reads what the connection buffers
			_, h := send(t, b, c, "GET", header.Get("Location"), "", nil)
			last := 0
			if fmt.Sscanf(h.Get("Range"), "0-%d", &last); last > heldBytes*9/10 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		status, _ = send(t, b, c, "DELETE", header.Get("Location"), "", nil)
		qt.Assert(t, qt.Equals(status, 204))
	}
	qt.Check(t, qt.Equals(accepted, n))
	return fmt.Sprintf("%d of %d uploads of %d MiB accepted, and cancelled while they stalled; %s", accepted, n, heldBytes>>20, checkDisk(t, b, heldBytes))
}

// checkDisk checks how much of the disk the server's temporary files use, the
// removed ones that are still open included: at most what --memory=128MiB and
// --disk=128MiB allow, or less.
func checkDisk(t *testing.T, b *berth.Server, limit int64) string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", b.Cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	var files int
	var size int64
	for _, fd := range fds {
		name, err := os.Readlink(dir + "/" + fd.Name())
		if err != nil || !strings.Contains(name, "/berth-") {
			continue
		}
		if info, err := os.Stat(dir + "/" + fd.Name()); err == nil {
			files++
			size += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	qt.Check(t, qt.IsTrue(size <= limit), qt.Commentf("%d MiB on disk", size>>20))
	return fmt.Sprintf("%d open files with %d MiB on disk", files, size>>20)
}
