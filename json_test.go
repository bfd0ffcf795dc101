// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"
)

// FuzzJSON compares eachMember and eachElement with encoding/json, for valid
// JSON.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"a":1}`, ` { "a" : [ 1 , "]" , {"b\"}":null} ] , "c":-1.5e3 } `, `[true,false,null,0]`, `{"\u0061":"\\","b":"\""}`, `[[[]],{}]`, `"x"`, `12`, `{"a":{"a":{"a":"}"}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if !utf8.Valid(b) || !json.Valid(b) {
			return
		}
		var want map[string]json.RawMessage
		got := make(map[string]json.RawMessage)
		err := eachMember(b, func(key, v []byte) error {
			got[string(key)] = v
			return nil
		})
		if wantErr := json.Unmarshal(b, &want); (err == nil) != (wantErr == nil && want != nil) {
			t.Fatalf("%s: %v, %v", b, err, wantErr)
		}
		if err == nil {
			qt.Check(t, qt.DeepEquals(got, want))
		}

		var wantList []json.RawMessage
		gotList := []json.RawMessage{}
		err = eachElement(b, func(v []byte) error {
			gotList = append(gotList, v)
			return nil
		})
		if wantErr := json.Unmarshal(b, &wantList); (err == nil) != (wantErr == nil && wantList != nil) {
			t.Fatalf("%s: %v, %v", b, err, wantErr)
		}
		if err == nil {
			qt.Check(t, qt.DeepEquals(gotList, wantList))
		}

		var wantText string
		s, err := stringValue(trimSpace(b)[:valueEnd(trimSpace(b))])
		if wantErr := json.Unmarshal(b, &wantText); (err == nil) != (wantErr == nil) || s != wantText {
			t.Fatalf("%s: %q %v, want %q %v", b, s, err, wantText, wantErr)
		}
	})
}
