// Pictures of the whole registry.

async function viewPictures(main) {
	const growth = el("section", {}), mirrors = el("section", {}), shared = el("section", {});
	append(main, [el("h1", {}, "Pictures"), growth, mirrors, shared]);
	const s = await api("stats"); // which fails for users who may not list all repositories, as would the rest
	drawGrowth(growth, s);
	if (s.mirrors) drawMirrors(mirrors, s.mirrors);
	try {
		drawShared(shared, await api("shared"));
	} catch (e) {
		append(shared, [el("h2", {}, "Shared between repositories"), failure(e)]);
	}
}

// chart returns bars over time.
function chart(label, columns, parts) {
	const w = 1000, h = 120, top = Math.max(1, ...columns.map((c) => Math.max(...parts.map(([, of]) => of(c)))));
	const step = w / columns.length;
	return el("svg", { class: "chart", viewBox: "0 0 " + w + " " + (h + 2), role: "img", "aria-label": label, preserveAspectRatio: "none" },
		el("rect", { class: "track", width: w, height: h }),
		parts.map(([cls, of]) => columns.map((c, i) => of(c) > 0 ? el("rect", { class: cls, x: (i * step).toFixed(1), width: Math.max(1, step - (step > 4 ? 1 : 0)).toFixed(1), y: (h - Math.max(1, h * of(c) / top)).toFixed(1), height: Math.max(1, h * of(c) / top).toFixed(1) }) : "")),
		el("line", { class: "axis", x1: 0, x2: w, y1: h + 1, y2: h + 1 }));
}

function drawGrowth(box, s) {
	const end = Math.floor(s.now / 60), begin = Math.max(end - 24 * 60 + 1, Math.min(Math.floor(s.started / 60), end - 29));
	const each = Math.max(1, Math.ceil((end - begin + 1) / 240)), columns = [];
	for (let t = begin; t <= end; t += each) columns.push({ t, requests: 0, failed: 0, pushed: 0, out: 0, held: 0 });
	for (const m of s.minutes) {
		const c = columns[Math.floor((m.time / 60 - begin) / each)];
		if (c) { c.requests += m.requests; c.failed += m.failed; c.pushed += m.pushed; c.out += m.out; }
	}
	let sum = 0;
	for (const c of columns) c.held = sum += c.pushed;
	const total = (k) => columns.reduce((n, c) => n + c[k], 0);
	const unit = each === 1 ? "minute" : each + " minutes";
	append(box, [
		el("h2", {}, "Requests"),
		chart("Requests in each " + unit + ", " + total("requests") + " in all", columns, [["a", (c) => c.requests], ["bad", (c) => c.failed]]),
		el("ul", { class: "legend" }, el("li", {}, el("span", { class: "swatch" }), total("requests").toLocaleString("en"), " requests, a bar for each ", unit, ", at most ", Math.max(...columns.map((c) => c.requests)).toLocaleString("en")), el("li", {}, el("span", { class: "swatch bad" }), total("failed").toLocaleString("en"), " failed or broken")),
		el("h2", {}, "Growth"),
		chart("Bytes pushed until then, " + bytes(sum) + " in all", columns, [["a", (c) => c.held]]),
		el("p", { class: "dim small" }, bytes(sum), " of content pushed and ", bytes(total("out")), " sent since ", date(Math.max(s.started, begin * 60) * 1000)),
	]);
}

function drawMirrors(box, mirrors) {
	const rows = Object.entries(mirrors).map(([upstream, m]) => ({ upstream, ...m }));
	append(box, [el("h2", {}, "Mirrors"), table("Mirrors", [
		{ title: "Upstream", cell: (m) => name(m.upstream) },
		{ title: "Stored", cls: "num", cell: (m) => m.hits.toLocaleString("en") },
		{ title: "Fetched", cls: "num", cell: (m) => m.misses.toLocaleString("en") },
		{ title: "Stale", cls: "num", cell: (m) => m.stale.toLocaleString("en") },
		{ title: "Bytes fetched", cls: "num", cell: (m) => bytes(m.bytes) },
		{ title: "Hit rate", cell: (m) => { const all = m.hits + m.misses, share = all ? Math.round(100 * m.hits / all) : 0; return [bar(m.hits, all, share + " % of requests found stored content"), share + " %"]; } },
	], rows)]);
}

function drawShared(box, s) {
	append(box, [el("h2", {}, "Shared between repositories")]);
	if (!s.repos.length) { append(box, [el("p", { class: "dim" }, "Nothing has been pushed yet.")]); return; }
	const rows = s.repos.map((r, i) => ({ ...r, i })).sort((a, b) => b.alone + b.shared - a.alone - a.shared);
	const most = Math.max(1, ...rows.map((r) => r.alone + r.shared));
	const stacked = (r) => el("svg", { width: 240, height: 14, viewBox: "0 0 240 14", role: "img", "aria-label": bytes(r.alone) + " of its own, " + bytes(r.shared) + " shared" },
		el("rect", { class: "track", width: 240, height: 14, rx: 2 }), el("rect", { class: "a", width: 240 * r.alone / most, height: 14 }), el("rect", { class: "b", x: 240 * r.alone / most, width: 240 * r.shared / most, height: 14 }));
	append(box, [
		el("ul", { class: "legend" }, el("li", {}, el("span", { class: "swatch" }), "in this repository alone"), el("li", {}, el("span", { class: "swatch b" }), "in others, too: stored once for all")),
		table("Repositories by size", [
			{ title: "Repository", cls: "wrap", cell: (r) => link(repoHref(r.name), name(r.name)) },
			{ title: "In all", cell: stacked },
			{ title: "Alone", cls: "num", cell: (r) => bytes(r.alone) },
			{ title: "Shared", cls: "num", cell: (r) => bytes(r.shared) },
		], rows),
		s.blobs.length ? [el("h3", {}, "Shared blobs"), table("Shared blobs", [
			{ title: "Blob", cls: "mono", cell: (b) => shortDigest(b.digest) },
			{ title: "Size", cls: "num minor", cell: (b) => bytes(b.size) },
			{ title: "Saved", cls: "num", cell: (b) => bytes(b.size * (b.repos.length - 1)) },
			{ title: "Repositories", cls: "wrap", cell: (b) => b.repos.slice(0, 20).map((i, k) => [k ? ", " : "", link(repoHref(s.repos[i].name), name(s.repos[i].name))]) },
		], s.blobs)] : "",
		s.more ? el("p", { class: "notice" }, "The registry has more than this picture shows.") : "",
	]);
}

