// SPDX-License-Identifier: Apache-2.0

// The page as one file, with what it shows.

package inspect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A report has what the page would show, up to these limits.
const (
	maxReport          = 24 << 20 // bytes of data
	maxReportManifests = 1000
	maxReportLayers    = 100
)

// Fault is a fault that a test has prepared, for a report.
type Fault struct {
	// Rule describes the requests to which it applies.
	Rule string `json:"rule"`
	// Requests is the number of requests to which it was applied.
	Requests int `json:"requests"`
}

// reportData is the data of a report.
type reportData struct {
	Title   string                     `json:"title"`
	Faults  []Fault                    `json:"faults,omitempty"`
	Records []*record                  `json:"records"`
	API     map[string]json.RawMessage `json:"api"`
	More    bool                       `json:"more,omitempty"` // there is more than the report has
}

// WriteReport writes the page as one HTML file, which needs no server: with the recorded
// requests, the content of the store as far as the page shows it, and faults. It has the
// same protection against the content as the page.
func (i *Inspector) WriteReport(ctx context.Context, w io.Writer, title string, faults ...Fault) error {
	r := &reporter{i: i, ctx: ctx, data: reportData{Title: title, Faults: faults, API: make(map[string]json.RawMessage)}, left: maxReport}
	var newest uint64
	r.data.Records, newest, _ = i.timeline.since(0)
	r.data.More = newest > uint64(len(r.data.Records))
	if err := r.collect(); err != nil {
		return err
	}
	data, err := json.Marshal(r.data) // which escapes <, > and &
	if err != nil {
		return err
	}
	policy := fmt.Sprintf("default-src 'none'; script-src '%s'; style-src '%s'; img-src data:; base-uri 'none'; form-action 'none'", hashOf(script()), hashOf(style()))
	_, err = strings.NewReplacer(
		`<meta charset="utf-8">`, `<meta charset="utf-8">`+"\n"+`<meta http-equiv="Content-Security-Policy" content="`+policy+`">`,
		`<link rel="stylesheet" href="style.css">`, "<style>"+style()+"</style>",
		`<script src="script.js"></script>`, `<script type="application/json" id="report">`+string(data)+"</script>\n<script>"+script()+"</script>",
	).WriteString(w, page())
	return err
}

// hashOf returns the source expression that allows an inline script or style.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// response is a ResponseWriter that keeps what is written.
type response struct {
	bytes.Buffer
	header http.Header
	status int
}

func (r *response) Header() http.Header    { return r.header }
func (r *response) WriteHeader(status int) { r.status = status }

// reporter collects what the page may ask for.
type reporter struct {
	i    *Inspector
	ctx  context.Context
	data reportData
	left int

	manifests, layers int
}

// get adds the result of a request of the page, and returns it in result. Parameters are in
// the page's order.
func (r *reporter) get(path string, result any, params ...string) error {
	key := path
	for n := 0; n < len(params); n += 2 {
		if params[n+1] != "" {
			separator := "&"
			if key == path {
				separator = "?"
			}
			key += separator + params[n] + "=" + url.QueryEscape(params[n+1])
		}
	}
	if _, ok := r.data.API[key]; ok {
		return nil
	}
	w := &response{header: make(http.Header), status: http.StatusOK}
	req, err := http.NewRequestWithContext(r.ctx, http.MethodGet, Path+"api/"+key, nil)
	if err != nil {
		return err
	}
	r.i.ServeHTTP(w, req)
	body := bytes.TrimSpace(w.Bytes())
	if w.status != http.StatusOK {
		return nil // the page says that it is not part of the report
	}
	if r.left -= len(body); r.left < 0 {
		r.data.More = true
		return nil
	}
	r.data.API[key] = body
	return json.Unmarshal(body, result)
}

// collect follows the page's links.
func (r *reporter) collect() error {
	var ignored any
	for _, path := range []string{"requests", "findings", "stats", "shared"} {
		if err := r.get(path, &ignored); err != nil {
			return err
		}
	}
	return r.pages("repositories", nil, func(data json.RawMessage) error {
		var repo string
		if err := json.Unmarshal(data, &repo); err != nil {
			return err
		}
		return r.repository(repo)
	})
}

// pages adds all pages of a list, and calls do for each item.
func (r *reporter) pages(path string, params []string, do func(json.RawMessage) error) error {
	for after := ""; ; {
		var page list[json.RawMessage]
		if err := r.get(path, &page, append(params, "after", after)...); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := do(item); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

func (r *reporter) repository(repo string) error {
	var ignored any
	if err := r.get("usage", &ignored, "repo", repo); err != nil {
		return err
	}
	var u list[image]
	if err := r.get("untagged", &u, "repo", repo); err != nil {
		return err
	}
	for _, m := range u.Items {
		if err := r.manifest(repo, string(m.Digest)); err != nil {
			return err
		}
	}
	return r.pages("repository", []string{"repo", repo}, func(data json.RawMessage) error {
		var m image
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		if err := r.manifest(repo, m.Tag); err != nil {
			return err
		}
		return r.manifest(repo, string(m.Digest))
	})
}

// manifest adds a manifest, and the manifests and layers that it names.
func (r *reporter) manifest(repo, ref string) error {
	if r.manifests++; r.manifests > maxReportManifests || ref == "" {
		r.data.More = r.data.More || ref != ""
		return nil
	}
	before := len(r.data.API)
	var m opened
	if err := r.get("manifest", &m, "repo", repo, "ref", ref); err != nil || len(r.data.API) == before {
		return err
	}
	var doc document
	json.Unmarshal([]byte(m.Content), &doc)
	for _, child := range doc.Manifests {
		if err := r.manifest(repo, string(child.Digest)); err != nil {
			return err
		}
	}
	for _, layer := range doc.Layers {
		if err := r.layer(repo, layer.Digest); err != nil {
			return err
		}
	}
	return r.referrers(repo, m.Referrers)
}

func (r *reporter) referrers(repo string, all []*referrer) error {
	for _, found := range all {
		if err := r.manifest(repo, string(found.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// layer adds the first files of a layer.
func (r *reporter) layer(repo string, d digest.Digest) error {
	if r.layers++; r.layers > maxReportLayers {
		r.data.More = true
		return nil
	}
	var ignored any
	return r.get("layer", &ignored, "repo", repo, "digest", string(d))
}
