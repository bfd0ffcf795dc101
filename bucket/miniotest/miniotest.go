// SPDX-License-Identifier: Apache-2.0

// Package miniotest runs MinIO servers, for tests of stores in a bucket.
package miniotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	user     = "berth-test"
	password = "berth-test-only"
	region   = "us-east-1"
)

// errNotInstalled says how to install the program.
var errNotInstalled = errors.New("minio is not installed: go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c")

// Server is a MinIO server of one or more nodes, on loopback addresses.
type Server struct {
	nodes   []*node
	buckets atomic.Int64
}

type node struct {
	address string
	cmd     *exec.Cmd
	log     *logBuffer
	done    chan struct{} // closed when the process has exited
}

// Start starts a server of one node, which stops at the end of the test. If MinIO
// is not installed, the test is skipped or, if the environment variable CI is set,
// fails.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartCluster(t, 1)
}

// StartCluster is Start for n nodes, each with its own drive, which store each
// object on several drives. n must be 1, or at least 4: then the cluster survives
// the loss of a node.
func StartCluster(t testing.TB, n int) *Server {
	t.Helper()
	s, err := Run(t.TempDir(), n)
	if errors.Is(err, errNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if t.Failed() {
			t.Log(s.logs())
		}
	})
	return s
}

// Run starts n nodes with their drives in dir. The caller must call Close.
func Run(dir string, n int) (*Server, error) {
	program, err := findProgram()
	if err != nil {
		return nil, err
	}
	// The credentials of the test's stores. They are the same for all servers,
	// so the variables need not belong to a test: t.Setenv fails in parallel
	// tests.
	os.Setenv("AWS_ACCESS_KEY_ID", user)
	os.Setenv("AWS_SECRET_ACCESS_KEY", password)

	addresses, err := freeAddresses(n)
	if err != nil {
		return nil, err
	}
	drives := []string{dir}
	if n > 1 {
		drives = nil
		for i, address := range addresses {
			drives = append(drives, "http://"+address+filepath.Join(dir, strconv.Itoa(i)))
		}
	}
	s := new(Server)
	for _, address := range addresses {
		args := append([]string{"server", "--quiet", "--address", address}, drives...)
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(),
			"MINIO_ROOT_USER="+user,
			"MINIO_ROOT_PASSWORD="+password,
			"MINIO_BROWSER=off",
			"MINIO_UPDATE=off",
			// Accept drives of a cluster that are on the root disk.
			"MINIO_CI_CD=1",
			// In a container, a node waits until its name resolves to an
			// address other than loopback, unless this says which node it is.
			"_MINIO_SERVER_LOCAL="+address,
		)
		nd := &node{address: address, cmd: cmd, log: new(logBuffer), done: make(chan struct{})}
		cmd.Stdout, cmd.Stderr = nd.log, nd.log
		if err := cmd.Start(); err != nil {
			s.Close()
			return nil, err
		}
		go func() {
			cmd.Wait()
			close(nd.done)
		}()
		s.nodes = append(s.nodes, nd)
	}
	for _, nd := range s.nodes {
		if err := nd.wait(); err != nil {
			s.Close()
			return nil, err
		}
	}
	if n > 1 {
		if err := s.waitForWrites(); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close kills all nodes.
func (s *Server) Close() {
	for i := range s.nodes {
		s.Kill(i)
	}
}

// logs returns the output of the nodes.
func (s *Server) logs() string {
	var all strings.Builder
	for _, nd := range s.nodes {
		fmt.Fprintf(&all, "minio at %s:\n%s\n", nd.address, nd.log)
	}
	return all.String()
}

// findProgram returns the path of the program.
func findProgram() (string, error) {
	if path, err := exec.LookPath("minio"); err == nil {
		return path, nil
	}
	// The directory of go install, which need not be in PATH.
	if gopath, err := exec.Command("go", "env", "GOPATH").Output(); err == nil {
		if path, err := exec.LookPath(filepath.Join(strings.TrimSpace(string(gopath)), "bin", "minio")); err == nil {
			return path, nil
		}
	}
	return "", errNotInstalled
}

// freeAddresses returns n unused loopback addresses. Between now and the start of
// the server, another process could take one of their ports, as connections do all
// the time. On Linux, where all of 127.0.0.0/8 is loopback, the addresses have a host
// of their own, so that this does not happen; otherwise two tests could share a server.
func freeAddresses(n int) (addresses []string, err error) {
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	for range n {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// waitForWrites waits until each node can write. In a cluster, a node may report that it is
// healthy before it is connected to the drives of the others.
func (s *Server) waitForWrites() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const bucket = "ready"
	for i := range s.nodes {
		client := s.client(i)
		for {
			_, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
			if exists := (*types.BucketAlreadyOwnedByYou)(nil); errors.As(err, &exists) {
				err = nil
			}
			for k := 0; err == nil && k < 16; k++ { // each begins with another drive
				_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(bucket), Key: aws.String(fmt.Sprint(k)), Body: strings.NewReader("x")})
			}
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %d of minio can't write: %w\n%s", i, err, s.logs())
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	return nil
}

// client returns a client of a node.
func (s *Server) client(i int) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + s.Address(i)),
		Region:       region,
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(user, password, ""),
	})
}

// wait waits until a node reports that it is healthy.
func (nd *node) wait() error {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for range 600 {
		resp, err := client.Get("http://" + nd.address + "/minio/health/cluster")
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK && nd.runs() {
				return nil
			}
		}
		select {
		case <-nd.done:
			return fmt.Errorf("minio has exited:\n%s", nd.log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("minio did not become ready:\n%s", nd.log)
}

// runs reports whether the node's process has not exited: another server could have
// responded in its place.
func (nd *node) runs() bool {
	select {
	case <-nd.done:
		return false
	default:
		return true
	}
}

// Kill kills a node, and waits for it to exit.
func (s *Server) Kill(i int) {
	s.nodes[i].cmd.Process.Kill()
	<-s.nodes[i].done
}

// Address returns the address of a node.
func (s *Server) Address(i int) string { return s.nodes[i].address }

// URL creates an empty bucket, and returns its URL at the first node.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	if _, err := s.client(0).CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return s.URLAt(name, s.Address(0))
}

// URLAt returns the URL of a bucket at an address: that of a node or of a proxy.
func (s *Server) URLAt(bucket, address string) string {
	return "s3://" + bucket + "?" + url.Values{
		"endpoint":       {"http://" + address},
		"use_path_style": {"true"},
		"region":         {region},
	}.Encode()
}

// NewProxy returns a proxy of the node at an address. It keeps the header Host, because clients
// have signed it, and logs nothing.
func NewProxy(address string) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: address})
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// logBuffer is a buffer for the output of a program.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
