// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// hostile are texts that must do nothing but be shown.
var hostile = []string{
	// markup
	`<script>window.pwned=1</script>`, `<img src=x onerror=window.pwned=1>`, `"><svg/onload=window.pwned=1>`, `<iframe srcdoc="<script>parent.pwned=1</script>">`,
	`</script><script>window.pwned=1</script>`, `<!--<script>window.pwned=1//-->`, `<style>*{display:none}</style>`, `<base href=//attacker.example/>`,
	`<meta http-equiv=refresh content="0;url=//attacker.example">`, `<a href=javascript:window.pwned=1 autofocus onfocus=window.pwned=1>x</a>`, `<template><script>window.pwned=1</script></template>`,
	`<form id=main><input name=getElementById>`, `<p id=report>{}</p>`, `<math><mtext><table><mglyph><style><img src onerror=window.pwned=1>`, `<noscript><p title="</noscript><img src onerror=window.pwned=1>">`,
	`' onclick='window.pwned=1`, `" autofocus onfocus="window.pwned=1`, `&lt;img src=x onerror=window.pwned=1&gt;`, `<x:script xmlns:x="http://www.w3.org/1999/xhtml">window.pwned=1</x:script>`,
	// URLs
	`javascript:window.pwned=1`, `JaVaScRiPt&colon;window.pwned=1`, `data:text/html,<script>parent.pwned=1</script>`, `vbscript:msgbox(1)`, `//attacker.example/x`, `https://attacker.example/?a=b#c`, `file:///etc/passwd`, `blob:null/x`,
	"\tjava\nscript:window.pwned=1", `#manifest?repo=x&ref=y`, `#__proto__`, `../../../etc/passwd`,
	// templates, shells, spreadsheets
	`{{constructor.constructor('window.pwned=1')()}}`, `${window.pwned=1}`, `#{window.pwned=1}`, `<%= window.pwned=1 %>`, "`;window.pwned=1;`", `$(touch /tmp/pwned)`, `'; rm -rf / #`, `=cmd|' /C calc'!A0`,
	// characters that change a display
	"\u202egpj.exe", "\u2066a\u2069\u2067b\u2069", "a\u200bb\u200c\u200d\u2060c", "\ufeffbom", "a\u2028b\u2029c", "\u061c\u200e\u200f", "soft\u00adhyphen", "tag\U000e0041\U000e007f", "fi\u034fller\u3164\u115f", "vari\ufe0fation\U000e0100",
	"\x1b[2J\x1b]0;pwned\x07", "nul\x00byte", "back\b\b\bspace", "cr\rlf\nnel\u0085", "zalgo" + strings.Repeat("\u0300", 200), "\U0001F1E6\u200d\U0001F468\u200d", "\ufff9a\ufffab\ufffb", "\ufffd\uffff",
	// lengths and names
	strings.Repeat("long", 20_000), strings.Repeat("\u202e", 2_000), strings.Repeat("a b ", 5_000), strings.Repeat("<b>", 5_000),
	`__proto__`, `constructor`, `prototype`, `toString`, `hasOwnProperty`, `length`, `undefined`, `null`, `NaN`, `-0`, `1e999`, `99999999999999999999999999`, `{}`, `[]`, ``, ` `, `"`, `\`, `%00`, `%`, "%ff\xff\xfe",
}

// shapes are manifests, or configs, in which members have other types than they should.
var shapes = []string{
	`null`, `[]`, `"a"`, `1`, `true`, `[null]`, `{}`, `{`, `{"a":`, `{"a" "b"}`, `'a'`, "\xff\xfe\x00", "\xef\xbb\xbf{}", `1e999`, `-1e-999`, `"\ud800"`, `"\u202e"`, "\"\u202e\"", `{"a":"\u0000\u2028"}`,
	`{"__proto__":{"pwned":1},"constructor":{"prototype":{"pwned":1}}}`, `{"toString":1,"valueOf":2,"toJSON":3,"then":4,"length":-1,"hasOwnProperty":null}`,
	strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), strings.Repeat(`{"a":`, 50_000) + "1" + strings.Repeat("}", 50_000), strings.Repeat("[", 100_000),
	`{"a":"` + strings.Repeat("x", 800_000) + `"}`, `{"a":"` + strings.Repeat("x", 800_000), `{"a":"` + strings.Repeat(`\\`, 400_000), `[` + strings.Repeat("1,", 400_000) + `1]`, `[` + strings.Repeat(`"",`, 200_000) + `1]`, strings.Repeat(" ", 800_000), `{` + strings.Repeat(" ", 800_000) + `}`, strings.Repeat("9", 800_000),
	every("null"), every("[]"), every("{}"), every("1"), every("-1e999"), every(`"<b>"`), every("true"), every("[null,[],{},1,true]"), every(`[{"a":null}]`), every(`{"toString":null,"valueOf":null}`), every(`[{"toString":null,"valueOf":null,"digest":{"toString":0},"mediaType":{"toString":0},"size":{"valueOf":0,"toString":0}}]`),
	`{"layers":[{"size":1e308,"digest":"a"},{"size":1e308},{"size":-1e308},{"size":"1e999"},{"size":9007199254740993},{"size":{}},{"annotations":{"org.opencontainers.image.title":{"toString":0}}}]}`,
	`{"manifests":[{"platform":{"os":{"toString":0}}},{"platform":{"os":["<b>"],"architecture":{}}},{"platform":"linux"},{"digest":"sha256:x"}]}`,
	`{"history":[{"created_by":{"toString":0}},{"created_by":["<b>"]},{"empty_layer":{}},null,1],"config":{"Env":[{"toString":0},1,null,"A"],"Labels":{"a":{"toString":0},"b":null,"c":[[[]]]},"Cmd":"sh","Entrypoint":{"0":"a"},"ExposedPorts":"80","Volumes":[{}],"User":{},"WorkingDir":[1],"StopSignal":9}}`,
	`{"created":"9999999999999999999999999","author":{"toString":0},"os":{"toString":0},"architecture":1,"variant":[]}`, `{"created":1e999}`, `{"created":{"toString":0}}`, `{"created":"0001-01-01T00:00:00Z"}`, `{"created":"+275760-09-13T00:00:00.001Z"}`,
	`{"annotations":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000) + `}`, `{"annotations":{"a":{"toJSON":1},"b":[1e999],"c":null,"__proto__":"d"}}`,
}

// every returns a document in which all known members have one value.
func every(value string) string {
	var b strings.Builder
	b.WriteString("{")
	for _, name := range []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "history", "rootfs", "created", "author", "os", "architecture", "variant"} {
		fmt.Fprintf(&b, "%q:%s,", name, value)
	}
	return b.String() + `"last":` + value + "}"
}

// pusher pushes what no client would.
type pusher struct {
	t    *testing.T
	base string
}

// send sends a request, and returns its status.
func (p pusher) send(method, path, mediaType string, content []byte, header http.Header) int {
	p.t.Helper()
	req, err := http.NewRequest(method, p.base+path, bytes.NewReader(content))
	qt.Assert(p.t, qt.IsNil(err))
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultTransport.RoundTrip(req)
	qt.Assert(p.t, qt.IsNil(err))
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}

func (p pusher) blob(repo string, content []byte) map[string]any {
	p.t.Helper()
	d := digest.FromBytes(content)
	qt.Assert(p.t, qt.Equals(p.send("POST", "/v2/"+repo+"/blobs/uploads/?digest="+url.QueryEscape(string(d)), "application/octet-stream", content, nil), 201))
	return map[string]any{"mediaType": "application/octet-stream", "digest": d, "size": len(content)}
}

func (p pusher) json(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	qt.Assert(p.t, qt.IsNil(e.Encode(v)))
	return b.Bytes()
}

// image pushes an image that has a text wherever it may.
func (p pusher) image(repo, tag, text string) {
	p.t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	name := strings.ReplaceAll(text, "\x00", "\u2400")
	for _, h := range []*tar.Header{
		{Name: "dir/" + name, Size: int64(len(text))},
		{Name: "link", Linkname: name, Typeflag: tar.TypeSymlink},
		{Name: "dir/.wh." + name, Size: 1},
		{Name: name + "/", Typeflag: tar.TypeDir},
	} {
		if w.WriteHeader(h) == nil { // not each name fits
			io.WriteString(w, text[:min(int64(len(text)), h.Size)])
		}
	}
	w.Close()
	l := p.blob(repo, archive.Bytes())
	l["annotations"] = map[string]string{"org.opencontainers.image.title": text, text: text}
	config := p.blob(repo, p.json(map[string]any{
		"created": text, "author": text, "architecture": text, "os": text, "variant": text, text: text,
		"config": map[string]any{
			"Env": []string{text, "A=" + text}, "Cmd": []string{text}, "Entrypoint": []string{text, text}, "Labels": map[string]string{text: text},
			"User": text, "WorkingDir": text, "StopSignal": text, "ExposedPorts": map[string]any{text: 1}, "Volumes": map[string]any{text: 1},
		},
		"history": []any{map[string]any{"created_by": text, "comment": text}, map[string]any{"created_by": text, "empty_layer": true}},
	}))
	config["mediaType"] = "application/vnd.oci.image.config.v1+json"
	content := p.json(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": text, "config": config, "layers": []any{l},
		"annotations": map[string]string{text: text, "a": text},
	})
	if status := p.send("PUT", "/v2/"+repo+"/manifests/"+tag, "application/vnd.oci.image.manifest.v1+json", content, nil); status != 201 {
		// An artifact type that is none, or a member twice: of another type anything is taken.
		content = bytes.Replace(content, []byte("oci.image.manifest"), []byte("example.manifest"), 1)
		qt.Assert(p.t, qt.Equals(p.send("PUT", "/v2/"+repo+"/manifests/"+tag, "application/vnd.example.manifest.v1+json", content, nil), 201))
	}
}

// checkDOM is a script that returns what hostile text has done to the page.
const checkDOM = `(() => {
	const found = [];
	const raw = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/u;
	const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT | NodeFilter.SHOW_COMMENT);
	for (let n = walker.nextNode(); n; n = walker.nextNode()) {
		if (n.nodeType !== 1) {
			const m = raw.exec(n.data);
			if (m) found.push("raw U+" + m[0].codePointAt(0).toString(16) + " in <" + n.parentNode.tagName + ">: " + n.data.slice(0, 100));
			continue;
		}
		for (const a of n.attributes) {
			if (/^on|^srcdoc$|^style$/i.test(a.name)) found.push("attribute " + a.name);
			if (/^(href|src|action|xlink:href)$/.test(a.name) && !/^(#|style\.css$|script\.js$|data:,$)/.test(a.value)) found.push(a.name + "=" + a.value.slice(0, 100));
			if (raw.test(a.value) && n.tagName !== "INPUT") found.push("raw character in " + a.name);
			if (/NaN|Infinity/.test(a.value) && n.namespaceURI.endsWith("svg")) found.push(n.tagName + " " + a.name + "=" + a.value);
		}
	}
	for (const e of document.querySelectorAll("script:not([src='script.js']),style,img,iframe,object,embed,form,base,template,math,audio,video,link:not([href='style.css']):not([rel=icon])")) found.push("element " + e.tagName);
	if (document.title.match(raw)) found.push("raw character in the title");
	if ("pwned" in window || "pwned" in {}) found.push("pwned");
	const globals = Object.getOwnPropertyNames(window).length + Object.getOwnPropertyNames(Object.prototype).length + Object.getOwnPropertyNames(Array.prototype).length;
	window.name = window.name || String(globals);
	if (window.name !== String(globals)) found.push("globals have changed");
	if (document.querySelectorAll("#main").length !== 1) found.push("not one #main");
	return found;
})()`

// open opens a view, waits until it is complete, and checks it.
func (b *browser) open(hash, ready string) {
	b.t.Helper()
	var found []string
	b.do(
		chromedp.Evaluate(`document.getElementById("main").replaceChildren(); location.hash = `+quote(hash), nil),
		chromedp.WaitReady(ready),
		chromedp.Evaluate(checkDOM, &found),
	)
	for _, text := range found {
		b.t.Errorf("%.200s: %s", hash, text)
	}
}

// openPage opens the page.
func (b *browser) openPage(addr string) {
	b.do(chromedp.Navigate("http://"+addr+"/inspect/#pictures"), chromedp.WaitReady("#state.live"), chromedp.WaitReady("#main h2"))
}

func hash(view string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return "#" + view + "?" + q.Encode()
}

// TestHostileTexts shows images full of hostile text in each view, and requests with it.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	s := berth.Serve(t)
	p := pusher{t, "http://" + s.Addr}
	for n, text := range hostile {
		p.image("hostile", fmt.Sprint("v", n), text)
	}
	b := newBrowser(t)
	b.openPage(s.Addr)
	for n := range hostile {
		tag := fmt.Sprint("v", n)
		b.open(hash("manifest", "repo", "hostile", "ref", tag), "#delete")
		var layer string
		b.do(chromedp.Evaluate(`(document.querySelector('td a[href^="#layer"]') || {hash: ""}).hash`, &layer))
		qt.Assert(t, qt.Not(qt.Equals(layer, "")), qt.Commentf(tag))
		b.open(layer, "#main td, #main .empty, #main .notice")
		b.do(chromedp.Evaluate(`(document.querySelector("td button.plain") || document.createElement("b")).click()`, nil))
		var found []string
		b.do(chromedp.Poll(`!document.querySelector("td button.plain") || document.querySelector("#dialog pre, #dialog .notice")`, nil), chromedp.Evaluate(checkDOM, &found), chromedp.Evaluate(`document.getElementById("dialog").close()`, nil))
		for _, problem := range found {
			t.Errorf("a file in %s: %s", tag, problem)
		}
	}
	b.open("#repositories", ".names a")
	b.open(hash("repository", "repo", "hostile"), "#main td")
	b.do(chromedp.Click("#untagged"), chromedp.WaitReady("#untagged:not([disabled]), #main h2 ~ div p"))
	b.open("#pictures?again", "#main table")
}

// TestHostileShapes shows manifests and configs whose members have other types than usual.
func TestHostileShapes(t *testing.T) {
	t.Parallel()
	s := berth.Serve(t)
	p := pusher{t, "http://" + s.Addr}
	b := newBrowser(t)
	b.openPage(s.Addr)
	for n, shape := range shapes {
		tag := fmt.Sprint("v", n)
		qt.Assert(t, qt.Equals(p.send("PUT", "/v2/shapes/manifests/"+tag, "application/vnd.example+json", []byte(shape), nil), 201))
		config := p.blob("configs", []byte(shape))
		config["mediaType"] = "application/vnd.oci.image.config.v1+json"
		content := p.json(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{}})
		qt.Assert(t, qt.Equals(p.send("PUT", "/v2/configs/manifests/"+tag, "application/vnd.oci.image.manifest.v1+json", content, nil), 201))
		for _, repo := range []string{"shapes", "configs"} {
			b.open(hash("manifest", "repo", repo, "ref", tag), "#delete, #main [role=alert]")
			var failure string
			b.do(chromedp.Evaluate(`(document.querySelector("#main [role=alert]") || {textContent: ""}).textContent`, &failure))
			if failure != "" {
				t.Errorf("%s %.60q: %s", repo, shape, failure)
			}
		}
	}
	b.open(hash("repository", "repo", "shapes"), "#main td")
}

// TestHostileNames shows repositories and tags with names that are special in JavaScript, and
// follows links to views that do not exist.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := berth.Serve(t)
	p := pusher{t, "http://" + s.Addr}
	repos := []string{"constructor", "prototype", "a/constructor/b", "tostring", "undefined", "null", "nan", "javascript", "a__b/c--d/e.f", strings.Repeat("a/", 127) + "b", strings.Repeat("a", 255), "0", "1e999", "script", "report", "main"}
	tags := []string{"__proto__", "constructor", "toString", "_", "0", "-1"[1:], "NaN", "undefined", strings.Repeat("T", 128), "1e999", "hasOwnProperty"}
	for _, repo := range repos {
		for _, tag := range tags {
			if repo == repos[0] || tag == tags[0] {
				p.image(repo, tag, "text")
			}
		}
	}
	b := newBrowser(t)
	b.openPage(s.Addr)
	b.open("#repositories", ".names a")
	for _, repo := range repos {
		b.open(hash("repository", "repo", repo), "#main td")
		b.open(hash("manifest", "repo", repo, "ref", tags[0]), "#delete")
	}
	for _, tag := range tags {
		b.open(hash("manifest", "repo", repos[0], "ref", tag), "#delete")
	}
	for _, view := range []string{"#constructor", "#__proto__", "#toString", "#timeline?__proto__=1&constructor=2", "#hasOwnProperty?x", "#timeline?op=constructor&status=toString&q=%00%F0", "#%", "#?", "##", "#timeline?%E0%A4%A"} {
		b.open("#repositories", ".names a")
		b.open(view, "#filter-q")
		var title string
		b.do(chromedp.Title(&title))
		qt.Check(t, qt.Equals(title, "Timeline · Berth"), qt.Commentf(view))
	}
}

// TestHostileRequests shows requests with hostile text in everything that a client chooses.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	s := berth.Serve(t)
	p := pusher{t, "http://" + s.Addr}
	for _, text := range hostile {
		line := strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return -1
			}
			return r
		}, text)
		p.send("GET", "/v2/a/tags/list?n=1&last="+url.QueryEscape(text)+"&"+url.QueryEscape(text)+"=1", "text/plain", nil, http.Header{
			"User-Agent": {line}, "Accept": {line}, "X-Request-Id": {line}, "X-Forwarded-For": {line}, "Origin": nil, "Via": {line},
		})
		p.send("GET", "/v2/"+url.PathEscape(text)+"/manifests/"+url.PathEscape(text), "text/plain", nil, http.Header{"User-Agent": {line}})
		p.send("PUT", "/v2/a/manifests/v1", line, []byte("{}"), nil)
	}
	for _, method := range []string{"__proto__", "constructor", "TRACE", "X!#$%&'*+-.^_`|~"} {
		p.send(method, "/v2/", "text/plain", nil, nil)
	}
	var last int
	b := newBrowser(t)
	b.openPage(s.Addr)
	b.open("#timeline", ".group")
	b.do(
		chromedp.WaitReady(".rows li"), // it got all of them with the first message
		chromedp.Evaluate(`Math.max(...[...document.querySelectorAll(".rows button")].map((b) => Number(b.dataset.id)))`, &last),
	)
	qt.Assert(t, qt.IsTrue(last > 2*len(hostile)), qt.Commentf("%d", last))
	var found []string
	b.do(chromedp.Evaluate(checkDOM, &found))
	for id := last; id > 0; id -= 4 { // also each third kind of request
		var more []string
		b.do(
			chromedp.Evaluate(fmt.Sprintf(`location.hash = "#timeline?open=%d"`, id), nil),
			chromedp.WaitReady(fmt.Sprintf(`#dialog[data-open="%d"] #curl`, id)),
			chromedp.Evaluate(checkDOM, &more),
			chromedp.Evaluate(`document.getElementById("dialog").close()`, nil),
			chromedp.Poll(`!location.hash.includes("open=")`, nil),
		)
		found = append(found, more...)
	}
	for _, text := range found {
		t.Error(text)
	}
	b.do(chromedp.Click("#lint"), chromedp.WaitReady("#lint:not([disabled])"), chromedp.Evaluate(checkDOM, &found))
	for _, text := range found {
		t.Error(text)
	}
}
