// SPDX-License-Identifier: Apache-2.0

// The socket by which other commands ask the server of a directory to do what they can't
// do themselves beside it.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/berth-oci/registry/retention"
)

// controlSocket returns the name of the socket of a store, "" if the store is no
// directory.
func controlSocket(store string) string {
	dir, ok := strings.CutPrefix(store, "dir:")
	if !ok {
		return ""
	}
	name := filepath.Join(dir, ".berth", "control.sock")
	if name[0] == '@' { // the name of a socket without a file, and without permissions
		name = "./" + name
	}
	return name
}

// gcRequest asks for a collection.
type gcRequest struct {
	Grace        time.Duration // as in retention.Options
	Rules        []retention.Rule
	KeepUntagged bool
	DryRun       bool
	Verbose      bool
}

func (r gcRequest) options() retention.Options {
	return retention.Options{Grace: r.Grace, Rules: r.Rules, KeepUntagged: r.KeepUntagged, DryRun: r.DryRun}
}

// errorTrailer is the trailer of a response that has failed on the way.
const errorTrailer = "Berth-Error"

// serveControl serves the socket of the directory until the returned function is called.
// The caller must have the directory for itself.
func (s *server) serveControl() (stop func()) {
	name := controlSocket(s.start.Store)
	if name == "" || s.start.ReadOnly {
		return func() {}
	}
	os.Remove(name) // of a process that was killed
	listener, err := listenUnix(name, 0o600)
	if err != nil {
		s.log.Warn("berth gc can't work on this directory while it is served", "error", err)
		return func() {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", s.serveGC)
	server := &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	go server.Serve(listener)
	return func() {
		server.Close()
		listener.Close() // which removes the socket: Serve may not have begun
	}
}

// serveGC runs a collection, which ends early if the client leaves, and responds with its
// output as text.
func (s *server) serveGC(w http.ResponseWriter, r *http.Request) {
	var req gcRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", errorTrailer)
	w.WriteHeader(http.StatusOK)
	if err := printCollection(w, req, func(o retention.Options) (retention.Report, error) {
		return s.collectNow(r.Context(), o)
	}); err != nil {
		w.Header().Set(errorTrailer, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// errNoServer means that no server has the directory open.
var errNoServer = errors.New("no server")

// askServer lets the server of a store run a collection, and copies its output.
// Errors: errNoServer.
func askServer(ctx context.Context, store string, req gcRequest, stdout io.Writer) error {
	name := controlSocket(store)
	if name == "" {
		return errNoServer
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoServer, err)
		}
		return conn, nil
	}
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://berth/gc", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	if errors.Is(err, errNoServer) {
		return err
	}
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(stdout, resp.Body)
	}
	if urlErr, ok := err.(*url.Error); ok {
		err = urlErr.Err // without the URL, which nobody has asked for
	}
	if err != nil {
		return fmt.Errorf("the server of %s stopped before the collection ended: %w", store, err)
	}
	if text := resp.Trailer.Get(errorTrailer); text != "" {
		return errors.New(text)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
