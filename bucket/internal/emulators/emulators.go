// SPDX-License-Identifier: Apache-2.0

// Package emulators runs emulators of Google Cloud Storage and of Azure Blob Storage,
// for tests of stores in a bucket.
package emulators

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
)

// The account of the tests in Azurite.
const account = "berthtest"

var accountKey = base64.StdEncoding.EncodeToString([]byte("berth-test-only"))

// Server is an emulator on a loopback address.
type Server struct {
	address string
	create  func(t testing.TB, bucket string) (url string)
	buckets atomic.Int64
}

// Google starts fake-gcs-server, which stops at the end of the test. The URLs that it
// returns are good for as long: until then, the environment variable
// STORAGE_EMULATOR_HOST contains the server's address, so neither the test nor those
// above it may be parallel. If the program is not installed, the test is skipped or,
// if the environment variable CI is set, fails.
func Google(t testing.TB) *Server {
	t.Helper()
	program, err := find("fake-gcs-server")
	if err != nil {
		missing := "fake-gcs-server is not installed: go install github.com/fsouza/fake-gcs-server@v1.56.1"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s := newServer(t)
	host, port, _ := net.SplitHostPort(s.address)
	start(t, s.address, exec.Command(program, "-backend=memory", "-log-level=warn",
		"-scheme=http", "-host="+host, "-port="+port,
		"-public-host="+s.address, "-external-url=http://"+s.address))
	s.create = s.createGoogle
	t.Setenv("STORAGE_EMULATOR_HOST", s.address)
	return s
}

// Azure starts Azurite, which stops at the end of the test. If the program is not
// installed, the test is skipped.
func Azure(t testing.TB) *Server {
	t.Helper()
	program, err := find("azurite-blob")
	if err != nil {
		t.Skip("azurite-blob is not installed: npm install -g azurite@3.35.0")
	}
	// They are the same for all servers, so they need not belong to a test.
	os.Setenv("AZURE_STORAGE_ACCOUNT", account)
	os.Setenv("AZURE_STORAGE_KEY", accountKey)
	s := newServer(t)
	host, port, _ := net.SplitHostPort(s.address)
	// The SDK may ask for a later version of the API than Azurite knows.
	cmd := exec.Command(program, "--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck",
		"--blobHost", host, "--blobPort", port)
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+account+":"+accountKey)
	start(t, s.address, cmd)
	s.create = s.createAzure
	return s
}

// find returns the path of a program.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	// The directory of go install, which need not be in PATH.
	gopath, goErr := exec.Command("go", "env", "GOPATH").Output()
	if goErr != nil {
		return "", err
	}
	return exec.LookPath(filepath.Join(strings.TrimSpace(string(gopath)), "bin", name))
}

// newServer returns a server with an unused loopback address. On Linux its host is
// its own, so that no connection takes its port before it does.
func newServer(t testing.TB) *Server {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return &Server{address: l.Addr().String()}
}

// start runs a server until the end of the test, and waits until it responds.
func start(t testing.TB, address string, cmd *exec.Cmd) {
	t.Helper()
	log := new(bytes.Buffer) // not to be read before the process has exited
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, log)
		}
	})
	client := &http.Client{Timeout: 5 * time.Second, Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	for range 600 {
		resp, err := client.Get("http://" + address)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return
		}
		select {
		case <-done:
			t.Fatalf("%s has exited", cmd.Path)
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not respond", cmd.Path)
}

// URL creates an empty bucket, and returns its URL.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	return s.create(t, fmt.Sprintf("bucket-%d", s.buckets.Add(1)))
}

func (s *Server) createGoogle(t testing.TB, bucket string) string {
	t.Helper()
	client := &http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://"+s.address+"/storage/v1/b?project=project", "application/json",
		strings.NewReader(fmt.Sprintf(`{"name":%q}`, bucket)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	return "gs://" + bucket + "?anonymous=true"
}

func (s *Server) createAzure(t testing.TB, bucket string) string {
	t.Helper()
	credential, err1 := azblob.NewSharedKeyCredential(account, accountKey)
	client, err2 := azblob.NewClientWithSharedKeyCredential("http://"+s.address+"/"+account, credential, nil)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateContainer(context.Background(), bucket, nil); err != nil {
		t.Fatal(err)
	}
	return "azblob://" + bucket + "?" + url.Values{
		"domain":   {s.address},
		"protocol": {"http"},
		"localemu": {"true"},
	}.Encode()
}
