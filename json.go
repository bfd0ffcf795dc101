// SPDX-License-Identifier: Apache-2.0

// Strict reading of JSON, member by member. But for jsonFault, the functions
// require valid JSON.

package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

var errJSONKind = errors.New("a value of the wrong type")

// eachMember calls read for each member of a JSON object. It rejects a known
// member that is duplicated or differs only in case: JSON parsers disagree on
// the meaning of such objects.
func eachMember(v []byte, read func(key, v []byte) error, known ...string) error {
	if v = trimSpace(v); v[0] != '{' {
		return errJSONKind
	}
	var seen uint // a bit for each known member
	for v = trimSpace(v[1:]); v[0] != '}'; {
		end := valueEnd(v)
		key, err := stringBytes(v[:end])
		if err != nil {
			return err
		}
		v = trimSpace(trimSpace(v[end:])[1:]) // skip the colon
		end = valueEnd(v)
		for i, name := range known {
			if !bytes.EqualFold([]byte(name), key) {
				continue
			}
			if name != string(key) {
				return fmt.Errorf("a member that differs from %s in case", name)
			}
			if seen&(1<<i) != 0 {
				return fmt.Errorf("two members %s", name)
			}
			seen |= 1 << i
		}
		if err := read(key, v[:end]); err != nil {
			return err
		}
		if v = trimSpace(v[end:]); v[0] == ',' {
			v = trimSpace(v[1:])
		}
	}
	return nil
}

// eachElement calls read for each element of a JSON array.
func eachElement(v []byte, read func(v []byte) error) error {
	if v = trimSpace(v); v[0] != '[' {
		return errJSONKind
	}
	for v = trimSpace(v[1:]); v[0] != ']'; {
		end := valueEnd(v)
		if err := read(v[:end]); err != nil {
			return err
		}
		if v = trimSpace(v[end:]); v[0] == ',' {
			v = trimSpace(v[1:])
		}
	}
	return nil
}

// stringValue returns a JSON string, "" for null.
func stringValue(v []byte) (string, error) {
	s, err := stringBytes(v)
	return string(s), err
}

// stringBytes is stringValue without a copy, unless something in it is escaped.
func stringBytes(v []byte) ([]byte, error) {
	switch {
	case v[0] == '"' && bytes.IndexByte(v, '\\') < 0:
		return v[1 : len(v)-1 : len(v)-1], nil // without capacity: an append must not change the document
	case v[0] == '"':
		var s string
		err := json.Unmarshal(v, &s)
		return []byte(s), err
	case string(v) == "null":
		return nil, nil
	}
	return nil, errJSONKind
}

// trimSpace returns v without leading space.
func trimSpace(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t' || v[0] == '\n' || v[0] == '\r') {
		v = v[1:]
	}
	return v
}

// valueEnd returns the length of the value at the beginning of v.
func valueEnd(v []byte) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			for i++; v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i // the end of a number or a word
			}
			continue
		default:
			if depth == 0 && i+1 < len(v) && (v[i+1] == '}' || v[i+1] == ']') {
				return i + 1 // likewise
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(v)
}

// jsonFault describes the fault of a document, without quoting it.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return errJSONKind.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "malformed JSON: it ends early"
	}
	return err.Error()
}
