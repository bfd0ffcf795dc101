// SPDX-License-Identifier: Apache-2.0

// Requests for manifests, lists and referrers.

package storetest

// fooIndex is an index with three entries whose content is "foo". Only the last one
// is a manifest, which the repository must hold.
const fooIndex = `{
  "manifests": [
	  {
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/xml"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.manifest.v1+json"
		}
	]
}`

var manifestExchanges = []exchange{
	{
		name:     "get_missing_manifest",
		method:   "GET",
		url:      "/v2/foo/manifests/latest",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:   "head_missing_manifest",
		method: "HEAD",
		url:    "/v2/foo/manifests/latest",
		status: 404,
	},
	{
		name:      "get_missing_manifest_good_container",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/bar",
		status:    404,
		wantBody:  `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to registry"}]}`,
	},
	{
		name:      "head_missing_manifest_good_container",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "HEAD",
		url:       "/v2/foo/manifests/bar",
		status:    404,
	},
	{
		name:      "get_manifest_by_tag",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/latest",
		status:    200,
		wantBody:  "foo",
	},
	{
		name:      "get_manifest_by_digest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/" + fooDigest,
		status:    200,
		wantBody:  "foo",
	},
	{
		name:      "head_manifest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "HEAD",
		url:       "/v2/foo/manifests/latest",
		status:    200,
	},
	{
		name:   "create_manifest",
		method: "PUT",
		url:    "/v2/foo/manifests/latest",
		body:   "foo",
		status: 201,
	},
	{
		name:      "create_index",
		manifests: map[string]string{"foo/manifests/image": "foo"},
		method:    "PUT",
		url:       "/v2/foo/manifests/latest",
		header:    map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body:      fooIndex,
		status:    201,
	},
	{
		name:      "push_manifest_again_with_another_type",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "PUT",
		url:       "/v2/foo/manifests/new",
		header:    map[string]string{"Content-Type": "text/plain"},
		body:      "foo",
		status:    400,
		wantCode:  "MANIFEST_INVALID",
	},
	{
		name:     "create_index_missing_child",
		method:   "PUT",
		url:      "/v2/foo/manifests/latest",
		header:   map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body:     fooIndex,
		status:   404,
		wantCode: "MANIFEST_BLOB_UNKNOWN",
	},
	{
		name:     "bad_index_body",
		method:   "PUT",
		url:      "/v2/foo/manifests/latest",
		header:   map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body:     "foo",
		status:   400,
		wantCode: "MANIFEST_INVALID",
	},
	{
		name:     "bad_manifest_method",
		method:   "BAR",
		url:      "/v2/foo/manifests/latest",
		status:   405,
		wantBody: `{"errors":[{"code":"UNSUPPORTED","message":"method not allowed"}]}`,
	},
	{
		name:     "DELETE_Unknown_name",
		method:   "DELETE",
		url:      "/v2/test/honk/manifests/latest",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:      "DELETE_Unknown_manifest",
		manifests: map[string]string{"honk/manifests/latest": "honk"},
		method:    "DELETE",
		url:       "/v2/honk/manifests/tag-honk",
		status:    404,
		wantBody:  `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to registry: tag does not exist"}]}`,
	},
	{
		name:      "DELETE_existing_manifest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "DELETE",
		url:       "/v2/foo/manifests/latest",
		status:    202,
	},
	{
		name:      "DELETE_existing_manifest_by_digest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "DELETE",
		url:       "/v2/foo/manifests/" + fooDigest,
		status:    202,
	},
	{
		name:      "list_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?n=1000",
		status:    200,
		wantBody:  `{"name":"foo","tags":["latest","tag1"]}`,
	},
	{
		name:      "limit_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?n=1",
		status:    200,
		wantBody:  `{"name":"foo","tags":["latest"]}`,
	},
	{
		name:      "offset_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?last=latest",
		status:    200,
		wantBody:  `{"name":"foo","tags":["tag1"]}`,
	},
	{
		name:     "list_non_existing_tags",
		method:   "GET",
		url:      "/v2/foo/tags/list?n=1000",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:      "list_repos",
		manifests: map[string]string{"bar/manifests/latest": "bar", "foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/_catalog?n=1000",
		status:    200,
		wantBody:  `{"repositories":["bar","foo"]}`,
	},
	{
		name:      "fetch_references",
		manifests: map[string]string{"foo/manifests/image": "foo", "foo/manifests/points-to-image": `{"subject": {"digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}}`},
		method:    "GET",
		url:       "/v2/foo/referrers/" + fooDigest,
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:      "fetch_references_subject_pointing_elsewhere",
		manifests: map[string]string{"foo/manifests/image": "foo", "foo/manifests/points-to-image": `{"subject": {"digest": "sha256:788408b70bf9fd6e0c85c13f6bce031a5ff3d8d9dc9884a1e9a5da5400c3e381"}}`},
		method:    "GET",
		url:       "/v2/foo/referrers/" + fooDigest,
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:      "fetch_references_no_results",
		manifests: map[string]string{"foo/manifests/image": "foo"},
		method:    "GET",
		url:       "/v2/foo/referrers/" + fooDigest,
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:     "fetch_references_missing_repo",
		method:   "GET",
		url:      "/v2/does-not-exist/referrers/" + fooDigest,
		status:   200,
		wantBody: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:     "fetch_references_bad_target_tag_vs_digest",
		method:   "GET",
		url:      "/v2/foo/referrers/latest",
		status:   400,
		wantBody: `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:     "fetch_references_bad_method",
		method:   "POST",
		url:      "/v2/foo/referrers/" + fooDigest,
		status:   405,
		wantCode: "UNSUPPORTED",
	},
}
