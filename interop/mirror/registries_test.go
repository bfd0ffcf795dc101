// SPDX-License-Identifier: Apache-2.0

// The registries that are mirrored.

package mirror

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/go-quicktest/qt"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/sirupsen/logrus"

	"github.com/berth-oci/registry"
)

// registries are the registries that TestRegistries mirrors.
var registries = map[string]struct {
	start func(t *testing.T) http.Handler

	pages        bool // it sends only some tags if a client asks for that
	noAPI        bool // it does not have the API of referrers
	noSubject    bool // it does not send OCI-Subject, so clients push a tag for the referrers
	configTypes  bool // it takes the type of its config for that of an artifact
	emptyMissing bool // it sends an empty list of tags for a repository that is missing
}{
	"berth":                  {start: func(*testing.T) http.Handler { return registry.New() }, pages: true},
	"distribution":           {start: newDistribution, pages: true, noAPI: true, noSubject: true},
	"olareg":                 {start: newOlareg, pages: true, emptyMissing: true},
	"zot":                    {start: startZot, pages: true},
	"ggcr":                   {start: newGgcr(true), noSubject: true, configTypes: true},
	"ggcr without referrers": {start: newGgcr(false), noAPI: true, noSubject: true},
}

func newGgcr(referrers bool) func(*testing.T) http.Handler {
	return func(*testing.T) http.Handler {
		return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(referrers))
	}
}

func newDistribution(t *testing.T) http.Handler {
	logrus.SetOutput(io.Discard)
	config := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem":  configuration.Parameters{"rootdirectory": t.TempDir()},
		"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
	}}
	config.Catalog.MaxEntries = 1000
	config.HTTP.RelativeURLs = true
	config.Log.AccessLog.Disabled = true
	config.Log.Level = "panic"
	return handlers.NewApp(context.Background(), config)
}

func newOlareg(t *testing.T) http.Handler {
	s := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}})
	t.Cleanup(func() { s.Close() })
	return s
}

// startZot starts zot, and returns a proxy to it.
func startZot(t *testing.T) http.Handler {
	if _, err := exec.LookPath("zot"); err != nil {
		t.Skip("zot is not installed: the Go module proxy does not have it, so build it in a clone of github.com/project-zot/zot")
	}
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	qt.Assert(t, qt.IsNil(err))
	addr := listener.Addr().String()
	listener.Close()
	host, port, _ := net.SplitHostPort(addr)
	config, err := json.Marshal(map[string]any{
		"storage": map[string]any{"rootDirectory": filepath.Join(dir, "content"), "gc": false},
		"http":    map[string]any{"address": host, "port": port, "compat": []string{"docker2s2"}},
		"log":     map[string]any{"level": "error"},
	})
	qt.Assert(t, qt.IsNil(err))
	name := filepath.Join(dir, "config.json")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, config, 0o600)))
	output, err := os.Create(filepath.Join(dir, "log"))
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command("zot", "serve", name)
	cmd.Stdout, cmd.Stderr = output, output
	qt.Assert(t, qt.IsNil(cmd.Start()))
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		output.Close()
	})
	for {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(output.Name())
			t.Fatalf("zot has ended: %s", text)
		case <-time.After(20 * time.Millisecond):
		}
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	return proxy
}
