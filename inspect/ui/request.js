// One request: its headers, its error, and how to repeat it.

// codes explain the error codes of the distribution-spec (section "Error Codes").
const codes = {
	BLOB_UNKNOWN: "The repository has no blob with this digest. Blobs belong to the repositories that they were pushed or mounted to.",
	BLOB_UPLOAD_INVALID: "The upload can't be continued this way.",
	BLOB_UPLOAD_UNKNOWN: "The upload session has ended: it was finished, cancelled, or idle for too long.",
	DIGEST_INVALID: "The content does not have this digest, or the digest is malformed.",
	MANIFEST_BLOB_UNKNOWN: "The manifest names content that the repository lacks: push that first.",
	MANIFEST_INVALID: "The manifest is no valid document of its media type.",
	MANIFEST_UNKNOWN: "The repository has no manifest with this tag or digest.",
	NAME_INVALID: "The repository's name does not match the grammar of the spec.",
	NAME_UNKNOWN: "There is no such repository: nothing was ever pushed to it, or all of it was deleted.",
	SIZE_INVALID: "The number of bytes is not the one that was announced, or is over a limit.",
	UNAUTHORIZED: "The client must log in, or has sent wrong credentials. Many clients start without any, and try again.",
	DENIED: "The user may not do this.",
	UNSUPPORTED: "The registry does not support this operation.",
	TOOMANYREQUESTS: "The client sends too many requests, and should wait.",
	UNAVAILABLE: "The registry, or one that it needs, is not available.",
};

const shell = (s) => "'" + s.replace(/'/g, "'\\''") + "'";

// curl returns a command that repeats a request, without its body and its secrets.
function curl(r) {
	const parts = ["curl", "-i"];
	if (r.method === "HEAD") parts.push("--head");
	else if (r.method !== "GET") parts.push("-X", shell(r.method));
	for (const [key, values] of Object.entries(r.request || {}).sort()) {
		for (const v of values) {
			if (/^(accept|content-type|content-range|range|if-none-match|if-match)$/i.test(key)) parts.push("-H", shell(key + ": " + v));
			if (/^authorization$/i.test(key)) parts.push(/^basic/i.test(v) ? "-u " + shell((r.user || "USER") + ":PASSWORD") : "-H \"Authorization: Bearer $TOKEN\"");
		}
	}
	if (r.in > 0) parts.push("--data-binary", "@FILE");
	parts.push(shell(location.protocol === "file:" ? "http://" + r.host + r.uri : location.protocol + "//" + location.host + r.uri));
	return visible(parts.join(" "));
}

const headerList = (h) => Object.keys(h || {}).length
	? define(Object.entries(h).sort(([a], [b]) => a < b ? -1 : 1).flatMap(([k, values]) => values.map((v) => [visible(k), name(v)])), "headers")
	: el("p", { class: "dim small" }, "none");

// findRequest returns the details of a request.
async function findRequest(id) {
	const all = await api("requests", report ? {} : { id });
	const found = all.find((r) => String(r.id) === String(id));
	if (!found) throw new Error("The request is not part of the report.");
	return found;
}

async function openRequest(id) {
	const back = document.activeElement && document.activeElement.dataset.id;
	const closed = () => {
		delete byID("dialog").dataset.open;
		if (params().get("open")) {
			if (history.state && history.state.opened) history.back(); // to the list, not to another entry for it
			else setParams({ open: "" }, true);
		}
		const b = back && document.querySelector("button[data-id=\"" + back + "\"]");
		if (b) b.focus();
	};
	let r, error;
	try { r = await findRequest(id); } catch (e) { error = e; }
	if (byID("dialog").dataset.open !== id) return; // the URL has changed meanwhile
	if (error) {
		openDialog("Request", el("p", { class: "notice bad" }, error.message), closed);
		return;
	}
	const [what, section] = ops[r.op] || [opName(r), ""];
	const command = curl(r);
	const found = el("div", {});
	const href = r.repo && (r.op.startsWith("manifest") && (r.tag || r.digest)) && succeeded(r) ? "#manifest?" + new URLSearchParams({ repo: r.repo, ref: r.digest || r.tag }) : "";
	openDialog([visible(r.method) + " ", name(r.uri, "mono")], [
		el("p", {}, el("span", { class: "badge s" + Math.floor(r.status / 100) }, statusText(r)), " ", what, section ? [", section \u201c", section, "\u201d of the distribution-spec"] : ""),
		r.error || r.code ? el("div", { class: "notice bad" }, el("p", {}, el("strong", {}, visible(r.code || "Error")), r.error ? [": ", name(r.error)] : ""),
			codes[r.code] ? el("p", { class: "small" }, codes[r.code], " (section \u201cError Codes\u201d)") : "") : "",
		found,
		define([
			["Repository", r.repo && link("#repository?" + new URLSearchParams({ repo: r.repo }), name(r.repo))],
			["Tag", r.tag && name(r.tag)],
			["Tags moved", r.tags && r.tags.length ? name(r.tags.join(", ")) : ""],
			["Digest", r.digest && (href ? link(href, name(r.digest)) : name(r.digest))],
			["Mounted from", r.from && name(r.from)],
			["Media type", r.type && name(r.type)],
			["Body of the request", r.in ? bytes(r.in) : ""],
			["Body of the response", r.out ? bytes(r.out) : ""],
			["Began", date(r.time)],
			["Took", duration(r.duration)],
			["Client", [name(r.client), " ", el("span", { class: "dim" }, name(r.agent))]],
			["User", r.user && name(r.user)],
			["Protocol", visible(r.proto)],
		]),
		el("div", { class: "bar" }, button("Copy as curl", () => copyText(command), { id: "curl" }), el("code", { class: "wrap small" }, command)),
		el("h2", {}, "Headers of the request"), headerList(r.request),
		el("h2", {}, "Headers of the response"), headerList(r.response),
	], closed);
	try {
		for (const f of (await api("findings")).filter((f) => f.id === r.id)) {
			found.append(el("p", { class: "notice" }, el("strong", {}, f.must ? "MUST" : "SHOULD"), ": ", visible(f.text), " (section ", visible(f.section), ")"));
		}
	} catch { /* the request is of more interest */ }
}

// exportHAR saves the requests that are shown as an HTTP archive, which the developer tools of
// browsers can open.
async function exportHAR() {
	const f = params();
	const all = (await api("requests")).filter((r) => timeline.byID.has(r.id) && matches(r, f));
	const headers = (h) => Object.entries(h || {}).flatMap(([k, values]) => values.map((value) => ({ name: k, value })));
	const first = (h, k) => ((h || {})[k] || [""])[0];
	const entries = all.map((r) => {
		const url = "http://" + r.host + r.uri;
		let query = [];
		try { query = [...new URL(url).searchParams].map(([n, value]) => ({ name: n, value })); } catch { /* not a URL */ }
		return {
			startedDateTime: new Date(r.time).toISOString(), time: r.duration, cache: {}, timings: { send: 0, wait: r.duration, receive: 0 },
			request: { method: r.method, url, httpVersion: r.proto, cookies: [], headers: headers(r.request), queryString: query, headersSize: -1, bodySize: r.in },
			response: {
				status: r.status, statusText: r.code || "", httpVersion: r.proto, cookies: [], headers: headers(r.response), redirectURL: first(r.response, "Location"), headersSize: -1, bodySize: r.out,
				content: { size: r.out, mimeType: r.type || first(r.response, "Content-Type") },
			},
			connection: r.client, comment: opName(r),
		};
	});
	save("berth.har", "application/json", JSON.stringify({ log: { version: "1.2", creator: { name: "Berth", version: "1" }, entries } }, null, 1));
	say(count(entries.length, "request") + " exported");
}

