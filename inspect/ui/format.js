// Numbers, times and names.

// hidden are the characters that are invisible, or change the direction of text.
const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|\udb40[\udc00-\udfff]/g;

function visible(text) {
	return String(text).replace(hidden, (c) => "\u27e8U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");
}

function bytes(n) {
	if (typeof n !== "number" || !Number.isFinite(n)) return visible(n);
	if (Math.abs(n) < 1000) return n + " B";
	let i = -1;
	do { n /= 1000; i++; } while (Math.abs(n) >= 999.5 && i < 5);
	return (Math.abs(n) < 9.95 ? n.toFixed(1) : n.toFixed(0)) + " " + ["kB", "MB", "GB", "TB", "PB", "EB"][i];
}

const count = (n, one, many) => n.toLocaleString("en") + " " + (n === 1 ? one : many || one + "s");

function duration(ms) {
	if (ms < 1) return ms.toFixed(2) + " ms";
	if (ms < 1000) return ms.toFixed(ms < 10 ? 1 : 0) + " ms";
	return (ms / 1000).toFixed(1) + " s";
}

function clock(ms) {
	const t = new Date(ms);
	const two = (n) => String(n).padStart(2, "0");
	return two(t.getHours()) + ":" + two(t.getMinutes()) + ":" + two(t.getSeconds()) + "." + String(t.getMilliseconds()).padStart(3, "0");
}

function date(value) {
	const t = new Date(value);
	return Number.isNaN(t.getTime()) ? visible(value) : t.toISOString().replace("T", " ").replace(/(\.000)?Z$/, " UTC");
}

const shortDigest = (d) => { d = visible(d); const i = d.indexOf(":"); return d.length > i + 20 ? d.slice(0, i + 13) + "\u2026" : d; };

const isDigest = (s) => typeof s === "string" && /^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,256}$/.test(s);

// mediaTypes are the types that have a name of their own.
const mediaTypes = [
	[/^application\/vnd\.oci\.image\.index\.v1\+json$/, "image index"],
	[/^application\/vnd\.docker\.distribution\.manifest\.list\.v2\+json$/, "image index (Docker)"],
	[/^application\/vnd\.oci\.image\.manifest\.v1\+json$/, "image manifest"],
	[/^application\/vnd\.docker\.distribution\.manifest\.v2\+json$/, "image manifest (Docker)"],
	[/^application\/vnd\.docker\.distribution\.manifest\.v1/, "image manifest (Docker schema 1)"],
	[/cosign.*sig|notary.*signature|simplesigning/i, "signature"],
	[/sigstore\.bundle/i, "signature (Sigstore bundle)"],
	[/spdx/i, "SBOM (SPDX)"],
	[/cyclonedx/i, "SBOM (CycloneDX)"],
	[/syft/i, "SBOM (Syft)"],
	[/in-toto|dsse|attestation/i, "attestation"],
	[/sarif/i, "scan result (SARIF)"],
	[/helm\.config|helm\.chart/i, "Helm chart"],
	[/wasm/i, "WebAssembly module"],
];

function kind(type) {
	const found = mediaTypes.find(([pattern]) => pattern.test(type || ""));
	return found ? found[1] : "";
}

// kindOf returns what a manifest is, for a person.
function kindOf(m) {
	return kind(m.artifact) || (m.artifact ? "artifact" : kind(m.mediaType)) || "manifest";
}

// prettyJSON returns JSON with indents, digests as links, and everything else as it is in the
// text: numbers keep their digits. It does not nest calls, and has a limit.
function prettyJSON(label, text, hrefOf) {
	const limit = 300000;
	const out = document.createDocumentFragment();
	let depth = 0, plain = "", at = 0, written = 0;
	const flush = () => { if (plain) { out.append(plain); plain = ""; } };
	const line = () => { plain += "\n" + "  ".repeat(Math.min(depth, 40)); };
	const token = /\s+|"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[{}[\],:]/ysu;
	let afterKey = false;
	while (at < text.length && written < limit) {
		token.lastIndex = at;
		const match = token.exec(text);
		if (!match) { // not JSON: the rest as it is
			plain += visible(text.slice(at, at + limit - written));
			at = text.length;
			break;
		}
		const t = match[0];
		at = token.lastIndex;
		written += t.length;
		if (t === "{" || t === "[") {
			const rest = /\s*[}\]]/y;
			rest.lastIndex = at;
			plain += t;
			if (!rest.test(text)) { depth++; line(); }
		} else if (t === "}" || t === "]") {
			if (!/[{[]$/.test(plain)) { depth = Math.max(0, depth - 1); line(); }
			plain += t;
		} else if (t === ",") {
			plain += t;
			line();
		} else if (t === ":") {
			plain += ": ";
		} else if (t[0] === "\"") {
			flush();
			const key = /\s*:/y;
			key.lastIndex = at;
			afterKey = key.test(text);
			const value = t.slice(1, -1);
			const href = !afterKey && isDigest(value) && hrefOf ? hrefOf(value) : "";
			out.append(href ? el("span", { class: "s" }, "\"", link(href, value), "\"") : el("span", { class: afterKey ? "k" : "s" }, visible(t)));
		} else if (!/^\s/.test(t)) {
			flush();
			out.append(el("span", { class: "n" }, t));
		}
	}
	if (at < text.length) plain += "\n\u2026 " + bytes(text.length - at) + " more";
	flush();
	return el("pre", { tabindex: "0", role: "region", "aria-label": label }, out);
}

// parseJSON returns an object, or an empty one.
function parseJSON(text) {
	try {
		const value = JSON.parse(text);
		return value && typeof value === "object" ? value : {};
	} catch {
		return {};
	}
}

const array = (value) => Array.isArray(value) ? value.filter((v) => v && typeof v === "object") : [];
const strings = (value) => Array.isArray(value) ? value.filter((v) => typeof v === "string") : typeof value === "string" ? [value] : [];

