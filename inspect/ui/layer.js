// The files in a layer.

async function viewLayer(main) {
	const repo = params().get("repo") || "", digest = params().get("digest") || "", ref = params().get("ref") || "";
	const list = el("div", {});
	const show = (q) => {
		const reading = el("p", { class: "dim", role: "status" }, "Reading the layer \u2026");
		list.replaceChildren(reading);
		return pages(list, async (after) => {
			try { return await api("layer", { repo, digest, q, after }); } finally { reading.remove(); }
		}, (files) => fileTable(repo, digest, files), q ? "No file has a name with that." : "There is no file that could be shown.");
	};
	append(main, [
		crumbs(link("#repositories", "Repositories"), link(repoHref(repo), name(repo)), ref ? link(manifestHref(repo, ref), name(shortDigest(ref))) : ""),
		el("h1", {}, "Layer ", name(shortDigest(digest), "mono")), searchBox("Find files", "", show), list,
	]);
	await show("");
}

// whiteout returns what a file of this name deletes from the layers below, "" for nothing.
function whiteout(path) {
	const i = path.lastIndexOf("/") + 1, base = path.slice(i);
	if (base === ".wh..wh..opq") return path.slice(0, i) + "*";
	return base.startsWith(".wh.") ? path.slice(0, i) + base.slice(4) : "";
}

const fileTable = (repo, digest, files) => table("Files", [
	{ title: "Mode", cls: "mono", cell: (f) => f.mode },
	{ title: "Owner", cls: "mono num minor", cell: (f) => f.uid + ":" + f.gid },
	{ title: "Size", cls: "num", cell: (f) => f.type === "file" ? bytes(f.size) : "" },
	{ title: "Changed", cls: "mono small minor", cell: (f) => f.time ? date(f.time * 1000).slice(0, 16) : "" },
	{
		title: "Name", cls: "mono wrap", cell: (f) => {
			const gone = whiteout(f.name);
			if (gone) return [el("span", { class: "badge bad" }, "deletes"), " ", name(gone, "white")];
			if (f.type === "file") return button(name(f.name), () => openFile(repo, digest, f), { class: "plain" });
			return [name(f.name), f.link ? [f.type === "hardlink" ? " is " : " \u2192 ", name(f.link, "dim")] : ""];
		},
	},
], files);

async function openFile(repo, digest, f) {
	const back = document.activeElement;
	const box = el("div", {}, el("p", { class: "dim", role: "status" }, "Reading \u2026"));
	openDialog([name(f.name, "mono")], [el("p", { class: "dim" }, f.mode, ", ", bytes(f.size)), box], () => back && back.focus());
	try {
		const t = await api("file", { repo, digest, number: f.number });
		box.replaceChildren();
		append(box, [
			t.binary ? el("p", { class: "notice" }, "The file is not text.") : el("pre", { tabindex: "0", role: "region", "aria-label": "Content" }, visible(t.text)),
			t.truncated ? el("p", { class: "notice" }, "The file is larger than this page shows.") : "",
			t.error ? failure(new Error(visible(t.error))) : "",
		]);
	} catch (e) {
		box.replaceChildren(failure(e));
	}
}

