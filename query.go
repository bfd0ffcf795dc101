// SPDX-License-Identifier: Apache-2.0

// The parameters of a request's query.

package registry

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// query is a parsed query. The strings that its methods return are copies: a
// store keeps some, and must not keep the entire query with them.
type query struct{ values url.Values }

func parseQuery(raw string) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, fmt.Errorf("%w: malformed query", ErrUnsupported)
	}
	return query{values}, nil
}

func (q query) has(key string) bool { return q.values.Has(key) }

func (q query) get(key string) string { return strings.Clone(q.values.Get(key)) }

// maxValues is the maximum number of values of a parameter. The spec has
// registries support at least 10 tags in a push (end-7b).
const maxValues = 100

func (q query) all(key string) ([]string, error) {
	values := slices.Clone(q.values[key])
	if len(values) > maxValues {
		return nil, fmt.Errorf("%w: %s has %d values, of which %d are allowed", errTooMany, key, len(values), maxValues)
	}
	for i, v := range values {
		values[i] = strings.Clone(v)
	}
	return values, nil
}
