// The requests as they happen, grouped by what a client was doing.

// ops are the operations: their name, and their section in the distribution-spec.
const ops = {
	"ping": ["check the API", "Determining Support"],
	"blob-get": ["pull a blob", "Pulling blobs"],
	"blob-head": ["check a blob", "Checking if content exists in the registry"],
	"blob-delete": ["delete a blob", "Deleting Blobs"],
	"blob-push": ["push a blob", "Single POST"],
	"blob-mount": ["mount a blob", "Mounting a blob from another repository"],
	"upload-start": ["start an upload", "POST then PUT"],
	"upload-patch": ["upload a chunk", "Pushing a blob in chunks"],
	"upload-put": ["finish an upload", "POST then PUT"],
	"upload-status": ["check an upload", "Resuming a push"],
	"upload-cancel": ["cancel an upload", "Cancel a blob upload"],
	"manifest-get": ["pull a manifest", "Pulling manifests"],
	"manifest-head": ["check a manifest", "Checking if content exists in the registry"],
	"manifest-put": ["push a manifest", "Pushing Manifests"],
	"manifest-delete": ["delete a manifest", "Deleting Manifests"],
	"tags": ["list tags", "Listing Tags"],
	"referrers": ["list referrers", "Listing Referrers"],
	"catalog": ["list repositories", ""],
};

const isToken = (r) => !r.op && /^\/(token|v2\/token|oauth2)/.test(r.uri);
const opName = (r) => ops[r.op] ? ops[r.op][0] : isToken(r) ? "get a token" : "other request";
const pushOps = new Set(["blob-push", "blob-mount", "upload-start", "upload-patch", "upload-put", "upload-status", "upload-cancel", "manifest-put"]);
const succeeded = (r) => r.status >= 200 && r.status < 400;

// programs are the names of clients, by their User-Agent.
const programs = [
	[/^docker\//i, "docker"], [/buildkit/i, "buildkit"], [/^containerd\//i, "containerd"], [/skopeo/i, "skopeo"], [/buildah/i, "buildah"], [/podman|libpod/i, "podman"],
	[/cosign/i, "cosign"], [/crane/i, "crane"], [/go-containerregistry/i, "go-containerregistry"], [/regctl|regclient|regsync|regbot/i, "regclient"],
	[/oras/i, "oras"], [/helm/i, "helm"], [/^containers\/|containers\/image/i, "containers/image"], [/^berth/i, "berth"], [/^curl\//i, "curl"], [/^mozilla/i, "browser"], [/^go-http-client/i, "Go program"],
];
const program = (agent) => (programs.find(([p]) => p.test(agent)) || [0, visible((agent || "").split(/[/ ]/)[0].slice(0, 40)) || "client"])[1];
const hostOf = (client) => client.replace(/:\d+$/, "");

const maxRows = 1500, maxGroups = 400, gap = 5000;

const timeline = { groups: [], rows: 0, byID: new Map(), findings: new Map(), open: true, paused: false, waiting: [], missed: 0, cleared: 0, view: null, server: undefined, newest: 0 };

// groupFor returns the group that a record belongs to. The push of a tag ends a group, but for
// further tags.
function groupFor(r) {
	const who = hostOf(r.client) + " " + r.agent;
	for (let i = timeline.groups.length - 1, seen = 0; i >= 0 && seen < 60; i--, seen++) {
		const g = timeline.groups[i];
		if (g.who === who && !(g.done && r.repo && r.op !== "manifest-put") && r.time - g.last < gap && (!g.repo || !r.repo || g.repo === r.repo)) return g;
	}
	const g = { who, agent: r.agent, host: hostOf(r.client), user: r.user, repo: "", records: [], first: r.time, last: r.time, element: null, open: undefined, done: false };
	timeline.groups.push(g);
	return g;
}

function addRecords(records) {
	for (const r of records) {
		if (r.id <= timeline.cleared || timeline.byID.has(r.id)) continue;
		const g = groupFor(r);
		g.repo = g.repo || r.repo || "";
		g.user = r.user || g.user;
		g.done = g.done || r.op === "manifest-put" && !!r.tag;
		g.last = Math.max(g.last, r.time);
		g.records.push(r);
		g.dirty = true;
		timeline.byID.set(r.id, r);
		timeline.rows++;
	}
	while (timeline.rows > maxRows || timeline.groups.length > maxGroups) {
		const g = timeline.groups[0];
		const old = timeline.groups.length > maxGroups || timeline.rows - g.records.length >= maxRows / 2 ? g.records.length : timeline.rows - maxRows;
		for (const r of g.records.splice(0, old)) { timeline.byID.delete(r.id); timeline.findings.delete(r.id); timeline.cleared = Math.max(timeline.cleared, r.id); }
		timeline.rows -= old;
		g.dirty = true;
		if (g.records.length === 0) { timeline.groups.shift(); if (g.element) g.element.remove(); }
	}
}

// summary returns what a group was about: its title, and what it consisted of.
function summary(g) {
	const is = (...names) => (r) => names.includes(r.op);
	const all = g.records, ok = all.filter(succeeded);
	const pushes = all.some((r) => pushOps.has(r.op)), deletes = all.some(is("manifest-delete", "blob-delete"));
	const pulls = all.some(is("manifest-get", "blob-get"));
	const named = all.find((r) => r.op === "manifest-put" && r.tag) || ok.find((r) => r.tag && r.op !== "tags") || all.find((r) => r.tag && r.op !== "tags") || all.find((r) => r.op.startsWith("manifest") && r.digest);
	const lists = all.find(is("tags", "catalog", "referrers"));
	const verb = pushes ? "push" : deletes ? "delete" : pulls ? "pull" : lists ? opName(lists) : all.some((r) => r.repo) ? "check" : all.some(isToken) ? "log in" : opName(all[0]);
	const title = [program(g.agent), verb, g.repo ? visible(g.repo) + (named ? named.tag ? ":" + visible(named.tag) : "@" + shortDigest(named.digest) : "") : ""].filter(Boolean).join(" ");
	const parts = [];
	const part = (n, one, many) => { if (n) parts.push(count(n, one, many)); };
	part(ok.filter(isToken).length, "token");
	part(ok.filter(pushes ? is("manifest-put") : is("manifest-get")).length, "manifest");
	part(ok.filter(pushes ? is("blob-push", "upload-put") : is("blob-get")).length, "blob");
	if (pushes) {
		part(ok.filter((r) => r.op === "blob-mount" && r.status === 201).length, "mounted", "mounted");
		part(ok.filter(is("blob-head")).length, "already there", "already there");
	}
	if (!pushes && !pulls) part(ok.filter(is("manifest-head", "blob-head")).length, "check");
	part(ok.filter(is("manifest-delete", "blob-delete")).length, "deleted", "deleted");
	const moved = all.reduce((n, r) => n + r.in + r.out, 0);
	if (moved >= 1000) parts.push(bytes(moved));
	const failed = all.filter((r) => r.status >= 500 || r.status === 0 || r.status >= 400 && r.status !== 401 && !(r.status === 404 && r.method === "HEAD")).length;
	const challenged = all.some((r) => r.status === 401) && !all.some((r) => r.user && succeeded(r));
	return { title, parts: parts.join(", ") || count(all.length, "request"), failed: failed || (challenged ? all.filter((r) => r.status === 401).length : 0) };
}

// matches reports whether a record passes the filters.
function matches(r, f) {
	if (f.get("op") && (f.get("op") === "other" ? ops[r.op] : r.op !== f.get("op"))) return false;
	switch (f.get("status")) {
	case "ok": if (!succeeded(r)) return false; break;
	case "failed": if (succeeded(r)) return false; break;
	case "4xx": if (r.status < 400 || r.status > 499) return false; break;
	case "5xx": if (r.status > 0 && r.status < 500) return false; break;
	}
	if (f.get("changes") && !r.changed) return false;
	if (f.get("findings") && !timeline.findings.has(r.id)) return false;
	const q = (f.get("q") || "").toLowerCase();
	return !q || [r.method, opName(r), r.repo, r.tag, r.digest, r.uri, r.client, r.agent, r.user, r.code, String(r.status)].some((v) => v && v.toLowerCase().includes(q));
}

const statusText = (r) => r.status === 0 ? "broken" : String(r.status);
const reference = (r) => r.repo ? r.repo + (r.tag ? ":" + r.tag : r.digest ? "@" + shortDigest(r.digest) : "") + (r.from ? " from " + r.from : "") : r.uri;

function row(r) {
	const found = timeline.findings.get(r.id);
	return el("li", {}, el("button", { type: "button", "data-id": r.id, onclick: () => setParams({ open: r.id }, !!params().get("open")) },
		el("span", { class: "time" }, clock(r.time)),
		el("span", { class: "method" }, visible(r.method)),
		el("span", { class: "op" }, opName(r), found ? [" ", el("span", { class: "badge warn" }, count(found.length, "finding"))] : ""),
		name(reference(r), "ref"),
		el("span", { class: "num status s" + Math.floor(r.status / 100), title: r.code || "" }, statusText(r)),
		el("span", { class: "num bytes" }, bytes(r.in + r.out)),
		el("span", { class: "num ms" }, duration(r.duration))));
}

// draw draws a group again, and returns whether it has a row.
function draw(g, f, filtered) {
	const s = summary(g);
	const shown = filtered ? g.records.filter((r) => matches(r, f)) : g.records;
	if (!g.element) {
		g.element = el("li", { class: "group" });
		g.head = el("button", { type: "button", onclick: () => { g.open = !isOpen(g); g.dirty = true; drawSoon(); } });
		g.list = el("ul", { class: "rows" });
		g.element.append(g.head);
	}
	g.element.hidden = shown.length === 0;
	const open = isOpen(g);
	g.head.setAttribute("aria-expanded", open);
	g.head.replaceChildren();
	append(g.head, [
		el("span", { class: "when" }, clock(g.first)),
		el("span", { class: "what" }, s.title),
		el("span", { class: "counts" }, s.parts, g.user ? [" \u00b7 ", name(g.user)] : "", " \u00b7 ", visible(g.host)),
		s.failed ? el("span", { class: "badge bad" }, count(s.failed, "failed", "failed")) : "",
		el("span", { class: "badge" }, filtered ? shown.length + " of " + g.records.length : count(g.records.length, "request")),
	]);
	if (!open) { g.list.remove(); return; }
	// Rows stay in place: one that is replaced loses the focus, or the click of a slow finger.
	const rows = shown.map((r) => r.row || (r.row = row(r))), kept = new Set(rows);
	for (const old of [...g.list.children]) if (!kept.has(old)) old.remove();
	rows.forEach((e, i) => { if (g.list.children[i] !== e) g.list.insertBefore(e, g.list.children[i] || null); });
	if (g.list.parentNode !== g.element) g.element.append(g.list);
}

// isOpen reports whether a group's requests are shown.
const isOpen = (g) => g.open === undefined ? timeline.open : g.open;

let drawing = false;
function drawSoon() {
	if (drawing || !timeline.view) return;
	drawing = true;
	requestAnimationFrame(() => { drawing = false; drawTimeline(); });
}

const isFiltered = (f) => ["op", "status", "changes", "findings", "q"].some((k) => f.get(k));

function drawTimeline(all) {
	const v = timeline.view;
	if (!v) return;
	const f = params(), filtered = isFiltered(f);
	const focused = document.activeElement && v.list.contains(document.activeElement) ? document.activeElement.dataset.id : "";
	for (const g of timeline.groups) {
		if (!g.dirty && !all) continue;
		const fresh = !g.element;
		draw(g, f, filtered);
		g.dirty = false;
		if (fresh || g.element.parentNode !== v.list) v.list.prepend(g.element);
	}
	if (focused && !v.list.contains(document.activeElement)) {
		const again = v.list.querySelector("button[data-id=\"" + focused + "\"]");
		if (again) again.focus();
	}
	v.missed.textContent = timeline.missed ? count(timeline.missed, "request was", "requests were") + " left out: the registry was too busy for this page." : "";
	v.missed.hidden = !timeline.missed;
	const any = timeline.groups.some((g) => g.element && !g.element.hidden);
	v.empty.hidden = any;
	v.empty.replaceChildren();
	append(v.empty, timeline.rows ? ["No request matches the filters."] : ["No requests yet. Push an image and watch:", el("code", {}, "docker push " + location.host + "/app:v1")]);
	v.total.textContent = count(timeline.rows, "request") + (timeline.paused ? ", paused: " + count(timeline.waiting.length, "is waiting", "are waiting") : "");
}

function receive(m, first) {
	if (m.server !== timeline.server) { // it has been restarted, and counts from 1 again
		if (timeline.server) clearTimeline();
		Object.assign(timeline, { server: m.server, cleared: 0 });
	}
	if (m.records.length) timeline.newest = m.records[m.records.length - 1].id;
	if (!first) timeline.missed += m.missed || 0;
	if (timeline.paused) {
		timeline.waiting = timeline.waiting.concat(m.records || []).slice(-maxRows);
		drawSoon();
		return;
	}
	addRecords(m.records || []);
	drawSoon();
}

async function showFindings() {
	const found = await api("findings");
	if (!timeline.view) return;
	timeline.findings.clear();
	for (const r of timeline.byID.values()) r.row = null;
	for (const f of found) timeline.findings.set(f.id, [...timeline.findings.get(f.id) || [], f]);
	say(found.length ? count(found.length, "finding") : "No client has violated the spec");
	setParams({ findings: found.length ? "1" : "" }, !!params().get("open"));
	for (const g of timeline.groups) if (g.records.some((r) => timeline.findings.has(r.id))) g.open = true;
	drawTimeline(true);
}

function viewTimeline(main) {
	const f = params();
	const change = (key) => (e) => setParams({ [key]: e.target.value }, true);
	const select = (key, label, options) => {
		const s = el("select", { id: "filter-" + key, onchange: change(key) }, options.map(([v, t]) => el("option", { value: v, selected: (f.get(key) || "") === v }, t)));
		return el("label", {}, label, s);
	};
	const list = el("ul", { class: "groups", "aria-label": "Requests" });
	const total = el("span", { class: "dim small", id: "total" }), empty = el("div", { class: "empty" }), missed = el("p", { class: "notice", hidden: true });
	const pause = button(timeline.paused ? "Continue" : "Pause", () => {
		timeline.paused = !timeline.paused;
		pause.textContent = timeline.paused ? "Continue" : "Pause";
		pause.setAttribute("aria-pressed", timeline.paused);
		if (!timeline.paused) { addRecords(timeline.waiting); timeline.waiting = []; }
		drawTimeline();
	}, { id: "pause", "aria-pressed": timeline.paused });
	append(main, [
		el("h1", {}, "Timeline"),
		el("div", { class: "bar", role: "search", "aria-label": "Filters" },
			el("input", { type: "search", id: "filter-q", "aria-label": "Filter requests", placeholder: "Filter: repository, digest, client \u2026", value: f.get("q") || "", oninput: change("q") }),
			select("op", "Operation", [["", "all"], ...Object.entries(ops).map(([k, [t]]) => [k, t]), ["other", "other requests"]]),
			select("status", "Status", [["", "all"], ["ok", "succeeded"], ["failed", "failed"], ["4xx", "4xx"], ["5xx", "5xx or broken"]]),
			el("label", {}, el("input", { type: "checkbox", id: "filter-changes", checked: !!f.get("changes"), onchange: (e) => setParams({ changes: e.target.checked ? "1" : "" }, true) }), "changes only")),
		el("div", { class: "bar" }, pause,
			button("Clear", clearTimeline, { id: "clear" }),
			button("Open all", () => openAll(true), { id: "open-all" }),
			button("Close all", () => openAll(false)),
			button("Check against the spec", (e) => busy(e.target, showFindings), { id: "lint" }),
			button("Export HAR", (e) => busy(e.target, exportHAR), { id: "har" }),
			total),
		report && report.faults ? faultTable(report.faults) : "",
		report && report.more ? el("p", { class: "notice" }, "There was more than this report has.") : "",
		missed, empty, list,
	]);
	timeline.view = { list, total, empty, missed };
	drawTimeline(true);
	return () => { timeline.view = null; };
}

// faultTable shows the faults that a test had prepared.
const faultTable = (faults) => [el("h2", {}, "Faults"), table("Faults", [
	{ title: "Applied to", cell: (f) => name(f.rule) },
	{ title: "Requests", cls: "num", cell: (f) => f.requests ? String(f.requests) : el("span", { class: "badge warn" }, "none") },
], faults), el("h2", {}, "Requests")];

// openAll opens or closes all groups, and those to come.
function openAll(open) {
	timeline.open = open;
	for (const g of timeline.groups) g.open = undefined;
	drawTimeline(true);
}

function clearTimeline() {
	timeline.cleared = timeline.newest;
	for (const g of timeline.groups) if (g.element) g.element.remove();
	Object.assign(timeline, { groups: [], rows: 0, missed: 0, waiting: [] });
	timeline.byID.clear();
	timeline.findings.clear();
	drawTimeline(true);
}

// busy disables a button while it works, and says why it has failed.
async function busy(b, work) {
	b.disabled = true;
	try { await work(); } catch (e) { say(e.message); } finally { b.disabled = false; b.focus(); }
}

