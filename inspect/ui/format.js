// Numbers, times and names.

// hidden are the characters that are invisible, or change the direction of text.
const hidden = /[^\P{Cc}\t\n]|[\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

// plain returns a value from JSON as text. String throws for some objects.
function plain(value) {
	if (typeof value !== "object" || value === null) return String(value);
	try { return JSON.stringify(value); } catch { return "\u2026"; } // it is nested too deeply
}

function visible(text) {
	return plain(text).replace(hidden, (c) => "\u27e8U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u27e9");
}

// number returns a size from JSON, 0 if it is none.
const number = (value) => typeof value === "number" && Number.isFinite(value) && value > 0 ? value : 0;

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
	const t = new Date(typeof value === "number" ? value : plain(value));
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
	const found = typeof type === "string" && mediaTypes.find(([pattern]) => pattern.test(type));
	return found ? found[1] : "";
}

// kindOf returns what a manifest is, for a person.
function kindOf(m) {
	return kind(m.artifact) || (m.artifact ? "artifact" : kind(m.mediaType)) || "manifest";
}

// prettyJSON returns JSON with indents, digests as links, and everything else as it is in the
// text: numbers keep their digits. It does not nest calls, and has a limit.
function prettyJSON(label, text, hrefOf) {
	const limit = 200000;
	const whole = text.length;
	text = text.slice(0, limit);
	const out = document.createDocumentFragment();
	let depth = 0, parts = [], at = 0, isOpen = false, broken = false;
	const flush = () => { if (parts.length) { out.append(parts.join("")); parts = []; } };
	const line = () => { parts.push("\n", "  ".repeat(Math.min(depth, 40))); };
	const token = /\s+|"|-?[0-9][0-9.eE+-]*|true|false|null|[{}[\],:]/ysu;
	while (at < text.length && !broken) {
		token.lastIndex = at;
		const match = token.exec(text);
		const t = match ? match[0] : "";
		if (/^\s/.test(t)) { at += t.length; continue; }
		const wasOpen = isOpen;
		isOpen = t === "{" || t === "[";
		if (wasOpen && t !== "}" && t !== "]") { depth++; line(); }
		at += t.length;
		if (isOpen || t === "}" || t === "]") {
			if (!isOpen && !wasOpen) { depth = Math.max(0, depth - 1); line(); }
			parts.push(t);
		} else if (t === ",") {
			parts.push(t);
			line();
		} else if (t === ":") {
			parts.push(": ");
		} else if (t === "\"") {
			flush();
			const end = closing(text, at);
			const value = text.slice(at, end);
			at = end + 1;
			const isKey = /\s*:/y;
			isKey.lastIndex = at;
			const key = isKey.test(text);
			const href = !key && isDigest(value) && hrefOf ? hrefOf(value) : "";
			const close = end < text.length ? "\"" : "";
			out.append(href ? el("span", { class: "s" }, "\"", link(href, value), close) : el("span", { class: key ? "k" : "s" }, "\"" + visible(value) + close));
		} else if (t) {
			flush();
			out.append(el("span", { class: "n" }, t));
		} else { // not JSON: the rest as it is
			parts.push(visible(text.slice(at)));
			broken = true;
		}
	}
	if (whole > text.length) parts.push("\n\u2026 " + bytes(whole - text.length) + " more");
	flush();
	return el("pre", { tabindex: "0", role: "region", "aria-label": label }, out);
}

// closing returns the index of the quote that ends a string, or the length of the text.
function closing(text, at) {
	for (;;) {
		const end = text.indexOf("\"", at);
		if (end < 0) return text.length;
		let slashes = 0;
		while (end - slashes > at && text[end - 1 - slashes] === "\\") slashes++;
		if (slashes % 2 === 0) return end;
		at = end + 1;
	}
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

