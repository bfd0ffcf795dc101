// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

const (
	typeImage      = "application/vnd.oci.image.manifest.v1+json"
	typeIndex      = "application/vnd.oci.image.index.v1+json"
	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
	typeSigned     = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// descriptor returns the JSON of a descriptor of data.
func descriptor(mediaType, data string) string {
	return fmt.Sprintf(`{"mediaType":%q,"size":%d,"digest":%q}`, mediaType, len(data), sha(data))
}

// image returns an image manifest with the config "{}" and the given layers.
func image(layers ...string) string {
	var list []string
	for _, l := range layers {
		list = append(list, descriptor("application/vnd.oci.image.layer.v1.tar", l))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`,
		typeImage, descriptor("application/vnd.oci.image.config.v1+json", "{}"), strings.Join(list, ","))
}

func TestManifestByTagAndDigest(t *testing.T) {
	h := registry.New()
	m := "{ \"any\": \"bytes\" }\r\n"
	got := map[string]string{
		"Content-Type": "application/vnd.example+json", "Content-Length": fmt.Sprint(len(m)),
		"Docker-Content-Digest": sha(m), "Etag": `"` + sha(m) + `"`,
	}
	put := map[string]string{"Location": "/v2/a/manifests/" + sha(m), "Docker-Content-Digest": sha(m), "OCI-Subject": "", "OCI-Tag": ""}
	byDigest := "/v2/a/manifests/" + sha(m)
	typed := map[string]string{"Content-Type": "application/vnd.example+json; charset=utf-8"}
	run(t, h, []call{
		{method: "PUT", url: "/v2/a/manifests/v1", header: typed, body: m, status: 201, wantHeader: put},
		{method: "PUT", url: byDigest, header: typed, body: m, status: 201, wantHeader: put},
		{url: "/v2/a/manifests/v1", status: 200, wantBody: m, wantHeader: got},
		{url: byDigest, status: 200, wantBody: m, wantHeader: got},
		{method: "HEAD", url: "/v2/a/manifests/v1", status: 200, wantHeader: got},
		{method: "HEAD", url: byDigest, status: 200, wantHeader: got},
		{name: "Accept has no effect", url: byDigest, header: map[string]string{"Accept": typeSchema1}, status: 200, wantBody: m, wantHeader: got},
		{name: "cached", url: "/v2/a/manifests/v1", header: map[string]string{"If-None-Match": got["Etag"]}, status: 304},

		{name: "wrong digest", method: "PUT", url: "/v2/a/manifests/" + otherDigest, body: m, status: 400, wantCode: "DIGEST_INVALID"},
		{url: "/v2/a/manifests/" + otherDigest, status: 404, wantCode: "MANIFEST_UNKNOWN"},
		{name: "malformed digest", method: "PUT", url: "/v2/a/manifests/sha256:1", body: m, status: 400, wantCode: "DIGEST_INVALID"},
		{name: "malformed tag", method: "PUT", url: "/v2/a/manifests/.v1", body: m, status: 400, wantCode: "NAME_INVALID"},
		{url: "/v2/a/manifests/.v1", status: 404, wantCode: "MANIFEST_UNKNOWN"},
		{name: "long tag", method: "PUT", url: "/v2/a/manifests/" + strings.Repeat("x", 129), body: m, status: 400},
		{method: "PUT", url: "/v2/a/manifests/" + strings.Repeat("x", 128), header: typed, body: m, status: 201},
		{name: "another algorithm", method: "PUT", url: "/v2/a/manifests/" + sha512(m), body: m, status: 201, wantHeader: map[string]string{"Docker-Content-Digest": sha512(m)}},
		{url: "/v2/a/manifests/" + sha512(m), status: 200, wantBody: m},
	})
}

func TestPushTags(t *testing.T) {
	h := registry.New()
	url := "/v2/a/manifests/" + sha("m")
	var tags []string
	for i := range 12 {
		tags = append(tags, fmt.Sprintf("v%02d", i))
	}
	run(t, h, []call{
		{method: "PUT", url: url + "?tag=" + strings.Join(tags, "&tag="), body: "m", status: 201, wantHeader: map[string]string{"OCI-Tag": strings.Join(tags, ", ")}},
		{url: "/v2/a/tags/list", status: 200, wantBody: `{"name":"a","tags":["` + strings.Join(tags, `","`) + `"]}`},
		{url: "/v2/a/manifests/v11", status: 200, wantBody: "m"},
		{name: "all tags or none", method: "PUT", url: url + "?tag=ok&tag=-bad", body: "m", status: 400, wantCode: "NAME_INVALID"},
		{url: "/v2/a/manifests/ok", status: 404},
		{name: "with another digest", method: "PUT", url: "/v2/a/manifests/" + sha512("n") + "?tag=v00&tag=v00", body: "n", status: 201, wantHeader: map[string]string{"OCI-Tag": "v00"}},
		{url: "/v2/a/manifests/v00", status: 200, wantBody: "n", wantHeader: map[string]string{"Docker-Content-Digest": sha512("n")}},
		{name: "tag requires a digest", method: "PUT", url: "/v2/a/manifests/v01?tag=other", body: "m", status: 201, wantHeader: map[string]string{"OCI-Tag": ""}},
		{url: "/v2/a/manifests/other", status: 404},
	})
}

func TestManifestMediaType(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body string
		status                  int
		want                    string
	}{
		{"from_the_request", "application/x", `{"mediaType":"application/y"}`, 201, "application/x"},
		{"parameters_are_dropped", "Application/X; charset=utf-8", "x", 201, "application/x"},
		{"malformed_parameters_too", "application/x; charset", "x", 201, "application/x"},
		{"from_the_body", "", `{"mediaType":"application/y"}`, 201, "application/y"},
		{"an_index_by_its_body", "", `{"mediaType":"` + typeIndex + `","manifests":[]}`, 201, typeIndex},
		{"neither", "", "{}", 201, "application/octet-stream"},
		{"malformed", "a b", "{}", 400, ""},
		{"malformed_in_the_body", "", `{"mediaType":"a b"}`, 400, ""},
		{"header_injection", "", `{"mediaType":"a/b\r\nX: y"}`, 400, ""},
		{"disagreement", typeIndex, `{"mediaType":"` + typeImage + `"}`, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := registry.New()
			put := call{method: "PUT", url: "/v2/a/manifests/tag", body: c.body, status: c.status, header: map[string]string{}}
			if c.contentType != "" {
				put.header["Content-Type"] = c.contentType
			}
			if c.status != 201 {
				put.wantCode = "MANIFEST_INVALID"
			}
			put.do(t, h)
			if c.status == 201 {
				call{url: "/v2/a/manifests/tag", status: 200, wantBody: c.body, wantHeader: map[string]string{"Content-Type": c.want}}.do(t, h)
			}
		})
	}
	// Content that a browser would render is sent with headers that make it harmless.
	h := registry.New()
	run(t, h, []call{
		pushManifest("a", "page", "text/html", "<script>alert(1)</script>"),
		{url: "/v2/a/manifests/page", status: 200, wantHeader: map[string]string{
			"Content-Type": "text/html", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox",
		}},
	})
}

func TestManifestReferences(t *testing.T) {
	list := func(mediaType string, children ...string) string {
		return `{"schemaVersion":2,"mediaType":"` + mediaType + `","manifests":[` + strings.Join(children, ",") + `]}`
	}
	foreign := func(mediaType string) string {
		return `{"config":` + descriptor("x/y", "{}") + `,"layers":[` + descriptor(mediaType, "absent") + `]}`
	}
	for _, c := range []struct {
		name, mediaType, body string
		missing               bool
	}{
		{"image", typeImage, image("layer"), false},
		{"no_layers", typeImage, image(), false},
		{"image_without_layer", typeImage, image("layer", "absent"), true},
		{"image_without_config", typeImage, `{"config":` + descriptor("x/y", "absent") + `,"layers":[]}`, true},
		{"null_layers", typeImage, `{"config":` + descriptor("x/y", "{}") + `,"layers":null}`, false},
		{"null_manifests", typeIndex, `{"manifests":null}`, false},
		{"non-distributable", typeImage, foreign("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), false},
		{"foreign", typeDocker, foreign("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), false},
		{"docker", typeDocker, foreign("application/vnd.docker.image.rootfs.diff.tar.gzip"), true},
		{"index", typeIndex, list(typeIndex, descriptor(typeImage, image("layer"))), false},
		{"index_without_child", typeIndex, list(typeIndex, descriptor(typeImage, "absent")), true},
		{"index_with_a_child_that_is_a_blob", typeIndex, list(typeIndex, descriptor(typeImage, "layer")), true},
		{"index_of_other_types", typeIndex, list(typeIndex, descriptor("text/plain", "absent")), false},
		{"docker_list", typeDockerList, list(typeDockerList, descriptor(typeDocker, "absent")), true},
		{"unknown_algorithm", typeImage, `{"layers":[],"config":{"digest":"blake3:` + strings.Repeat("a", 64) + `"}}`, true},
		{"subject", typeIndex, `{"manifests":[],"subject":` + descriptor(typeImage, "absent") + `}`, false},
		{"schema_1", typeSchema1, `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + sha("layer") + `"}]}`, false},
		{"schema_1_without_layer", typeSchema1, `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + sha("absent") + `"}]}`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, sparse := range []bool{false, true} {
				var opts []registry.Option
				if sparse {
					opts = append(opts, registry.AllowSparse())
				}
				h := registry.New(opts...)
				run(t, h, []call{pushBlob("a", "layer"), pushBlob("a", "{}"), pushBlob("other", "absent"), pushManifest("a", "child", typeImage, image("layer"))})
				push := pushManifest("a", "tag", c.mediaType, c.body)
				if c.missing && !sparse {
					push.status, push.wantCode = 404, "MANIFEST_BLOB_UNKNOWN"
				}
				push.do(t, h)
				call{url: "/v2/a/manifests/tag", status: map[bool]int{true: 404, false: 200}[c.missing && !sparse]}.do(t, h)
			}
		})
	}
}

func TestMissingReferencesAreListed(t *testing.T) {
	var layers []string
	for i := range 20 {
		layers = append(layers, fmt.Sprint(i))
	}
	push := pushManifest("a", "tag", typeImage, image(layers...))
	push.status, push.wantCode = 404, "MANIFEST_BLOB_UNKNOWN"
	w := push.do(t, registry.New())
	qt.Check(t, qt.Equals(strings.Count(w.Body.String(), "MANIFEST_BLOB_UNKNOWN"), 10))
}

func TestMalformedManifests(t *testing.T) {
	for _, c := range []struct{ name, mediaType, body string }{
		{"not_JSON", typeImage, "x"},
		{"empty", typeImage, ""},
		{"null", typeImage, "null"},
		{"a_list", typeIndex, "[]"},
		{"truncated", typeImage, `{"config":`},
		{"more_than_one_value", typeImage, `{}{}`},
		{"a_member_of_the_wrong_type", typeImage, `{"layers":{}}`},
		{"annotations_that_are_not_strings", typeImage, `{"annotations":{"a":1}}`},
		{"deep", typeImage, strings.Repeat(`{"a":`, 20_000)},
		{"no_digest", typeImage, `{"layers":[{}]}`},
		{"malformed_digest", typeImage, `{"layers":[{"digest":"sha256:x"}]}`},
		{"malformed_digest_of_the_config", typeImage, `{"config":{"digest":"../../x"}}`},
		{"malformed_digest_of_a_foreign_layer", typeImage, `{"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"x"}]}`},
		{"malformed_digest_of_a_child", typeIndex, `{"manifests":[{"mediaType":"` + typeImage + `","digest":"x"}]}`},
		{"malformed_digest_of_another_child", typeIndex, `{"manifests":[{"mediaType":"x/y","digest":"x"}]}`},
		{"malformed_digest_of_the_subject", typeImage, `{"subject":{"digest":"sha256:x"}}`},
		{"a_member_twice", typeImage, `{"layers":[],"layers":[]}`},
		{"a_member_in_another_case", typeImage, `{"Layers":[]}`},
		{"a_descriptor_with_two_digests", typeImage, `{"config":{"digest":"` + sha("x") + `","digest":"` + sha("y") + `"}}`},
		{"a_descriptor_with_a_digest_in_another_case", typeImage, `{"config":{"Digest":"` + sha("x") + `"}}`},
		{"a_descriptor_that_is_a_string", typeImage, `{"layers":["` + sha("x") + `"]}`},
		{"a_number_for_a_type", typeImage, `{"mediaType":1}`},
		{"not_UTF-8", typeImage, "{\"annotations\":{\"a\":\"\xff\"}}"},
		{"many_empty_layers", typeImage, `{"layers":[` + strings.Repeat("{},", 1_000_000) + `{}]}`},
		{"opaque_only_by_its_header", "application/octet-stream", `{"mediaType":"` + typeImage + `"}`},
		{"image_only_by_its_header", typeImage, `{"mediaType":"text/plain"}`},
		{"no_media_type", "image", `{}`},
		{"image_and_index", typeImage, `{"layers":[],"manifests":[]}`},
		{"index_and_image", typeIndex, `{"manifests":[],"layers":[]}`},
		{"index_and_config", typeIndex, `{"manifests":[],"config":{}}`},
		{"docker_image_and_list", typeDocker, `{"manifests":[]}`},
		{"docker_list_and_image", typeDockerList, `{"layers":[]}`},
		{"schema_1_and_2", typeSchema1, `{"layers":[]}`},
		{"schema_2_and_1", typeDocker, `{"fsLayers":[]}`},
		{"signed_without_signature", typeSigned, `{"fsLayers":[]}`},
		{"malformed_signature", typeSigned, `{"signatures":[{"protected":"e30="}],"x":1}x`},
		{"signature_past_the_end", typeSigned, `{"signatures":[{"protected":"` + base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":999,"formatTail":""}`)) + `"}]}`},
		{"signature_of_other_content", typeSigned, `{"fsLayers":[],"signatures":[{"protected":"` + base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":0,"formatTail":"`+base64.RawURLEncoding.EncodeToString([]byte("{}"))+`"}`)) + `"}]}`},
		{"signature_inside", typeSigned, `{"a":{"b":1,"signatures":1},"signatures":[{"protected":"` + base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":11,"formatTail":"fQ"}`)) + `"}]}`},
		{"signature_before_the_start", typeSigned, `{"signatures":[{"protected":"` + base64.RawURLEncoding.EncodeToString([]byte(`{"formatLength":-1,"formatTail":""}`)) + `"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := registry.New(registry.AllowSparse())
			push := pushManifest("a", "tag", c.mediaType, c.body)
			push.status, push.wantCode = 400, "MANIFEST_INVALID"
			push.do(t, h)
			call{url: "/v2/a/tags/list", status: 404}.do(t, h)
		})
	}
}

// TestSchema1 pushes a signed manifest: it is stored unchanged, and its digest is
// that of the signed payload.
func TestSchema1(t *testing.T) {
	payload := "{\n   \"schemaVersion\": 1,\n   \"fsLayers\": []\n}"
	length := len(payload) - len("\n}")
	protected := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil,
		`{"formatLength":%d,"formatTail":%q}`, length, base64.RawURLEncoding.EncodeToString([]byte("\n}"))))
	signed := payload[:length] + ",\n   \"signatures\": [\n {\"protected\": \"" + protected + "\"}]\n}"

	h := registry.New()
	run(t, h, []call{
		{method: "PUT", url: "/v2/a/manifests/tag", header: map[string]string{"Content-Type": typeSigned}, body: signed, status: 201, wantHeader: map[string]string{"Docker-Content-Digest": sha(payload)}},
		{url: "/v2/a/manifests/" + sha(payload), status: 200, wantBody: signed, wantHeader: map[string]string{"Content-Type": typeSigned, "Docker-Content-Digest": sha(payload)}},
		{url: "/v2/a/manifests/" + sha(signed), status: 404},
		{method: "PUT", url: "/v2/a/manifests/" + sha(payload), header: map[string]string{"Content-Type": typeSigned}, body: signed, status: 201},
		{method: "PUT", url: "/v2/a/manifests/" + sha(signed), header: map[string]string{"Content-Type": typeSigned}, body: signed, status: 400, wantCode: "DIGEST_INVALID"},
		{name: "unsigned, which would change the meaning of its digest", method: "PUT", url: "/v2/a/manifests/unsigned", header: map[string]string{"Content-Type": typeSchema1}, body: payload, status: 400, wantCode: "MANIFEST_INVALID"},
		{name: "unsigned", method: "PUT", url: "/v2/b/manifests/unsigned", header: map[string]string{"Content-Type": typeSchema1}, body: payload, status: 201, wantHeader: map[string]string{"Docker-Content-Digest": sha(payload)}},
	})
}

func TestManifestLimit(t *testing.T) {
	spaces := func(n int) string { return strings.Repeat(" ", n-len(`{"manifests":[]}`)) + `{"manifests":[]}` }
	too := func(n int) call {
		c := pushManifest("a", "tag", typeIndex, spaces(n))
		c.status, c.wantCode = 413, "SIZE_INVALID"
		return c
	}
	h := registry.New()
	run(t, h, []call{too(4<<20 + 1), pushManifest("a", "tag", typeIndex, spaces(4<<20))})
	h = registry.New(registry.WithLimits(registry.Limits{ManifestBytes: 20}))
	run(t, h, []call{too(21), pushManifest("a", "tag", typeIndex, spaces(20))})
}

func TestConditionalPut(t *testing.T) {
	const m1, m2 = "one", "two"
	etag := func(m string) string { return `"` + sha(m) + `"` }
	put := func(body string, status int, header ...string) call {
		return call{method: "PUT", url: "/v2/a/manifests/tag", body: body, status: status, header: map[string]string{header[0]: header[1]}}
	}
	is := func(m string) call { return call{url: "/v2/a/manifests/tag", status: 200, wantBody: m} }
	h := registry.New()
	run(t, h, []call{
		put(m1, 412, "If-Match", "*"),
		put(m1, 412, "If-Match", etag(m1)),
		{url: "/v2/a/tags/list", status: 404},
		put(m1, 201, "If-None-Match", "*"),
		put(m2, 412, "If-None-Match", "*"), is(m1),
		put(m2, 412, "If-Match", etag(m2)), is(m1),
		put(m2, 412, "If-Match", `W/`+etag(m1)), is(m1),
		put(m2, 412, "If-None-Match", `W/`+etag(m1)), is(m1),
		put(m2, 400, "If-Match", sha(m1)), is(m1),
		put(m2, 201, "If-Match", `"x", `+etag(m1)), is(m2),
		put(m1, 201, "If-Match", "*"), is(m1),
		put(m2, 201, "If-None-Match", etag(m2)), is(m2),
		{name: "if one tag may not move, none moves", method: "PUT", url: "/v2/a/manifests/" + sha(m1) + "?tag=new&tag=tag", body: m1, header: map[string]string{"If-None-Match": "*"}, status: 412},
		{url: "/v2/a/manifests/new", status: 404},
		{name: "an existing manifest", method: "PUT", url: "/v2/a/manifests/" + sha(m2), body: m2, header: map[string]string{"If-None-Match": "*"}, status: 412},
		{name: "a new manifest", method: "PUT", url: "/v2/a/manifests/" + sha("new"), body: "new", header: map[string]string{"If-None-Match": "*"}, status: 201},

		{method: "DELETE", url: "/v2/a/manifests/tag", header: map[string]string{"If-Match": etag(m1)}, status: 412},
		{method: "DELETE", url: "/v2/a/manifests/" + sha(m2), header: map[string]string{"If-Match": etag(m1)}, status: 412},
		is(m2),
		{name: "a condition on an absent manifest", method: "DELETE", url: "/v2/a/manifests/" + otherDigest, header: map[string]string{"If-Match": `"x"`}, status: 404, wantCode: "MANIFEST_UNKNOWN"},
		{method: "DELETE", url: "/v2/a/manifests/tag", header: map[string]string{"If-Match": "x"}, status: 400, wantCode: "UNSUPPORTED"},
		{method: "DELETE", url: "/v2/a/manifests/tag", header: map[string]string{"If-Match": etag(m2)}, status: 202},
	})
}

func TestDeleteManifest(t *testing.T) {
	h := registry.New()
	run(t, h, []call{
		pushManifest("a", "one", "text/plain", "m"),
		pushManifest("a", "two", "text/plain", "m"),
		pushManifest("a", "other", "text/plain", "o"),
		{name: "only a tag", method: "DELETE", url: "/v2/a/manifests/one", status: 202},
		{url: "/v2/a/manifests/one", status: 404},
		{url: "/v2/a/manifests/" + sha("m"), status: 200},
		{url: "/v2/a/manifests/two", status: 200},
		{name: "a manifest with its tags", method: "DELETE", url: "/v2/a/manifests/" + sha("m"), status: 202, wantHeader: map[string]string{"Docker-Content-Digest": sha("m")}},
		{url: "/v2/a/manifests/two", status: 404},
		{url: "/v2/a/manifests/" + sha("m"), status: 404},
		{url: "/v2/a/tags/list", status: 200, wantBody: `{"name":"a","tags":["other"]}`},
		{method: "DELETE", url: "/v2/a/manifests/" + sha("m"), status: 404, wantCode: "MANIFEST_UNKNOWN"},
		{name: "a moved tag survives its old manifest", method: "PUT", url: "/v2/a/manifests/other", body: "p", status: 201},
		{method: "DELETE", url: "/v2/a/manifests/" + sha("o"), status: 202},
		{url: "/v2/a/manifests/other", status: 200, wantBody: "p"},
	})
}

func TestPushManifestFunction(t *testing.T) {
	ctx := context.Background()
	store := new(registry.MemStore)
	push := func(repo string, p registry.ManifestPush) error {
		_, err := registry.PushManifest(ctx, store, repo, p)
		return err
	}
	index := []byte(`{"mediaType":"` + typeIndex + `","manifests":[` + descriptor(typeImage, "absent") + `]}`)
	qt.Check(t, qt.ErrorIs(push("A", registry.ManifestPush{}), error(registry.ErrNameInvalid)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{Tags: []string{"-"}}), error(registry.ErrNameInvalid)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{Digest: "x"}), error(registry.ErrDigestInvalid)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{Digest: otherDigest}), error(registry.ErrDigestInvalid)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{MediaType: typeIndex, Content: []byte("x")}), error(registry.ErrManifestInvalid)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{Content: index}), error(registry.ErrManifestBlobUnknown)))
	qt.Check(t, qt.ErrorIs(push("a", registry.ManifestPush{Content: []byte("x"), Tags: []string{"t"}, Allow: func(string, digest.Digest) error { return registry.ErrDenied }}), error(registry.ErrDenied)))
	_, err := store.GetManifest(ctx, "a", digest.FromBytes(index))
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))

	m, err := registry.PushManifest(ctx, store, "a", registry.ManifestPush{Content: index, Tags: []string{"t"}, Sparse: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m.Digest, digest.FromBytes(index)))
	qt.Check(t, qt.Equals(m.MediaType, typeIndex))
}

// TestReferences parses manifests for what they name.
func TestReferences(t *testing.T) {
	const layerType, foreignType = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.nondistributable.v1.tar"
	list := func(descriptors ...string) string { return "[" + strings.Join(descriptors, ",") + "]" }
	digests := func(content ...string) (all []digest.Digest) {
		for _, c := range content {
			all = append(all, digest.FromString(c))
		}
		slices.Sort(all)
		return all
	}
	for _, c := range []struct {
		name, mediaType, body string
		blobs, manifests      []digest.Digest
		subject               string
	}{
		{name: "image", mediaType: typeImage, body: `{"layers":` + list(descriptor(layerType, "l1"), descriptor(layerType, "l2")) + `,"config":` + descriptor("x/y", "c") + `}`, blobs: digests("c", "l1", "l2")},
		{name: "duplicates", mediaType: typeDocker, body: `{"config":` + descriptor("x/y", "c") + `,"layers":` + list(descriptor(layerType, "l"), descriptor(layerType, "c"), descriptor(layerType, "l")) + `}`, blobs: digests("c", "l")},
		{name: "nondistributable", mediaType: typeImage, body: `{"config":` + descriptor("x/y", "c") + `,"layers":` + list(descriptor(foreignType, "l")) + `}`, blobs: digests("c")},
		{name: "escaped", mediaType: typeImage, body: strings.ReplaceAll(`{"config":`+descriptor("x/y", "c")+`,"layers":null}`, "sha256:", `sha\u003256:`), blobs: digests("c")},
		{name: "index", mediaType: typeIndex, body: `{"manifests":` + list(descriptor(typeImage, "m1"), descriptor("x/y", "other"), descriptor(typeIndex, "m2"), descriptor(typeImage, "m1")) + `}`, manifests: digests("m1", "m2")},
		{name: "subject", body: `{"mediaType":"` + typeIndex + `","manifests":[],"subject":` + descriptor(typeImage, "s") + `}`, subject: "s"},
		{name: "schema_1", mediaType: typeSchema1, body: `{"fsLayers":[{"blobSum":"` + digest.FromString("l").String() + `"}],"subject":` + descriptor(typeImage, "s") + `}`, blobs: digests("l")},
		{name: "opaque", mediaType: "text/plain", body: `{"layers":` + list(descriptor(layerType, "l")) + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var subject digest.Digest
			if c.subject != "" {
				subject = digest.FromString(c.subject)
			}
			m, err := registry.ParseManifest(c.mediaType, []byte(c.body))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(m.Blobs, c.blobs))
			qt.Check(t, qt.DeepEquals(m.Manifests, c.manifests))
			qt.Check(t, qt.Equals(m.Subject, subject))
			checkReferences(t, m)
		})
	}
}

// checkReferences checks that EachReference finds in a manifest what ParseManifest has, and
// that bytes appended to its digests do not change the manifest.
func checkReferences(t *testing.T, m registry.Manifest) {
	t.Helper()
	content := string(m.Content)
	var blobs, manifests []digest.Digest
	subject, err := registry.EachReference(m.MediaType, m.Content,
		func(d []byte) { blobs = append(blobs, digest.Digest(append(d, "!"...)[:len(d)])) },
		func(d []byte) { manifests = append(manifests, digest.Digest(append(d, "!"...)[:len(d)])) })
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(subject, m.Subject))
	qt.Check(t, qt.Equals(string(m.Content), content))
	slices.Sort(blobs)
	slices.Sort(manifests)
	qt.Check(t, qt.DeepEquals(slices.Compact(blobs), m.Blobs))
	qt.Check(t, qt.DeepEquals(slices.Compact(manifests), m.Manifests))
}

// TestIncompleteManifests pushes manifests that lack members which their types
// require.
func TestIncompleteManifests(t *testing.T) {
	for _, c := range []struct {
		name, mediaType, body string
	}{
		{"empty_image", typeImage, `{}`},
		{"empty_index", typeIndex, `{}`},
		{"empty_docker_image", typeDocker, `{}`},
		{"empty_docker_list", typeDockerList, `{}`},
		{"empty_schema_1", typeSchema1, `{}`},
		{"image_without_layers", typeImage, `{"config":` + descriptor("x/y", "{}") + `}`},
		{"image_without_config", typeImage, `{"layers":[]}`},
		{"image_with_a_null_config", typeImage, `{"config":null,"layers":[]}`},
		{"referrer_without_config", typeImage, `{"subject":` + descriptor(typeImage, "x") + `}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			push := pushManifest("a", "tag", c.mediaType, c.body)
			push.do(t, registry.New(registry.AllowSparse()))
			push.status, push.wantCode = 400, "MANIFEST_INVALID"
			h := registry.New()
			run(t, h, []call{pushBlob("a", "{}"), push, {url: "/v2/a/tags/list", status: 200, wantBody: `{"name":"a","tags":[]}`}})
		})
	}
}
