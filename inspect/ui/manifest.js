// A manifest, and what it consists of.

async function viewManifest(main) {
	const repo = params().get("repo") || "", ref = params().get("ref") || "";
	append(main, [crumbs(link("#repositories", "Repositories"), link(repoHref(repo), name(repo)))]);
	let m;
	try {
		m = await api("manifest", { repo, ref });
	} catch (e) {
		append(main, [el("h1", {}, name(repo), isDigest(ref) ? "@" + shortDigest(ref) : [":", name(ref)]), failure(e)]);
		return;
	}
	const doc = parseJSON(m.content);
	const missing = new Set(m.missing);
	const layers = array(doc.layers), children = array(doc.manifests), config = m.config ? parseJSON(m.config.text || "") : {};
	const isChild = new Set(children.map((c) => c.digest)), isLayer = new Set(layers.map((l) => l.digest));
	const layerHref = (d) => "#layer?" + new URLSearchParams({ repo, digest: d, ref });
	const hrefOf = (d) => isChild.has(d) || (doc.subject && doc.subject.digest === d) ? manifestHref(repo, d) : isLayer.has(d) ? layerHref(d) : doc.config && doc.config.digest === d ? layerHref(d) : "";
	const gone = (d) => missing.has(d) ? [" ", el("span", { class: "badge bad" }, "missing")] : "";
	const whole = layers.reduce((n, l) => n + number(l.size), 0);

	append(main, [
		el("h1", {}, name(repo), isDigest(ref) ? "@" + shortDigest(ref) : [":", name(ref)]),
		m.missing.length ? el("p", { class: "notice bad" }, count(m.missing.length, "part is", "parts are"), " missing in this repository.") : "",
		define([
			["Kind", kindOf({ artifact: artifactType(doc), mediaType: m.mediaType })],
			["Media type", name(m.mediaType)],
			["Artifact type", doc.artifactType && name(doc.artifactType)],
			["Digest", el("span", { class: "mono" }, name(m.digest))],
			["Tags", m.tags.length ? m.tags.map((t, i) => [i ? ", " : "", link(manifestHref(repo, t), name(t))]) : "none"],
			["Size", whole ? bytes(whole) + " in " + count(layers.length, "layer") : ""],
			["Refers to", doc.subject && isDigest(doc.subject.digest) ? link(manifestHref(repo, doc.subject.digest), name(doc.subject.digest)) : ""],
		]),
	]);
	if (children.length) append(main, [el("h2", {}, "Platforms"), el("ul", { class: "cards" }, children.slice(0, 300).map((c) => {
		const p = c.platform && typeof c.platform === "object" ? c.platform : {};
		const title = p.os && p.os !== "unknown" ? [p.os, p.architecture, p.variant].filter((x) => typeof x === "string" && x).join("/") : kind(c.artifactType || "") || "attestation or other";
		return el("li", {}, el("strong", {}, isDigest(c.digest) ? link(manifestHref(repo, c.digest), name(title)) : name(title)), gone(c.digest),
			el("div", { class: "dim small" }, kind(c.mediaType) || name(c.mediaType || "")), el("div", { class: "mono dim wrap" }, shortDigest(c.digest || "")));
	}))]);
	if (layers.length) layerList(main, layers, config, whole, layerHref, gone);
	if (m.config) configView(main, m.config, config);
	append(main, [el("h2", {}, "Referrers"), m.referrers.length ? referrerTree(repo, m.referrers) : el("p", { class: "dim" }, "No manifest refers to this one: no signature, SBOM or attestation.")]);
	annotations(main, doc.annotations);
	commands(main, repo, isDigest(ref) ? "@" + m.digest : ":" + ref);
	if (m.mayDelete || m.mayUntag) append(main, [el("h2", {}, "Delete"), el("div", { class: "bar" },
		m.mayUntag ? button("Remove the tag", () => confirmDelete(m, ref), { class: "danger", id: "untag" }) : "",
		m.mayDelete ? button("Delete the manifest", () => confirmDelete(m, m.digest), { class: "danger", id: "delete" }) : "")]);
	append(main, [el("h2", {}, "Manifest"), prettyJSON("Manifest as JSON", m.content, hrefOf)]);
}

// artifactType returns the type of what is not an image, "" for an image. Older tools give it
// by the media type of the config.
function artifactType(doc) {
	if (doc.artifactType && typeof doc.artifactType === "string") return doc.artifactType;
	const type = doc.config && typeof doc.config.mediaType === "string" ? doc.config.mediaType : "";
	return /^application\/vnd\.(oci\.image\.config|oci\.empty|docker\.container\.image)\.v1\+json$/.test(type) ? "" : type;
}

// layerList shows the layers beside the history of how they were made.
function layerList(main, layers, config, whole, layerHref, gone) {
	const history = array(config.history), steps = [];
	let next = 0;
	for (const h of history.slice(0, 1000)) steps.push({ h, l: h.empty_layer ? null : layers[next++] || null });
	for (const l of layers.slice(next)) steps.push({ h: {}, l });
	const rows = steps.slice(0, 1000).map((s, i) => ({ ...s, i: i + 1 }));
	append(main, [el("h2", {}, "Layers"), table("Layers", [
		{ title: "#", cls: "num", cell: (s) => String(s.i) },
		{ title: "Made by", cls: "mono wrap", cell: (s) => s.h.created_by ? name(plain(s.h.created_by).slice(0, 2000)) : s.l && s.l.annotations && s.l.annotations["org.opencontainers.image.title"] ? name(s.l.annotations["org.opencontainers.image.title"]) : s.l ? name(s.l.mediaType || "") : "" },
		{ title: "Layer", cls: "mono", cell: (s) => s.l ? [isDigest(s.l.digest) ? link(layerHref(s.l.digest), shortDigest(s.l.digest)) : name(s.l.digest || ""), gone(s.l.digest)] : el("span", { class: "dim" }, "no layer") },
		{ title: "Size", cls: "num", cell: (s) => s.l ? bytes(s.l.size) : "" },
		{ title: "Share", cls: "minor", cell: (s) => s.l ? bar(number(s.l.size), whole, whole ? Math.round(100 * (number(s.l.size) / whole)) + " % of the image" : "") : "" },
	], rows)]);
}

// configView shows the config of an image.
function configView(main, text, config) {
	append(main, [el("h2", {}, "Config")]);
	if (text.error || text.binary) {
		append(main, [el("p", { class: "notice" }, text.error ? visible(text.error) : "The config is no text.")]);
		return;
	}
	const c = config.config && typeof config.config === "object" ? config.config : {};
	const lines = (list) => list.length ? list.slice(0, 500).map((s) => el("div", { class: "mono" }, name(s))) : "";
	const words = (list) => list.length ? name(list.map((w) => /^[\w@%+=:,./-]+$/.test(w) ? w : JSON.stringify(w)).join(" "), "mono") : "";
	append(main, [
		define([
			["Platform", config.os ? name([config.os, config.architecture, config.variant].filter(Boolean).map(plain).join("/")) : ""],
			["Created", config.created && !plain(config.created).startsWith("0001-") ? date(config.created) : ""],
			["Author", config.author && name(config.author)],
			["Entrypoint", words(strings(c.Entrypoint))],
			["Command", words(strings(c.Cmd))],
			["Working directory", c.WorkingDir && name(c.WorkingDir, "mono")],
			["User", c.User && name(c.User)],
			["Ports", c.ExposedPorts ? name(Object.keys(c.ExposedPorts).join(", ")) : ""],
			["Volumes", c.Volumes ? name(Object.keys(c.Volumes).join(", ")) : ""],
			["Stop signal", c.StopSignal && name(c.StopSignal)],
			["Environment", lines(strings(c.Env))],
			["Labels", c.Labels && typeof c.Labels === "object" ? lines(Object.entries(c.Labels).map(([k, v]) => k + "=" + plain(v))) : ""],
		]),
		el("details", {}, el("summary", {}, "The config as JSON"), prettyJSON("Config as JSON", text.text), text.truncated ? el("p", { class: "notice" }, "The config is larger than this page shows.") : ""),
	]);
}

const referrerTree = (repo, all) => el("ul", { class: "tree" }, all.map((r) => el("li", {},
	el("span", { class: "badge" }, kindOf(r)), " ", link(manifestHref(repo, r.digest), shortDigest(r.digest), "mono"), " ", el("span", { class: "dim small" }, name(r.artifact || r.mediaType), ", ", bytes(r.size)),
	r.referrers && r.referrers.length ? referrerTree(repo, r.referrers) : "")));

function annotations(main, all) {
	if (!all || typeof all !== "object" || !Object.keys(all).length) return;
	append(main, [el("h2", {}, "Annotations"), define(Object.entries(all).slice(0, 300).map(([k, v]) => [name(k), name(v)]))]);
}

// commands shows how to pull.
function commands(main, repo, ref) {
	const plain = location.protocol === "http:", image = location.host + "/" + repo + ref;
	const all = [
		"docker pull " + image,
		"podman pull " + (plain ? "--tls-verify=false " : "") + image,
		"crane pull " + (plain ? "--insecure " : "") + image + " image.tar",
		"oras copy " + (plain ? "--from-plain-http " : "") + image + " --to-oci-layout image:copy",
		"skopeo copy " + (plain ? "--src-tls-verify=false " : "") + "docker://" + image + " dir:image",
	];
	append(main, [el("h2", {}, "Pull"), el("ul", { class: "commands" }, all.map((c) => el("li", {}, el("code", {}, visible(c)), button("Copy", () => copyText(c), { "aria-label": "Copy " + visible(c.split(" ")[0]) + " command" }))))]);
}

// confirmDelete says what a deletion removes, and does it.
function confirmDelete(m, ref) {
	const whole = isDigest(ref);
	const go = async () => {
		const here = location.hash;
		await api("manifest", { repo: m.repo, ref }, "DELETE");
		say(whole ? "The manifest is deleted" : "The tag is removed");
		if (location.hash !== here) return; // the user went on meanwhile
		closeDialog();
		location.hash = repoHref(m.repo);
	};
	const others = m.tags.filter((t) => t !== ref);
	openDialog(whole ? "Delete the manifest?" : "Remove the tag?", [
		el("ul", {},
			whole ? el("li", {}, "The manifest ", name(shortDigest(m.digest), "mono")) : el("li", {}, "The tag ", name(ref)),
			whole && m.tags.length ? el("li", {}, m.tags.length === 1 ? "Its tag: " : "Its tags: ", name(m.tags.join(", "))) : "",
			whole && m.referrers.length ? el("li", {}, count(m.referrers.length, "referrer loses its", "referrers lose their"), " subject, and may be collected as garbage") : "",
			whole ? el("li", {}, "Its blobs stay until garbage is collected") : el("li", {}, "The manifest stays", others.length ? [", with the tags ", name(others.join(", "))] : ", without a tag: it may be collected as garbage")),
		el("div", { class: "bar" }, button(whole ? "Delete the manifest" : "Remove the tag", (e) => busy(e.target, go), { class: "danger", id: "confirm" }), button("Cancel", closeDialog)),
	]);
}

