// SPDX-License-Identifier: Apache-2.0

// Secrets in JSON.

package registrytest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"regexp"
	"slices"
)

var (
	// secretMember is the name of a member of JSON with a secret.
	secretMember = regexp.MustCompile(`(?i)^_?((.*[_-]?(token|secret|password|passwd|cookie))|auth|authorization|api_?key|private_?key|(secret)?_?access_?key|signature|credentials?)$`)
	// brokenMember is such a member in text that is not JSON, such as a truncated
	// response.
	brokenMember = regexp.MustCompile(`(?i)("[\w-]*(?:token|secret|password|passwd)"\s*:\s*")([^"]+)`)
	// timeMember is a member with a time, next to a secret, and idMember one with an
	// ID of the request.
	timeMember = regexp.MustCompile(`(?i)^(issued_?at|expires_?at|expires_?on|not_?before|expiration)$`)
	idMember   = regexp.MustCompile(`(?i)^(request_?id|trace_?id)$`)
)

// parseJSON returns the document in data, if it is an object or an array.
func parseJSON(data []byte) (doc any, ok bool) {
	trimmed := bytes.TrimSpace(data)
	if len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
		return nil, false
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if decoder.Decode(&doc) != nil {
		return nil, false
	}
	_, err := decoder.Token()
	return doc, err == io.EOF
}

// editJSON adds the secrets of a document, redacts them, removes the times next to them
// and IDs of requests, and reports whether it has changed anything.
func (m *masker) editJSON(doc any) (changed bool) {
	switch doc := doc.(type) {
	case map[string]any:
		secret := false
		for name, value := range doc {
			text, isText := value.(string)
			switch {
			case idMember.MatchString(name):
				delete(doc, name)
				changed = true
			case isText && text != "" && secretMember.MatchString(name):
				m.found(text, "the member "+name+" of a response")
				doc[name] = redacted
				secret, changed = true, true
			default:
				changed = m.editJSON(value) || changed
			}
		}
		maps.DeleteFunc(doc, func(name string, _ any) bool { return secret && timeMember.MatchString(name) })
	case []any:
		for _, value := range doc {
			changed = m.editJSON(value) || changed
		}
	}
	return changed
}

// isMasked reports whether a document contains nothing to replace.
func (m *masker) isMasked(doc any) bool {
	switch doc := doc.(type) {
	case string:
		return m.text(doc) == doc
	case map[string]any:
		for name, value := range doc {
			if m.text(name) != name || !m.isMasked(value) {
				return false
			}
		}
	case []any:
		return !slices.ContainsFunc(doc, func(value any) bool { return !m.isMasked(value) })
	}
	return true
}

// encodeJSON returns a document with as few escapes as possible.
func encodeJSON(doc any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(doc); err != nil {
		panic(err) // it was decoded from JSON
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
