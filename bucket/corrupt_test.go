// SPDX-License-Identifier: Apache-2.0

// Content that the bucket has changed or lost.

package bucket_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// damagedBucket is a registry in a directory whose files a test changes.
type damagedBucket struct {
	t   *testing.T
	s   *bucket.Store
	dir string
	url string
}

func newDamagedBucket(t *testing.T) *damagedBucket {
	t.Helper()
	dir := t.TempDir()
	s := open(t, "file://"+dir, nil)
	server := httptest.NewServer(registry.New(registry.WithStore(s)))
	t.Cleanup(server.Close)
	return &damagedBucket{t, s, dir, server.URL + "/v2/"}
}

// files returns the files whose names contain part.
func (b *damagedBucket) files(part string) (names []string) {
	b.t.Helper()
	b.s.Wait()
	err := filepath.WalkDir(b.dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(filepath.ToSlash(name), part) {
			names = append(names, name)
		}
		return err
	})
	qt.Assert(b.t, qt.IsNil(err))
	return names
}

// file returns the only file whose name contains part.
func (b *damagedBucket) file(part string) string {
	b.t.Helper()
	names := b.files(part)
	qt.Assert(b.t, qt.HasLen(names, 1))
	return names[0]
}

// flip flips a bit of a file's last byte.
func (b *damagedBucket) flip(name string) {
	b.t.Helper()
	data, err := os.ReadFile(name)
	qt.Assert(b.t, qt.IsNil(err))
	data[len(data)-1] ^= 1
	b.write(name, string(data))
}

func (b *damagedBucket) write(name, data string) {
	b.t.Helper()
	qt.Assert(b.t, qt.IsNil(os.WriteFile(name, []byte(data), 0o600)))
}

func (b *damagedBucket) do(method, path, body string, header ...string) (*http.Response, string, error) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	qt.Assert(b.t, qt.IsNil(err))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	qt.Assert(b.t, qt.IsNil(err))
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, string(got), err
}

// want checks the whole response to a request.
func (b *damagedBucket) want(method, path, body string, status int, want string, header ...string) {
	b.t.Helper()
	resp, got, err := b.do(method, path, body, header...)
	qt.Assert(b.t, qt.IsNil(err))
	qt.Assert(b.t, qt.Equals(resp.StatusCode, status), qt.Commentf("%s", got))
	if want != "" {
		qt.Assert(b.t, qt.IsTrue(got == want))
	}
}

// wantError checks that a GET fails with 500, before anything of the content is sent.
func (b *damagedBucket) wantError(path string, header ...string) {
	b.t.Helper()
	resp, got, err := b.do("GET", path, "", header...)
	qt.Assert(b.t, qt.IsNil(err))
	qt.Assert(b.t, qt.Equals(resp.StatusCode, http.StatusInternalServerError))
	qt.Assert(b.t, qt.Equals(resp.Header.Get("Content-Type"), "application/json"))
	for _, name := range []string{"Docker-Content-Digest", "Etag", "Content-Range", "Accept-Ranges"} {
		qt.Check(b.t, qt.Equals(resp.Header.Get(name), ""))
	}
	var doc struct{ Errors []struct{ Message string } }
	qt.Assert(b.t, qt.IsNil(json.Unmarshal([]byte(got), &doc)))
	qt.Assert(b.t, qt.HasLen(doc.Errors, 1))
	qt.Assert(b.t, qt.Equals(doc.Errors[0].Message, "internal error"))
}

// scrub checks the number of problems that Scrub finds and repairs.
func (b *damagedBucket) scrub(repair bool, problems, repaired int) bucket.ScrubStats {
	b.t.Helper()
	return scrub(b.t, b.s, repair, problems, repaired)
}

var corruptSizes = map[string]string{"small": "some data", "large": strings.Repeat("0123456789abcdef", 2<<20/16)}

// TestCorruptData flips a bit of a blob: a GET of all of it breaks off, and the next
// push heals it, in any repository.
func TestCorruptData(t *testing.T) {
	for name, data := range corruptSizes {
		for _, repo := range []string{"a", "b"} {
			t.Run(name+"/"+repo, func(t *testing.T) {
				b := newDamagedBucket(t)
				d := push(t, b.s, "a", data)
				blob := "a/blobs/" + d.String()
				b.flip(b.file("/data/"))

				b.want("GET", blob, "", http.StatusPartialContent, data[2:5], "Range", "bytes=2-4")
				resp, got, err := b.do("GET", blob, "")
				if resp.StatusCode == http.StatusOK {
					qt.Assert(t, qt.ErrorIs(err, io.ErrUnexpectedEOF))
					qt.Assert(t, qt.IsTrue(len(got) < len(data)))
				}
				// Clients ask by a HEAD whether they must push it.
				b.s.Wait()
				b.want("HEAD", blob, "", http.StatusNotFound, "")
				// A mount must not copy the damage.
				b.want("POST", "c/blobs/uploads/?from=a&mount="+d.String(), "", http.StatusAccepted, "")
				b.want("HEAD", "c/blobs/"+d.String(), "", http.StatusNotFound, "")

				push(t, b.s, repo, data)
				b.want("GET", repo+"/blobs/"+d.String(), "", http.StatusOK, data)
				b.scrub(false, 0, 0)
			})
		}
	}
}

// TestMissingData deletes, truncates and extends the data of a blob: a GET fails before
// the header, and then the repository lacks the blob.
func TestMissingData(t *testing.T) {
	for name, data := range corruptSizes {
		for kind, damage := range map[string]func(b *damagedBucket, name string){
			"missing":   func(b *damagedBucket, name string) { os.Remove(name) },
			"truncated": func(b *damagedBucket, name string) { b.write(name, data[:5]) },
			"empty":     func(b *damagedBucket, name string) { b.write(name, "") },
			"longer":    func(b *damagedBucket, name string) { b.write(name, data+"x") },
		} {
			for _, ranges := range []string{"", "bytes=1-3", "bytes=1-3,5-6"} {
				t.Run(name+"/"+kind+"/"+ranges, func(t *testing.T) {
					b := newDamagedBucket(t)
					d := push(t, b.s, "a", data)
					blob := "a/blobs/" + d.String()
					damage(b, b.file("/data/"))
					b.want("HEAD", blob, "", http.StatusOK, "")
					b.want("GET", blob, "", http.StatusNotModified, "", "If-None-Match", `"`+d.String()+`"`)
					b.wantError(blob, "Range", ranges)
					b.s.Wait()
					b.want("HEAD", blob, "", http.StatusNotFound, "")
					push(t, b.s, "a", data)
					b.want("GET", blob, "", http.StatusOK, data)
					b.want("GET", blob, "", http.StatusPartialContent, data[1:4], "Range", "bytes=1-3")
					b.scrub(false, 0, 0)
				})
			}
		}
	}
}

// TestCorruptManifest changes the object of a manifest: a push of the manifest, by
// digest or tag, repairs it with its tags.
func TestCorruptManifest(t *testing.T) {
	t.Parallel()
	const content = `{"schemaVersion":2,"mediaType":"application/vnd.example+json"}`
	const mediaType = "application/vnd.example+json"
	d := digest.FromString(content)
	for name, damage := range map[string]func([]byte) []byte{
		"bytes":   func(object []byte) []byte { object[len(object)-3] ^= 1; return object },
		"cut":     func(object []byte) []byte { return object[:len(object)-10] },
		"header":  func(object []byte) []byte { return bytes.Replace(object, []byte(`{"mediaType"`), []byte(`{"media`), 1) },
		"garbage": func([]byte) []byte { return []byte(strings.Repeat("garbage", 100)) },
		"zeros":   func(object []byte) []byte { return make([]byte, len(object)) },
		"empty":   func([]byte) []byte { return nil },
	} {
		for _, reference := range []string{d.String(), "one"} {
			t.Run(name+"/"+reference[:3], func(t *testing.T) {
				b := newDamagedBucket(t)
				for _, tag := range []string{"one", "two"} {
					b.want("PUT", "a/manifests/"+tag, content, http.StatusCreated, "", "Content-Type", mediaType)
				}
				file := b.file("/_manifests/")
				object, err := os.ReadFile(file)
				qt.Assert(t, qt.IsNil(err))
				b.write(file, string(damage(object)))
				for _, reference := range []string{d.String(), "one"} {
					b.wantError("a/manifests/" + reference)
				}
				if name != "empty" { // in a list, that looks like a manifest that was deleted
					b.scrub(true, 1, 0)
				}
				b.want("PUT", "a/manifests/"+reference, content, http.StatusCreated, "", "Content-Type", mediaType)
				for _, reference := range []string{d.String(), "one", "two"} {
					b.want("GET", "a/manifests/"+reference, "", http.StatusOK, content)
				}
				b.scrub(false, 0, 0)
				b.write(file, "garbage")
				b.want("DELETE", "a/manifests/"+d.String(), "", http.StatusAccepted, "")
				b.want("GET", "a/manifests/"+d.String(), "", http.StatusNotFound, "")
			})
		}
	}
}

// TestCorruptImmutable repairs a manifest by a push of a tag that may not move.
func TestCorruptImmutable(t *testing.T) {
	b := newDamagedBucket(t)
	m := manifest("m")
	put := func(m registry.Manifest) error {
		return b.s.PutManifest(t.Context(), "a", m, []string{"tag"}, func(_ string, current digest.Digest) error {
			if current != "" && current != m.Digest {
				return registry.ErrDenied
			}
			return nil
		})
	}
	qt.Assert(t, qt.IsNil(put(m)))
	b.write(b.file("/_manifests/"), "garbage")
	qt.Assert(t, qt.IsNotNil(put(manifest("other"))))
	qt.Assert(t, qt.IsNil(put(m)))
	b.want("GET", "a/manifests/tag", "", http.StatusOK, "m")
	qt.Assert(t, qt.ErrorIs(put(manifest("other")), error(registry.ErrDenied)))
}

// TestCorruptLink changes the link of a blob.
func TestCorruptLink(t *testing.T) {
	for name, data := range corruptSizes {
		for kind, damage := range map[string]func(object string) string{
			"garbage": func(string) string { return "garbage" },
			"zeros":   func(object string) string { return strings.Repeat("\x00", len(object)) },
			"cut":     func(object string) string { return object[:len(object)-10] },
			"fields":  func(object string) string { return object[:strings.IndexByte(object, '\n')+1] + `{"size":1}` },
			"size": func(object string) string {
				return strings.Replace(object, `"size":`, `"size":-`, 1)
			},
			"path": func(object string) string { return strings.Replace(object, `"data":"`, `"data":"../`, 1) },
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				b := newDamagedBucket(t)
				d := push(t, b.s, "a", data)
				blob, file := "a/blobs/"+d.String(), b.file("/_blobs/")
				object, err := os.ReadFile(file)
				qt.Assert(t, qt.IsNil(err))
				broken := damage(string(object))
				qt.Assert(t, qt.IsTrue(broken != string(object)))

				b.write(file, broken)
				b.wantError(blob)
				push(t, b.s, "b", data)
				b.want("GET", "b/blobs/"+d.String(), "", http.StatusOK, data)
				push(t, b.s, "a", data)
				b.want("GET", blob, "", http.StatusOK, data)

				b.write(file, broken)
				b.want("DELETE", blob, "", http.StatusAccepted, "")
				b.want("GET", blob, "", http.StatusNotFound, "")
			})
		}
	}
}

// TestCorruptTag changes a tag: a push replaces it, and a delete deletes it.
func TestCorruptTag(t *testing.T) {
	b := newDamagedBucket(t)
	m := manifest("m")
	put := func() error { return b.s.PutManifest(t.Context(), "a", m, []string{"tag"}, nil) }
	qt.Assert(t, qt.IsNil(put()))
	file := b.file("/_tags/")
	garbage := strings.Repeat("garbage", 100)
	b.write(file, garbage)
	b.wantError("a/manifests/tag")
	b.scrub(true, 1, 0)
	qt.Assert(t, qt.IsNil(put()))
	b.want("GET", "a/manifests/tag", "", http.StatusOK, "m")
	b.write(file, garbage)
	b.want("DELETE", "a/manifests/tag", "", http.StatusAccepted, "")
	b.want("GET", "a/manifests/tag", "", http.StatusNotFound, "")
	qt.Assert(t, qt.IsNil(put()))
	b.write(file, garbage)
	b.want("DELETE", "a/manifests/"+m.Digest.String(), "", http.StatusAccepted, "")
}

// TestCorruptName changes the name of a repository in the catalog.
func TestCorruptName(t *testing.T) {
	b := newDamagedBucket(t)
	push(t, b.s, "a", "data")
	b.write(b.file("/names/"), strings.Repeat("garbage", 100))
	b.scrub(false, 1, 0)
	other := open(t, "file://"+b.dir, nil) // a process that has not yet seen the repository
	push(t, other, "a", "other data")
	b.scrub(false, 0, 0)
	b.write(b.file("/names/"), strings.Repeat("garbage", 100))
	b.scrub(true, 1, 1)
	b.write(b.file("/names/"), strings.Repeat("garbage", 100))
	qt.Assert(t, qt.IsNil(other.DeleteBlob(t.Context(), "a", digest.FromString("data"))))
	qt.Assert(t, qt.IsNil(other.DeleteBlob(t.Context(), "a", digest.FromString("other data"))))
	repos, err := collect(b.s.Repositories(t.Context(), ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(repos, 0))
}
