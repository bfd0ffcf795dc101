// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestTapeOfFaults records an unreliable registry: the faults are on the tape.
func TestTapeOfFaults(t *testing.T) {
	store := new(registry.MemStore)
	d := digest.FromBytes(tapeBlob)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), store, "app", d, strings.NewReader(string(tapeBlob)))))
	faults := registrytest.NewFaults(
		registrytest.Rule{Op: registry.OpTags, Nth: 1, Fault: registrytest.Respond(503, "unavailable")},
		registrytest.Rule{Op: registry.OpBlobGet, Nth: 1, Fault: registrytest.Disconnect(10)},
		registrytest.Rule{Op: registry.OpBlobGet, Nth: 2, Fault: registrytest.Truncate(20)},
		registrytest.Rule{Op: registry.OpBlobHead, Fault: registrytest.DropRequest()},
	)
	pull := func(t *testing.T, base string, rt http.RoundTripper) (seen []string) {
		blob := base + "/v2/app/blobs/" + d.String()
		for _, url := range []string{base + "/v2/app/tags/list", base + "/v2/app/tags/list", blob, blob, blob} {
			seen = append(seen, tapeGet(rt, url))
		}
		req, _ := http.NewRequest("HEAD", blob, nil)
		_, err := rt.RoundTrip(req)
		return append(seen, fmt.Sprint(err == nil))
	}
	want := []string{
		"503 unavailable\n", `200 {"name":"app","tags":[]}`,
		string(tapeBlob[:10]) + " unexpected EOF", "200 " + string(tapeBlob[:20]), "200 " + string(tapeBlob), "false",
	}
	dir := filepath.Join(t.TempDir(), "tape")
	t.Run("record", func(t *testing.T) {
		s := httptest.NewServer(faults.Handler(registry.New(registry.WithStore(store))))
		defer s.Close()
		tape := registrytest.Record(t, s.URL, dir, nil)
		qt.Check(t, qt.DeepEquals(pull(t, s.URL, tape), want))
	})
	qt.Check(t, qt.HasLen(faults.Unfired(), 0))
	t.Run("round_tripper", func(t *testing.T) {
		tape := registrytest.Replay(t, os.DirFS(dir), nil)
		qt.Check(t, qt.Equals(tape.Host, "127.0.0.1:1"))
		qt.Check(t, qt.DeepEquals(pull(t, "http://"+tape.Host, tape), want))
	})
	t.Run("handler", func(t *testing.T) {
		tape := registrytest.Replay(t, os.DirFS(dir), nil)
		qt.Check(t, qt.DeepEquals(pull(t, "http://any.example", registrytest.Transport(tape)), want))
	})
}

// TestFaultsOfTape adds faults to a tape.
func TestFaultsOfTape(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tape")
	want := recordTape(t, "in process", dir)
	t.Run("replay", func(t *testing.T) {
		faults := registrytest.NewFaults(
			registrytest.Rule{Op: registry.OpTags, Fault: registrytest.Respond(503, "unavailable")},
			registrytest.Rule{Op: registry.OpBlobGet, Nth: 1, Fault: registrytest.Corrupt()},
		)
		journal := registrytest.NewJournal(t)
		tape := registrytest.Replay(t, os.DirFS(dir), &registrytest.TapeOptions{Repeat: true})
		client := &http.Client{Transport: registrytest.Transport(journal.Handler(faults.Handler(tape)))}
		got := converse(t, client, "http://registry.example", "any")
		var different []string
		qt.Assert(t, qt.HasLen(got, len(want)))
		for i := range got {
			if got[i] != want[i] {
				different = append(different, got[i])
			}
		}
		qt.Check(t, qt.HasLen(different, 2))
		qt.Check(t, qt.HasLen(faults.Unfired(), 0))
		qt.Check(t, qt.HasLen(journal.IgnoredLocations(), 0))
		qt.Check(t, qt.HasLen(journal.BlobsPushed(), 3))
	})
}

// TestTapeRedirects records blobs that the registry redirects to signed URLs on another
// server, and replays them without either.
func TestTapeRedirects(t *testing.T) {
	d := digest.FromBytes(tapeBlob)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.URL.Query().Get("sig") != "planted-signature" {
			http.Error(w, "the signature and nothing else must authorize the request", http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/first" {
			http.Redirect(w, r, "/second?"+r.URL.RawQuery, http.StatusFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(tapeBlob)))
	}))
	defer storage.Close()
	storageURL := strings.Replace(storage.URL, "127.0.0.1", "localhost", 1) // another host, to which clients send no credentials
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storageURL+"/first?sig=planted-signature&se=2026-01-01", http.StatusTemporaryRedirect)
	}))
	defer origin.Close()
	pull := func(t *testing.T, client *http.Client, base string) {
		for _, test := range []struct{ header, want string }{{"", string(tapeBlob)}, {"bytes=5-9", string(tapeBlob[5:10])}} {
			req, err := http.NewRequest("GET", base+"/v2/app/blobs/"+d.String(), nil)
			qt.Assert(t, qt.IsNil(err))
			req.Header.Set("Authorization", "Bearer planted-token")
			if test.header != "" {
				req.Header.Set("Range", test.header)
			}
			resp, err := client.Do(req)
			qt.Assert(t, qt.IsNil(err))
			data, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(string(data), test.want))
		}
	}
	for _, kind := range []string{"round tripper", "handler"} {
		t.Run(kind, func(t *testing.T) {
			run := func(t *testing.T, tape *registrytest.Tape) {
				if kind == "handler" {
					s := httptest.NewServer(tape)
					defer s.Close()
					pull(t, s.Client(), s.URL)
					return
				}
				pull(t, &http.Client{Transport: tape}, "http://"+tape.Host)
			}
			dir := filepath.Join(t.TempDir(), "tape")
			t.Run("record", func(t *testing.T) { run(t, registrytest.Record(t, origin.URL, dir, nil)) })
			t.Run("replay", func(t *testing.T) { run(t, registrytest.Replay(t, os.DirFS(dir), nil)) })
			files := readFiles(t, dir)
			qt.Check(t, qt.HasLen(files, 4)) // the part is one of the blob
			qt.Check(t, qt.StringContains(files["tape.txt"], "<= "+d.String()+" 5-9\n"))
			qt.Check(t, qt.StringContains(files["tape.txt"], "> GET http://localhost:2/second?se=redacted&sig=redacted\n"))
			for name, data := range files {
				qt.Check(t, qt.IsFalse(strings.Contains(data, "planted") || strings.Contains(data, "2026")), qt.Commentf("%s", name))
			}
		})
	}
}

// TestRecordFolder checks when a recording replaces a folder.
func TestRecordFolder(t *testing.T) {
	const upstream = "https://registry.example"
	opts := &registrytest.TapeOptions{Transport: registrytest.Transport(registry.New())}
	for _, test := range []struct {
		name   string
		files  map[string]string
		fail   bool // the test fails
		errors string
		logs   string
		keeps  bool // the files
	}{
		{name: "new"},
		{name: "old_tape", files: map[string]string{"tape.txt": "old", "index.json": "{}", "oci-layout": "{}", "blobs/sha256/old": "x"}},
		{name: "other_files", files: map[string]string{"tape.txt": "old", "main.go": "package main"}, keeps: true,
			errors: "registrytest: the folder of a tape is replaced when it is recorded, but .*main.go is not part of a tape"},
		{name: "failed_test", files: map[string]string{"tape.txt": "old"}, fail: true, keeps: true,
			errors: "it failed", logs: "registrytest: the tape .* is not written, since the test has failed or was skipped"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "testdata", "tape")
			for name, data := range test.files {
				name = filepath.Join(dir, filepath.FromSlash(name))
				qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(name), 0o755)))
				qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte(data), 0o644)))
			}
			errors, logs := runFake(func(tb testing.TB) {
				tape := registrytest.Record(tb, upstream, dir, opts)
				qt.Check(t, qt.Equals(tapeGet(tape, upstream+"/v2/"), "200 {}"))
				if test.fail {
					tb.Errorf("it failed")
				}
			})
			qt.Check(t, qt.Matches(strings.Join(errors, "\n"), "^"+test.errors+"$"))
			qt.Check(t, qt.Matches(strings.Join(logs, "\n"), "^"+test.logs+"$"))
			files := readFiles(t, dir)
			if test.keeps {
				qt.Check(t, qt.DeepEquals(files, test.files))
			} else {
				qt.Check(t, qt.DeepEquals(slices.Sorted(maps.Keys(files)), []string{"index.json", "oci-layout", "tape.txt"}))
			}
			entries, err := os.ReadDir(filepath.Dir(dir))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(entries, 1)) // nothing is left behind
		})
	}
}

// TestOpenTape records or replays, as the environment says.
func TestOpenTape(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tape")
	for _, test := range []struct{ value, errors string }{
		{"", "registrytest: there is no tape in .*: record it with REGISTRYTEST_RECORD=1"},
		{"yes", `registrytest: REGISTRYTEST_RECORD is "yes": it must be 1 or 0`},
		{"1", ""},
		{"0", ""},
		{"", ""},
	} {
		t.Setenv("REGISTRYTEST_RECORD", test.value)
		served := false
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { served = true })
		errors, _ := runFake(func(tb testing.TB) {
			tape := registrytest.OpenTape(tb, "https://registry.example", dir, &registrytest.TapeOptions{Transport: registrytest.Transport(h)})
			qt.Check(t, qt.Equals(tapeGet(tape, "https://"+tape.Host+"/v2/"), "200 "))
		})
		qt.Check(t, qt.Matches(strings.Join(errors, "\n"), "^"+test.errors+"$"))
		qt.Check(t, qt.Equals(served, test.value == "1"))
	}
}

// TestRecordUpstream checks that the upstream must be a URL without a path.
func TestRecordUpstream(t *testing.T) {
	for _, test := range []struct{ upstream, err string }{
		{"ghcr.io", "the scheme must be http or https"},
		{"https://", "it has no host"},
		{"https://ghcr.io/v2/", "it has a path"},
		{"https://ghcr.io?x=y", "it has a path"},
		{"https://u:p@ghcr.io", "it has a user"},
	} {
		errors, _ := runFake(func(tb testing.TB) { registrytest.Record(tb, test.upstream, t.TempDir(), nil) })
		qt.Check(t, qt.HasLen(errors, 1))
		qt.Check(t, qt.Matches(strings.Join(errors, ""), ".*registry.example: "+test.err))
	}
}

// TestTapeUnreadBodies records registries that respond without reading a body, or ignore
// it.
func TestTapeUnreadBodies(t *testing.T) {
	inner := registry.New()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == "POST" && r.URL.Query().Has("digest"): // no monolithic push
			r.URL.RawQuery, r.Body = "", http.NoBody
			inner.ServeHTTP(w, r)
		default:
			inner.ServeHTTP(w, r)
		}
	}))
	defer s.Close()
	data := strings.Repeat("0123456789", 200_000)
	d := digest.FromString(data)
	push := func(t *testing.T, tape *registrytest.Tape) {
		send := func(method, target, token string) *http.Response {
			req, err := http.NewRequest(method, target, strings.NewReader(data))
			qt.Assert(t, qt.IsNil(err))
			if token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			resp, err := (&http.Client{Transport: tape}).Do(req)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			return resp
		}
		post := "http://" + tape.Host + "/v2/app/blobs/uploads/?digest=" + string(d)
		qt.Check(t, qt.Equals(send("POST", post, "").StatusCode, 401))
		resp := send("POST", post, "token")
		qt.Check(t, qt.Equals(resp.StatusCode, 202))
		location, err := resp.Location()
		qt.Assert(t, qt.IsNil(err))
		put := location.String() + "?digest=" + string(d)
		qt.Check(t, qt.Equals(send("PUT", put, "").StatusCode, 401))
		qt.Check(t, qt.Equals(send("PUT", put, "token").StatusCode, 201))
	}
	dir := filepath.Join(t.TempDir(), "tape")
	t.Run("record", func(t *testing.T) { push(t, registrytest.Record(t, s.URL, dir, nil)) })
	files := readFiles(t, dir)
	qt.Check(t, qt.IsTrue(strings.Count(files["tape.txt"], "\n>= *\n") >= 2)) // 3 if the registry closes the connection
	qt.Check(t, qt.Equals(files["blobs/sha256/"+d.Encoded()], data))
	t.Run("replay", func(t *testing.T) { push(t, registrytest.Replay(t, os.DirFS(dir), nil)) })
}
