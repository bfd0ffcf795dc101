// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"net/http"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestNextPage(t *testing.T) {
	for _, test := range []struct {
		links []string
		want  string
	}{
		{nil, ""},
		{[]string{`</v2/a/tags/list?last=b&n=2>; rel="next"`}, "last=b&n=2"},
		{[]string{`<https://elsewhere.test/x?last=b>; rel=next`}, "last=b"},
		{[]string{`</v2/a/tags/list?last=a>; rel="prev", </v2/a/tags/list?last=c>; rel="next"`}, "last=c"},
		{[]string{`</v2/a/tags/list?last=a>; rel="prev"`, `</v2/a/tags/list?last=c>; rel="next"`}, "last=c"},
		{[]string{`</v2/a/tags/list?last=a,b>; rel="next"`}, "last=a,b"},
		{[]string{`</v2/a/tags/list>; rel="next"`}, ""},
		{[]string{`rel="next"`}, ""},
		{[]string{`<:>; rel="next"`}, ""},
	} {
		got := nextPage(http.Header{"Link": test.links})
		qt.Check(t, qt.Equals(got, test.want), qt.Commentf("%q", test.links))
	}
}
