// SPDX-License-Identifier: Apache-2.0

// The check of the objects that remain after clients have stopped and GC has run:
// each can be reached, and each that must be there is.

package bucket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// leftovers is the content of a bucket, sorted by its meaning.
type leftovers struct {
	objects  map[string][]byte
	expected map[string]bool // keys that live registers need
	subjects map[string]bool // the prefixes of lists of referrers that are not empty
	repos    map[string]bool // with content
	errs     []string
}

func (l *leftovers) errorf(format string, args ...any) {
	l.errs = append(l.errs, fmt.Sprintf(format, args...))
}

// isTombstone reports whether a register is deleted: its first line names fewer
// writes.
func isTombstone(data []byte) bool {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return len(bytes.Fields(line)) == 8
}

// registerData returns the data of a register, which follows the first line.
func registerData(data []byte) []byte {
	_, data, _ = bytes.Cut(data, []byte("\n"))
	return data
}

// checkLeftovers returns what is wrong with the objects in a bucket. A deleted
// register may stay only if the bucket has no conditional deletes.
func checkLeftovers(objects map[string][]byte, condDelete bool) []string {
	l := &leftovers{objects, make(map[string]bool), make(map[string]bool), make(map[string]bool), nil}
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		data := objects[key]
		if !isRegister(key) {
			continue
		}
		if isTombstone(data) {
			if condDelete {
				l.errorf("a deleted register remains: %s", key)
			}
			continue
		}
		l.register(key, registerData(data))
	}
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		// The mark stays of data that was linked just when GC condemned it.
		ofLinked := l.expected[strings.Replace(key, "/condemned/", "/data/", 1)]
		if !isRegister(key) && !l.expected[key] && !l.isCache(key) && !ofLinked {
			l.errorf("nothing needs %s", key)
		}
		if strings.HasPrefix(key, "names/") && !isTombstone(objects[key]) {
			if repo := unflatten(strings.TrimPrefix(key, "names/")); !l.repos[repo] {
				l.errorf("%s is in the catalog, and has no content", repo)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(l.expected)) {
		if _, ok := objects[key]; !ok {
			l.errorf("%s is missing", key)
		}
	}
	for _, repo := range slices.Sorted(maps.Keys(l.repos)) {
		if data, ok := objects["names/"+flatten(repo)]; !ok || isTombstone(data) {
			l.errorf("%s is not in the catalog", repo)
		}
	}
	return l.errs
}

func flatten(repo string) string {
	return strings.NewReplacer("-", "!", ".", "-", "/", ".").Replace(repo)
}

func unflatten(name string) string {
	return strings.NewReplacer("!", "-", "-", ".", ".", "/").Replace(name)
}

// isRegister reports whether a key is that of an object with a changing value.
func isRegister(key string) bool {
	_, kind, _ := splitRepoKey(key)
	return strings.HasPrefix(key, "names/") || kind == "blobs" || kind == "manifests" || kind == "tags"
}

// splitRepoKey splits repos/<repo>/_<kind>/<name>.
func splitRepoKey(key string) (repo, kind, name string) {
	rest, ok := strings.CutPrefix(key, "repos/")
	if !ok {
		return "", "", ""
	}
	repo, rest, _ = strings.Cut(rest, "/_")
	kind, name, _ = strings.Cut(rest, "/")
	return repo, kind, name
}

// register collects the keys that a live register needs.
func (l *leftovers) register(key string, data []byte) {
	repo, kind, name := splitRepoKey(key)
	switch kind {
	case "blobs":
		l.repos[repo] = true
		var link struct{ ID, Data string }
		if err := json.Unmarshal(data, &link); err != nil || link.ID == "" || link.Data == "" {
			l.errorf("%s: malformed: %s", key, data)
			return
		}
		l.expected["blobs/"+name+"/data/"+link.Data] = true
		l.expected["blobs/"+name+"/links/"+link.Data+"/"+link.ID+"/"+repo] = true
	case "manifests":
		l.repos[repo] = true
		line, content, _ := bytes.Cut(data, []byte("\n"))
		var header struct{ Incarnation string }
		if err := json.Unmarshal(line, &header); err != nil || header.Incarnation == "" {
			l.errorf("%s: malformed: %s", key, line)
			return
		}
		var doc struct {
			Subject struct{ Digest string }
		}
		if json.Unmarshal(content, &doc) == nil && doc.Subject.Digest != "" {
			subject := strings.Replace(doc.Subject.Digest, ":", "/", 1)
			l.expected["repos/"+repo+"/_referrers/"+subject+"/"+name+"/"+header.Incarnation] = true
			l.subjects[repo+" "+subject] = true
		}
	case "tags":
		words := strings.Fields(string(data))
		if len(words) != 3 {
			l.errorf("%s: malformed: %s", key, data)
			return
		}
		d := strings.Replace(words[0], ":", "/", 1)
		// Each write that has pointed the tag there has a hint.
		found := false
		for hint := range l.objects {
			if strings.HasPrefix(hint, "repos/"+repo+"/_tagged/"+d+"/"+words[1]+"/") && strings.HasSuffix(hint, "/"+name) {
				l.expected[hint], found = true, true
			}
		}
		if !found {
			l.errorf("%s has no hint", key)
		}
		manifest := registerData(l.objects["repos/"+repo+"/_manifests/"+d])
		line, _, _ := bytes.Cut(manifest, []byte("\n"))
		var header struct{ Incarnation string }
		if json.Unmarshal(line, &header) != nil || header.Incarnation != words[1] {
			l.errorf("%s points at a manifest that is deleted: %s", key, data)
		}
	}
}

// isCache reports whether a key is that of a cache whose source is not empty.
func (l *leftovers) isCache(key string) bool {
	repo, kind, name := splitRepoKey(key)
	if kind != "packs" {
		return false
	}
	for subject := range l.subjects {
		if of, ok := strings.CutPrefix(subject, repo+" "); ok && strings.HasPrefix(name, of) {
			return true
		}
	}
	return false
}
