// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// journaled is a client of a registry with a journal.
type journaled struct {
	t       *testing.T
	journal *registrytest.Journal
	client  *http.Client
	host    string
}

func newJournaled(t *testing.T, h http.Handler) journaled {
	j := new(registrytest.Journal)
	return journaled{t, j, &http.Client{Transport: registrytest.Transport(j.Handler(h))}, "registry.example"}
}

func (c journaled) send(method, path, body string, header ...string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://"+c.host+path, strings.NewReader(body))
	qt.Assert(c.t, qt.IsNil(err))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.client.Do(req)
	qt.Assert(c.t, qt.IsNil(err))
	resp.Body.Close()
	return resp
}

func TestJournal(t *testing.T) {
	c := newJournaled(t, registry.New())
	d := digest.FromString("data")
	loc := c.send("POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	c.send("PATCH", loc, "data", "Content-Range", "0-3")
	c.send("PUT", loc+"?digest="+d.String(), "")
	c.send("HEAD", "/v2/a/blobs/"+d.String(), "")
	c.send("POST", "/v2/a/blobs/uploads/?digest="+d.String(), "data")
	c.send("POST", "/v2/b/blobs/uploads/?from=a&mount="+d.String(), "")
	c.send("GET", "/v2/a/blobs/"+d.String(), "", "Range", "bytes=1-2")
	c.send("GET", "/other?token=s3cr3t", "", "Authorization", "Bearer s3cr3t")

	j := c.journal
	qt.Check(t, qt.Equals(j.Count(), 8))
	qt.Check(t, qt.Equals(j.Count(registry.OpUploadPatch, registry.OpUploadPut), 2))
	qt.Check(t, qt.DeepEquals(j.BlobsPushed(), []digest.Digest{d, d}))
	qt.Check(t, qt.DeepEquals(j.BlobsPushedUnchecked(), []digest.Digest{d})) // the first time
	qt.Check(t, qt.HasLen(j.IgnoredLocations(), 0))
	qt.Check(t, qt.HasLen(j.UnsolicitedCredentials(), 1))

	id := loc[strings.LastIndex(loc, "/")+1:]
	table := strings.ReplaceAll(strings.ReplaceAll(j.String(), id, "ID"), d.String(), "DIGEST")
	var rows []string
	for line := range strings.Lines(table) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	qt.Check(t, qt.DeepEquals(rows, []string{
		"# method op repository reference status received sent range auth",
		"1 POST upload-start a 202 0 0",
		"2 PATCH upload-patch a ID 202 4 0 0-3",
		"3 PUT upload-put a ID DIGEST 201 0 0",
		"4 HEAD blob-head a DIGEST 200 0 0",
		"5 POST blob-push a DIGEST 201 4 0",
		"6 POST blob-mount b DIGEST from a 201 0 0",
		"7 GET blob-get a DIGEST 206 0 2 bytes=1-2",
		"8 GET /other 404 0 62 Bearer",
	}))
	qt.Check(t, qt.IsFalse(strings.Contains(j.String(), "s3cr3t")))
}

func TestIgnoredLocations(t *testing.T) {
	// Like some registries, this one keeps state in the query of its Locations.
	inner := registry.New()
	state := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(stateful{w, &state}, r)
	})
	c := newJournaled(t, h)
	first := c.send("POST", "/v2/a/blobs/uploads/", "").Header.Get("Location")
	second := c.send("PATCH", first, "one").Header.Get("Location")
	qt.Assert(t, qt.Not(qt.Equals(first, second)))
	qt.Check(t, qt.HasLen(c.journal.IgnoredLocations(), 0))
	c.send("PATCH", first, "two") // an old Location
	path, _, _ := strings.Cut(second, "?")
	c.send("PUT", path+"?digest="+digest.FromString("onetwo").String(), "") // a URL that the client built
	changed := c.journal.IgnoredLocations()
	qt.Assert(t, qt.HasLen(changed, 2))
	qt.Check(t, qt.Equals(changed[0].Op, registry.OpUploadPatch))
	qt.Check(t, qt.Equals(changed[1].Op, registry.OpUploadPut))
}

// stateful adds a state parameter to the Location of uploads.
type stateful struct {
	http.ResponseWriter
	state *int
}

func (w stateful) WriteHeader(status int) {
	if location := w.Header().Get("Location"); status == 202 && location != "" {
		*w.state++
		w.Header().Set("Location", fmt.Sprintf("%s?_state=%d", location, *w.state))
	}
	w.ResponseWriter.WriteHeader(status)
}

func TestUnsolicitedCredentials(t *testing.T) {
	inner := registry.New()
	c := newJournaled(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			registry.WriteError(w, r, registry.ErrUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	c.send("GET", "/v2/", "")
	c.send("GET", "/v2/", "", "Authorization", "Basic eDp5")
	qt.Check(t, qt.HasLen(c.journal.UnsolicitedCredentials(), 0))
	e := c.journal.Entries()
	qt.Check(t, qt.Equals(e[0].Status, 401))
	qt.Check(t, qt.Equals(e[1].Auth, "Basic"))
}

// TestJournalFlush checks that a handler behind a journal can use http.Flusher, and
// that the journal records the status that Flush sends.
func TestJournalFlush(t *testing.T) {
	j := new(registrytest.Journal)
	h := j.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		qt.Check(t, qt.IsNil(http.NewResponseController(w).Flush()))
		fmt.Fprint(w, "data")
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", nil))
	qt.Check(t, qt.IsTrue(w.Flushed))
	e := j.Entries()[0]
	qt.Check(t, qt.Equals(e.Status, 200))
	qt.Check(t, qt.Equals(e.Sent, 4))
}

func TestJournalConcurrency(t *testing.T) {
	c := newJournaled(t, registry.New())
	var wg sync.WaitGroup
	for range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c.send("GET", "/v2/", "")
			_ = c.journal.String()
		}()
	}
	wg.Wait()
	qt.Check(t, qt.Equals(c.journal.Count(registry.OpPing), 50))
}
