// SPDX-License-Identifier: Apache-2.0

// The keys of YAML files.

package main

import (
	"encoding"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// members returns the keys and values of a mapping.
func members(mapping *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		for i := 0; i+1 < len(mapping.Content); i += 2 {
			if !yield(mapping.Content[i], mapping.Content[i+1]) {
				return
			}
		}
	}
}

// checkKeys checks that the mappings in node, which is decoded into target, have only
// keys that are fields there. If not, it returns the key's node, too.
func checkKeys(node *yaml.Node, target any) (*yaml.Node, error) {
	return checkType(node, reflect.TypeOf(target).Elem())
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

func checkType(node *yaml.Node, t reflect.Type) (*yaml.Node, error) {
	if reflect.PointerTo(t).Implements(textType) {
		return nil, nil
	}
	switch {
	case t.Kind() == reflect.Pointer:
		return checkType(node, t.Elem())
	case t.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		for _, item := range node.Content {
			if at, err := checkType(item, t.Elem()); err != nil {
				return at, err
			}
		}
	case t.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		known := fieldNames(reflect.Zero(t).Interface())
		for key, value := range members(node) {
			i := slices.Index(known, key.Value)
			if i < 0 {
				return key, unknownKey(key.Value, known)
			}
			if at, err := checkType(value, t.Field(i).Type); err != nil {
				return at, err
			}
		}
	}
	return nil, nil
}

// fieldNames returns the keys of a struct's fields.
func fieldNames(v any) []string {
	t := reflect.TypeOf(v)
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return names
}

func unknownKey(name string, known []string) error {
	return fmt.Errorf("unknown key %q%s", name, didYouMean(name, known))
}

// didYouMean returns a question with the nearest of the known names, "" if none is near.
func didYouMean(name string, known []string) string {
	if found := nearest(name, known); found != "" {
		return fmt.Sprintf(": did you mean %q?", found)
	}
	return ""
}

// nearest returns the known name that is most like name, "" if none is.
func nearest(name string, known []string) string {
	found, least := "", len(name)/2+1
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least {
			found, least = k, d
		}
	}
	return found
}

// distance returns the Levenshtein distance of two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
