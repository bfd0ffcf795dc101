// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berth-oci/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"berth": main})
}

// TestScripts runs the scripts in testdata with the real command. In addition to
// testscript's own commands, they use:
//
//	serve [flags]          starts berth serve on a free port
//	http METHOD PATH CODE  sends a request, and writes the body of the response
//	                       to the file "body"
//	logged PATTERN         waits until a line of the log matches
//	audited PATTERN        waits until a line of the file "audit" matches
//	login NAME PASSWORD    makes http send a user's name and password
//	token SCOPE            gets a token that http sends from then on
//	debug PATH             sends a request to --debug-addr, as http does
//	signal NAME            sends the berth serve that was started last a signal
//	certificate            writes cert.pem and key.pem
//	halt                   ends the berth serve that was started last (stop is a command
//	                       of testscript's own: it ends the script, as a success)
//	images DIR             fills a store with images and referrers
//
// The condition ci says that a missing program is a failure, and no reason to skip.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Condition: func(cond string) (bool, error) {
			if cond != "ci" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Getenv("CI") != "", nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve":       serveScript,
			"http":        httpScript,
			"logged":      func(ts *testscript.TestScript, _ bool, args []string) { waitForLines(ts, "stderr", args) },
			"audited":     func(ts *testscript.TestScript, _ bool, args []string) { waitForLines(ts, "audit", args) },
			"login":       loginScript,
			"token":       tokenScript,
			"debug":       debugScript,
			"signal":      signalScript,
			"certificate": certificateScript,
			"halt":        haltScript,
			"images":      imagesScript,
		},
	})
}

func serveScript(ts *testscript.TestScript, _ bool, args []string) {
	os.Remove(ts.MkAbs("addr"))
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--addr=") }) {
		args = append([]string{"--addr=127.0.0.1:0"}, args...)
	}
	args = append([]string{"serve", "--addr-file=" + ts.MkAbs("addr")}, args...)
	cmd := exec.Command("berth", args...)
	cmd.Dir = ts.Getenv("WORK")
	stdout, err := os.Create(ts.MkAbs("stdout"))
	ts.Check(err)
	linesSeen.Delete([2]any{ts, "stderr"})
	stderr, err := os.Create(ts.MkAbs("stderr"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	ts.Check(cmd.Start())
	processes.Store(ts, cmd.Process)
	stop := sync.OnceFunc(func() {
		if cmd.Process.Signal(syscall.SIGTERM) != nil {
			cmd.Process.Kill()
		}
		cmd.Wait()
		stdout.Close()
		stderr.Close()
	})
	stops.Store(ts, stop)
	ts.Defer(stop)
	addr, err := waitForFile(ts.MkAbs("addr"))
	ts.Check(err)
	scheme := "http://"
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "--tls") }) {
		scheme = "https://"
	}
	addr, _, _ = strings.Cut(addr, "\n")
	ts.Setenv("URL", scheme+addr)
}

// stops maps a script to the function that ends its last berth serve.
var stops sync.Map

func haltScript(ts *testscript.TestScript, _ bool, _ []string) {
	stop, _ := stops.Load(ts)
	stop.(func())()
}

func httpScript(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: http METHOD PATH CODE")
	}
	req, err := http.NewRequest(args[0], ts.Getenv("URL")+args[1], strings.NewReader("content"))
	ts.Check(err)
	if token := ts.Getenv("TOKEN"); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	} else if name, password, ok := strings.Cut(ts.Getenv("LOGIN"), ":"); ok {
		req.SetBasicAuth(name, password)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("body"), body, 0o644))
	if got := fmt.Sprint(resp.StatusCode); got != args[2] {
		ts.Fatalf("%s %s: %s %s", args[0], args[1], resp.Status, body)
	}
}

// waitForLines waits until a line of a file matches a pattern, after the one that has
// matched last.
func waitForLines(ts *testscript.TestScript, file string, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: logged PATTERN")
	}
	pattern, err := regexp.Compile(`(?m)` + args[0])
	ts.Check(err)
	key := [2]any{ts, file}
	seen, _ := linesSeen.LoadOrStore(key, 0)
	var lines []byte
	for range 500 {
		lines, err = os.ReadFile(ts.MkAbs(file))
		if len(lines) < seen.(int) {
			seen = 0 // it is another file
		}
		if found := pattern.FindIndex(lines[seen.(int):]); found != nil {
			linesSeen.Store(key, seen.(int)+found[1])
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	ts.Fatalf("no line of %s matches: %v\n%s", file, err, lines)
}

func loginScript(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: login NAME PASSWORD")
	}
	ts.Setenv("LOGIN", strings.Join(args, ":"))
}

func tokenScript(ts *testscript.TestScript, _ bool, args []string) {
	req, err := http.NewRequest("GET", ts.Getenv("URL")+"/token?service=berth&scope="+args[0], nil)
	ts.Check(err)
	name, password, _ := strings.Cut(ts.Getenv("LOGIN"), ":")
	req.SetBasicAuth(name, password)
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var body struct{ Token string }
	ts.Check(json.NewDecoder(resp.Body).Decode(&body))
	ts.Setenv("TOKEN", body.Token)
}

func debugScript(ts *testscript.TestScript, _ bool, args []string) {
	log, err := os.ReadFile(ts.MkAbs("stderr"))
	ts.Check(err)
	addr := regexp.MustCompile(`msg="serving metrics and profiles" addr=(\S+)`).FindSubmatch(log)
	url := ts.Getenv("URL")
	ts.Setenv("URL", "http://"+string(addr[1]))
	httpScript(ts, false, []string{"GET", args[0], "200"})
	ts.Setenv("URL", url)
}

func signalScript(ts *testscript.TestScript, _ bool, args []string) {
	names := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}
	process, _ := processes.Load(ts)
	ts.Check(process.(*os.Process).Signal(names[args[0]]))
}

// linesSeen maps a script and a file to the bytes that waitForLines has seen.
var linesSeen sync.Map

// processes maps a script to the process of its last berth serve.
var processes sync.Map

func certificateScript(ts *testscript.TestScript, _ bool, _ []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "127.0.0.1"},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	ts.Check(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o644))
	ts.Check(os.WriteFile(ts.MkAbs("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
}

// waitForFile waits for a file and returns its content.
func waitForFile(name string) (string, error) {
	for range 500 {
		if b, err := os.ReadFile(name); err == nil {
			return strings.TrimSpace(string(b)), nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "", fmt.Errorf("no file %s after 10 s", name)
}

var stopCount = flag.Int("stops", 5, "number of times that TestStopUnderLoad stops the registry")

// TestStopUnderLoad sends SIGTERM in the middle of 50 pushes, and checks that the
// store has everything that was acknowledged.
func TestStopUnderLoad(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	const pushers = 50
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, interrupted := 0, 0
	for range *stopCount {
		addrFile := filepath.Join(t.TempDir(), "addr")
		store := new(registry.MemStore)
		c := serveCmd{Addr: []string{"127.0.0.1:0"}, AddrFile: addrFile, Grace: time.Minute, Progress: time.Minute, store: store}
		ended := make(chan error, 1)
		go func() { ended <- c.Run(io.Discard, logOutput{io.Discard}) }()
		addr, err := waitForFile(addrFile)
		if err != nil {
			t.Fatal(err)
		}

		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: pushers}}
		do := func(method, url, contentType, body string, want int) bool {
			req, err := http.NewRequest(method, "http://"+addr+url, strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return false
			}
			req.Header.Set("Content-Type", contentType)
			resp, err := client.Do(req)
			if err != nil {
				return false
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s %s: %s", method, url, resp.Status)
			}
			return resp.StatusCode == want
		}
		var mu sync.Mutex
		var done []string // guarded by mu: the acknowledged digests and tags
		var pushing sync.WaitGroup
		for i := range pushers {
			pushing.Go(func() {
				for n := 0; ; n++ {
					data := strings.Repeat(fmt.Sprintln(i, n), 20_000)
					d := digest.FromString(data).String()
					if !do("POST", "/v2/a/blobs/uploads/?digest="+d, "application/octet-stream", data, 201) {
						return
					}
					mu.Lock()
					done = append(done, d)
					mu.Unlock()
					tag := fmt.Sprintf("t%d-%d", i, n)
					if !do("PUT", "/v2/a/manifests/"+tag, "text/plain", data[:100], 201) {
						return
					}
					mu.Lock()
					done = append(done, tag)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(mathrand.IntN(100)) * time.Millisecond)
		if err := self.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		pushing.Wait()
		client.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for _, name := range done {
			if strings.HasPrefix(name, "t") {
				_, err = store.GetTag(t.Context(), "a", name)
			} else {
				_, err = store.OpenBlob(t.Context(), "a", digest.Digest(name))
			}
			if err != nil {
				t.Errorf("%s was acknowledged: %v", name, err)
			}
		}
		acknowledged += len(done)
		interrupted += pushers
	}
	t.Logf("%d stops, %d requests acknowledged, %d not", *stopCount, acknowledged, interrupted)
}

// TestGracefulStop sends SIGTERM in the middle of a push, and checks that the push
// finishes before the command exits.
func TestGracefulStop(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	addrFile := filepath.Join(t.TempDir(), "addr")
	cmd := exec.Command("berth", "serve", "--addr=127.0.0.1:0", "--addr-file="+addrFile, "--log-level=error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	addr, err := waitForFile(addrFile)
	if err != nil {
		t.Fatal(err)
	}

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server sends 100 when the handler reads the body. From then on the
	// request is in progress.
	io.WriteString(conn, "PUT /v2/a/manifests/tag HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 100 {
		t.Fatal(resp, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // the listener closes
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(time.Millisecond)
	}
	io.WriteString(conn, "content")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 201 {
		t.Fatal(resp, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}
