// Repositories, and the tags in one.

const manifestHref = (repo, ref) => "#manifest?" + new URLSearchParams({ repo, ref });
const repoHref = (repo) => "#repository?" + new URLSearchParams({ repo });

const crumbs = (...parts) => el("nav", { class: "crumbs", "aria-label": "Where you are" }, parts.flatMap((p, i) => i ? [" / ", p] : [p]));

const failure = (e) => el("p", { class: "notice bad", role: "alert" }, e.message);

// pages shows a list page by page. load returns a page, and render its elements.
function pages(main, load, render, empty) {
	const box = el("div", {});
	main.append(box);
	const next = async (after, focus) => {
		let page;
		try { page = await load(after); } catch (e) { box.append(failure(e)); if (focus) focus.disabled = false; return; }
		if (page.items.length) box.append(render(page.items));
		else if (!after && !page.next) box.append(el("div", { class: "empty" }, empty));
		if (focus) focus.remove();
		if (page.error) box.append(el("p", { class: "notice" }, "The list ends here: ", visible(page.error)));
		if (page.more) box.append(el("p", { class: "notice" }, "There is more than this page looks at."));
		if (page.next) {
			const b = button("Show more", () => { b.disabled = true; next(page.next, b); }, { class: "more" });
			box.append(el("p", {}, b));
		}
	};
	return next("");
}

// searchBox returns a field that calls search a moment after its last change.
function searchBox(label, value, search) {
	let timer;
	return el("div", { class: "bar", role: "search" }, el("input", {
		type: "search", "aria-label": label, placeholder: label + " \u2026", value,
		oninput: (e) => { clearTimeout(timer); timer = setTimeout(() => { if (e.target.isConnected) search(e.target.value); }, 250); },
	}));
}

async function viewRepositories(main) {
	const list = el("div", {});
	const show = (q) => {
		setParams({ q }, true, true);
		list.replaceChildren();
		return pages(list, (after) => api("repositories", { q, after }),
			(names) => el("ul", { class: "names" }, names.map((n) => el("li", {}, link(repoHref(n), name(n))))),
			q ? "No repository has a name with that." : "Nothing has been pushed yet.");
	};
	append(main, [el("h1", {}, "Repositories"), searchBox("Find repositories", params().get("q") || "", show), list]);
	await show(params().get("q") || "");
}

const imageTable = (repo, caption, images, first) => table(caption, [
	first,
	{ title: "Kind", cell: (m) => m.error ? el("span", { class: "badge bad" }, visible(m.error)) : [kindOf(m), m.platforms ? el("div", { class: "dim small wrap" }, visible(m.platforms.join(", "))) : ""] },
	{ title: "Digest", cls: "mono", cell: (m) => m.digest ? link(manifestHref(repo, m.digest), shortDigest(m.digest)) : "" },
	{ title: "Size", cls: "num", cell: (m) => m.error || !m.size ? "" : bytes(m.size) },
], images);

async function viewRepository(main) {
	const repo = params().get("repo") || "";
	const used = el("p", { class: "dim" }, "\u00a0"); // else what is below it would move
	const list = el("div", {}), rest = el("div", {});
	const show = (q) => {
		list.replaceChildren();
		return pages(list, (after) => api("repository", { repo, q, after }),
			(tags) => imageTable(repo, "Tags", tags, { title: "Tag", cell: (m) => link(manifestHref(repo, m.tag), name(m.tag)) }),
			q ? "No tag has a name with that." : "This repository has no tags.");
	};
	append(main, [crumbs(link("#repositories", "Repositories")), el("h1", {}, name(repo)), used, searchBox("Find tags", "", show), el("h2", {}, "Tags"), list, el("h2", {}, "Without a tag"), rest]);
	api("usage", { repo }).then((u) => { used.textContent = ""; append(used, [bytes(u.bytes), " in ", count(u.blobs, "blob"), " and ", count(u.manifests, "manifest"), u.more ? ", or more" : ""]); }, () => {});
	await show("");
	const found = el("p", {}, button("Find manifests without a tag", (e) => busy(e.target, async () => {
		const u = await api("untagged", { repo });
		rest.replaceChildren();
		append(rest, [
			u.items.length ? imageTable(repo, "Manifests without a tag", u.items, { title: "Refers to", cls: "mono", cell: (m) => m.subject ? link(manifestHref(repo, m.subject), shortDigest(m.subject)) : el("span", { class: "dim" }, "nothing") })
				: el("p", { class: "dim" }, "Each manifest has a tag, or belongs to an index."),
			u.more ? el("p", { class: "notice" }, "The repository has more than this page looks at.") : "",
		]);
	}), { id: "untagged" }));
	rest.append(found);
}

