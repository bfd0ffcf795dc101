// SPDX-License-Identifier: Apache-2.0

// Package miniotest runs MinIO servers, for tests of what keeps its content in a
// bucket.
package miniotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	user     = "berth-test"
	password = "berth-test-only"
	region   = "us-east-1"
)

// errMissing tells how to get the program.
var errMissing = errors.New("minio is not installed: go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c")

// Server is a MinIO server of one node or several, on loopback.
type Server struct {
	nodes   []*node
	buckets atomic.Int64
}

type node struct {
	address string
	cmd     *exec.Cmd
	log     *logBuffer
	done    chan struct{} // closed when it has ended
}

// Start starts a server of one node, which ends with the test. Where MinIO is
// not installed the test is skipped, or fails if the environment has CI.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartCluster(t, 1)
}

// StartCluster starts n nodes, each with a drive, that keep each object on
// several of them. n is 1, or at least 4: with one less it goes on.
func StartCluster(t testing.TB, n int) *Server {
	t.Helper()
	s, err := Run(t.TempDir(), n)
	if errors.Is(err, errMissing) && os.Getenv("CI") == "" {
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

// Run starts n nodes with their drives in dir. They are to be closed.
func Run(dir string, n int) (*Server, error) {
	program, err := find()
	if err != nil {
		return nil, err
	}
	// For the stores of the test. A test that is parallel can't set variables,
	// and needs none: they are the same for all.
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
			// Drives of a cluster may not be on the system's own disk, but for
			// tests.
			"MINIO_CI_CD=1",
			// In a container a node waits for a name of its own that is not
			// loopback's, unless it is told which one it is.
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
	return s, nil
}

// Close kills all nodes.
func (s *Server) Close() {
	for i := range s.nodes {
		s.Kill(i)
	}
}

// logs returns what the nodes have printed.
func (s *Server) logs() string {
	var all strings.Builder
	for _, nd := range s.nodes {
		fmt.Fprintf(&all, "minio at %s:\n%s\n", nd.address, nd.log)
	}
	return all.String()
}

// find returns the path of the program.
func find() (string, error) {
	if path, err := exec.LookPath("minio"); err == nil {
		return path, nil
	}
	// Where go install puts it, which need not be in PATH.
	if gopath, err := exec.Command("go", "env", "GOPATH").Output(); err == nil {
		if path, err := exec.LookPath(filepath.Join(strings.TrimSpace(string(gopath)), "bin", "minio")); err == nil {
			return path, nil
		}
	}
	return "", errMissing
}

// freeAddresses returns addresses on loopback at which nothing listens.
func freeAddresses(n int) (addresses []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// wait waits until a node serves.
func (nd *node) wait() error {
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for range 600 {
		resp, err := client.Get("http://" + nd.address + "/minio/health/cluster")
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-nd.done:
			return fmt.Errorf("minio has ended:\n%s", nd.log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("minio does not serve:\n%s", nd.log)
}

// Kill kills a node as a power cut would.
func (s *Server) Kill(i int) {
	s.nodes[i].cmd.Process.Kill()
	<-s.nodes[i].done
}

// Address returns the address of a node.
func (s *Server) Address(i int) string { return s.nodes[i].address }

// URL makes an empty bucket, and returns its URL at the first node.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + s.Address(0)),
		Region:       region,
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(user, password, ""),
	})
	if _, err := client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return s.URLAt(name, s.Address(0))
}

// URLAt returns the URL of a bucket at an address: a node's, or what stands
// before it.
func (s *Server) URLAt(bucket, address string) string {
	return "s3://" + bucket + "?" + url.Values{
		"endpoint":       {"http://" + address},
		"use_path_style": {"true"},
		"region":         {region},
	}.Encode()
}

// logBuffer keeps what a program prints.
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
