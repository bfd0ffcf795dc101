// SPDX-License-Identifier: Apache-2.0

//go:build linux

// A client with little overhead: requests are prepared as bytes, and responses are
// parsed only as far as necessary.

package compare

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// conn is a connection to a server.
type conn struct {
	net.Conn
	s *server
	r *bufio.Reader
}

func (s *server) dial() (*conn, error) {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, s, bufio.NewReaderSize(c, 64<<10)}, nil
}

// response holds the necessary parts of a response.
type response struct {
	status   int
	location string
	next     string // the target of Link
	size     int64
	body     []byte // nil if it was discarded
}

// request returns the request line and header of a request.
func request(method, target string, size int, header ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n", method, target)
	if method != "GET" && method != "HEAD" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", size)
	}
	for _, line := range header {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// do sends a request, and reads the response. It discards the body unless keep is
// set.
func (c *conn) do(head, body []byte, isHead, keep bool) (a response, err error) {
	if len(body) < 64<<10 {
		head, body = append(head[:len(head):len(head)], body...), nil
	}
	if _, err := c.Write(head); err != nil {
		return a, err
	}
	if len(body) > 0 {
		if _, err := c.Write(body); err != nil {
			return a, err
		}
	}
	line, err := c.r.ReadSlice('\n')
	if err != nil || len(line) < 12 {
		return a, fmt.Errorf("malformed status line: %q %v", line, err)
	}
	a.status, _ = strconv.Atoi(string(line[9:12]))
	length, chunked := int64(0), false
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		if len(line) <= 2 {
			break
		}
		switch {
		case prefix(line, "content-length:"):
			length, err = strconv.ParseInt(string(bytes.TrimSpace(line[15:])), 10, 64)
		case prefix(line, "location:"):
			a.location = string(bytes.TrimSpace(line[9:]))
		case prefix(line, "transfer-encoding:"):
			chunked = true
		case prefix(line, "link:"):
			next, _, _ := bytes.Cut(bytes.TrimSpace(line[5:]), []byte(">"))
			a.next = string(bytes.TrimPrefix(next, []byte("<")))
		}
		if err != nil {
			return a, err
		}
	}
	if isHead || a.status == 204 || a.status == 304 {
		return a, nil
	}
	if !chunked {
		err := c.read(&a, length, keep)
		return a, err
	}
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
		if err == nil {
			err = c.read(&a, n, keep)
		}
		if err == nil {
			_, err = c.r.Discard(2)
		}
		if err != nil || n == 0 {
			return a, err
		}
	}
}

// prefix reports whether a header line begins with name, in any case.
func prefix(line []byte, name string) bool {
	return len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name)
}

// read reads n bytes of the body.
func (c *conn) read(a *response, n int64, keep bool) error {
	a.size += n
	if keep {
		data := make([]byte, n)
		_, err := io.ReadFull(c.r, data)
		a.body = append(a.body, data...)
		return err
	}
	for n > 0 {
		d, err := c.r.Discard(int(min(n, 1<<30)))
		if n -= int64(d); err != nil {
			return err
		}
	}
	return nil
}

// want sends a request, and fails unless the response has the given status.
func (c *conn) want(status int, method, target string, body []byte, header ...string) (response, error) {
	a, err := c.do(request(method, target, len(body), header...), body, method == "HEAD", true)
	if err == nil && a.status != status {
		err = fmt.Errorf("%s: %s %s: %d %.300s", c.s.kind, method, target, a.status, a.body)
	}
	return a, err
}

const (
	octets    = "Content-Type: application/octet-stream"
	imageType = "application/vnd.oci.image.manifest.v1+json"
	indexType = "application/vnd.oci.image.index.v1+json"
)

// path returns the path of a Location, which some servers send as an absolute URL.
func path(location string) string {
	if _, rest, ok := strings.Cut(location, "://"); ok {
		_, location, _ = strings.Cut(rest, "/")
		return "/" + location
	}
	return location
}

// withDigest returns the URL that closes the upload at location.
func withDigest(location string, d digest.Digest) string {
	if strings.Contains(location, "?") {
		return path(location) + "&digest=" + d.String()
	}
	return path(location) + "?digest=" + d.String()
}

// push pushes a blob by POST and PUT or, if patches is not 0, in PATCHes of that
// size.
func (c *conn) push(repo string, data []byte, d digest.Digest, patches int) error {
	a, err := c.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	for offset := 0; patches > 0 && offset < len(data); offset += patches {
		piece := data[offset:min(offset+patches, len(data))]
		a, err = c.want(202, "PATCH", path(a.location), piece, octets, fmt.Sprintf("Content-Range: %d-%d", offset, offset+len(piece)-1))
		if err != nil {
			return err
		}
	}
	if patches > 0 {
		data = nil
	}
	_, err = c.want(201, "PUT", withDigest(a.location, d), data, octets)
	return err
}

// seedBlob stores a blob in the server, which may be raw.
func (c *conn) seedBlob(t testing.TB, repo string, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	var err error
	if c.s.kind == "raw" {
		err = c.serve("/v2/"+repo+"/blobs/"+d.String(), "application/octet-stream", data)
	} else {
		err = c.push(repo, data, d, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// seedManifest stores a manifest in the server, which may be raw.
func (c *conn) seedManifest(t testing.TB, repo, tag, mediaType string, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	var err error
	if c.s.kind == "raw" {
		if err = c.serve("/v2/"+repo+"/manifests/"+tag, mediaType, data); err == nil {
			err = c.serve("/v2/"+repo+"/manifests/"+d.String(), mediaType, data)
		}
	} else {
		_, err = c.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, data, "Content-Type: "+mediaType)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// serve sets the response of raw to a target.
func (c *conn) serve(target, mediaType string, data []byte) error {
	mark := "?raw=1"
	if strings.Contains(target, "?") {
		mark = "&raw=1"
	}
	_, err := c.want(200, "PUT", target+mark, data, "Content-Type: "+mediaType)
	return err
}
