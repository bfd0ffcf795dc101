// SPDX-License-Identifier: Apache-2.0

// The folder of a tape: an image layout and the list of exchanges.

package registrytest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newTapeRecorder returns a recorder that writes its tape to the folder dir.
func newTapeRecorder(t *Tape, dir string) (*tapeRecorder, error) {
	dir = filepath.Clean(dir)
	if err := checkTapeFolder(dir); err != nil {
		return nil, err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	// Next to the tape, so that it can be renamed.
	stage, err := os.MkdirTemp(parent, "."+filepath.Base(dir)+"-recording-")
	if err != nil {
		return nil, err
	}
	transport := t.opts.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	return &tapeRecorder{
		tape: t, dir: dir, stage: tapeStage{stage}, transport: transport,
		redirects: make(map[string]redirectTarget),
		chunks:    make(map[string][]digest.Digest),
		manifests: make(map[manifestRef]taggedRecord),
		heads:     make(map[manifestRef]taggedRecord),
	}, nil
}

// checkTapeFolder checks that dir does not exist or holds only a tape, so that it can be
// replaced.
func checkTapeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	known := []string{tapeFile, ocispec.ImageIndexFile, ocispec.ImageLayoutFile, ocispec.ImageBlobsDir}
	for _, entry := range entries {
		if !slices.Contains(known, entry.Name()) {
			return fmt.Errorf("the folder of a tape is replaced when it is recorded, but %s is not part of a tape", filepath.Join(dir, entry.Name()))
		}
	}
	return nil
}

// close writes the tape, unless the test has failed.
func (r *tapeRecorder) close() {
	r.tape.tb.Helper()
	defer os.RemoveAll(r.stage.dir)
	r.mu.Lock()
	exchanges := slices.Clone(r.exchanges)
	bodies := make([]*receivedBody, len(exchanges))
	for i, x := range exchanges {
		bodies[i] = x.body
	}
	r.mu.Unlock()
	for _, body := range bodies {
		if body != nil {
			body.Close() // unless the client has
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, note := range r.notes {
		r.tape.tb.Logf("registrytest: %s", note)
	}
	if tb := r.tape.tb; tb.Failed() || tb.Skipped() {
		tb.Logf("registrytest: the tape %s is not written, since the test has failed or was skipped", r.dir)
		return
	}
	if err := r.write(); err != nil {
		r.tape.tb.Errorf("registrytest: the tape %s is not written: %v", r.dir, err)
	}
}

// write writes the tape to the stage, checks it, and puts it in place.
func (r *tapeRecorder) write() error {
	if r.err != nil {
		return r.err
	}
	var exchanges []*tapeExchange
	for _, x := range r.exchanges {
		if !x.ended {
			return fmt.Errorf("the request %s %s has not ended", x.request.Method, r.tape.mask.url(x.request.URL.String()))
		}
		e, err := r.tapeExchange(x)
		if err != nil {
			return err
		}
		exchanges = append(exchanges, e)
	}
	registry := tapeOrigin{r.tape.registry.scheme, r.tape.mask.host(r.tape.registry.host)}
	own := registry.String() + "/"
	slices.SortStableFunc(exchanges, func(a, b *tapeExchange) int {
		if own := cmp.Compare(boolInt(!strings.HasPrefix(a.request.url, own)), boolInt(!strings.HasPrefix(b.request.url, own))); own != 0 {
			return own
		}
		return cmp.Or(
			cmp.Compare(a.request.url, b.request.url),
			cmp.Compare(a.request.head(), b.request.head()),
			slices.Compare(a.request.body.lines(">"), b.request.body.lines(">")),
		)
	})
	var text strings.Builder
	fmt.Fprintf(&text, "%s\nregistry %s\n", tapeVersion, registry)
	keep := make(map[digest.Digest]bool)
	for _, e := range exchanges {
		e.write(&text)
		keep[e.body.digest] = true
	}
	for _, d := range r.uploaded {
		keep[d] = true
	}
	for _, m := range r.manifests {
		keep[m.digest] = true
	}
	index, err := r.index()
	if err != nil {
		return err
	}
	if err := r.stage.prune(keep); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		tapeFile:                []byte(text.String()),
		ocispec.ImageIndexFile:  index,
		ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}` + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(r.stage.dir, name), data, 0o644); err != nil {
			return err
		}
	}
	if err := r.search(); err != nil {
		return err
	}
	return r.stage.replace(r.dir)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// search fails if a file of the tape contains a secret.
func (r *tapeRecorder) search() error {
	secrets := r.tape.mask.search()
	return filepath.WalkDir(r.stage.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		kind, err := secrets.in(f)
		if err == nil && kind != "" {
			name, _ := filepath.Rel(r.stage.dir, path)
			err = fmt.Errorf("%s contains a secret: %s", filepath.ToSlash(name), kind)
		}
		return err
	})
}

// index returns index.json.
func (r *tapeRecorder) index() ([]byte, error) {
	r.addHeads()
	repos, hosts := make(map[string]bool), make(map[string]bool)
	for ref := range r.manifests {
		repos[ref.host+"/"+ref.repo] = true
		hosts[ref.host] = true
	}
	descriptors := make(map[digest.Digest]ocispec.Descriptor)
	children := make(map[digest.Digest]bool)
	tagged := make(map[digest.Digest]bool)
	names := make(map[string]digest.Digest)
	refs := slices.SortedFunc(maps.Keys(r.manifests), func(a, b manifestRef) int {
		return cmp.Or(cmp.Compare(r.tape.mask.host(a.host), r.tape.mask.host(b.host)), cmp.Compare(a.repo, b.repo), cmp.Compare(a.ref, b.ref))
	})
	for _, ref := range refs {
		m := r.manifests[ref]
		d, err := r.descriptor(m, children)
		if err != nil {
			return nil, err
		}
		descriptors[m.digest] = d
		if digest.Digest(ref.ref).Validate() == nil {
			continue
		}
		name := ref.ref
		if len(repos) > 1 {
			name = ref.repo + ":" + ref.ref
		}
		if len(hosts) > 1 {
			name = r.tape.mask.host(ref.host) + "/" + name
		}
		names[r.tape.mask.text(name)] = m.digest
		tagged[m.digest] = true
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		d := descriptors[names[name]]
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		index.Manifests = append(index.Manifests, d)
	}
	for _, d := range slices.Sorted(maps.Keys(descriptors)) {
		if !tagged[d] && !children[d] {
			index.Manifests = append(index.Manifests, descriptors[d])
		}
	}
	data, err := json.MarshalIndent(index, "", "  ")
	return append(data, '\n'), err
}

// addHeads adds the tags of manifests that were pulled by digest, after a HEAD request
// for the tag.
func (r *tapeRecorder) addHeads() {
	pulled := make(map[digest.Digest]taggedRecord)
	for _, m := range r.manifests {
		pulled[m.digest] = m
	}
	for ref, head := range r.heads {
		m, ok := pulled[head.digest]
		if _, known := r.manifests[ref]; ok && !known {
			r.manifests[ref] = m
		}
	}
}

// descriptor returns the descriptor of a manifest, and adds its children.
func (r *tapeRecorder) descriptor(m taggedRecord, children map[digest.Digest]bool) (ocispec.Descriptor, error) {
	data, err := os.ReadFile(r.stage.path(m.digest))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var doc struct {
		MediaType    string
		ArtifactType string
		Manifests    []struct{ Digest digest.Digest }
	}
	// Content that is not a manifest is recorded all the same.
	if json.Unmarshal(data, &doc) == nil {
		for _, child := range doc.Manifests {
			children[child.Digest] = true
		}
	}
	return ocispec.Descriptor{
		MediaType:    cmp.Or(m.mediaType, doc.MediaType),
		Digest:       m.digest,
		Size:         int64(len(data)),
		ArtifactType: doc.ArtifactType,
	}, nil
}

// prune removes all files except the blobs to keep.
func (s tapeStage) prune(keep map[digest.Digest]bool) error {
	return filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		algorithm := filepath.Base(filepath.Dir(path))
		if keep[digest.NewDigestFromEncoded(digest.Algorithm(algorithm), entry.Name())] {
			return nil
		}
		return os.Remove(path)
	})
}

// replace moves the stage to dir, instead of the tape there.
func (s tapeStage) replace(dir string) error {
	if err := checkTapeFolder(dir); err != nil {
		return err
	}
	for _, sub := range []string{ocispec.ImageBlobsDir, filepath.Join(ocispec.ImageBlobsDir, digest.SHA256.String())} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	old := s.dir + "-old"
	err := os.Rename(dir, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	replaced := err == nil
	if err := os.Rename(s.dir, dir); err != nil {
		if replaced {
			err = errors.Join(err, os.Rename(old, dir))
		}
		return err
	}
	return os.RemoveAll(old)
}
