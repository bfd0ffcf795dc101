// The views, by the fragment of the URL: #timeline?status=failed.

const views = { timeline: viewTimeline, repositories: viewRepositories, repository: viewRepository, manifest: viewManifest, layer: viewLayer, pictures: viewPictures };
const titles = { timeline: "Timeline", repositories: "Repositories", repository: "Repository", manifest: "Manifest", layer: "Layer", pictures: "Pictures" };
const sections = { timeline: "timeline", repositories: "repositories", repository: "repositories", manifest: "repositories", layer: "repositories", pictures: "pictures" };

const split = () => { const [view, query] = location.hash.slice(1).split(/\?(.*)/s); return [Object.hasOwn(views, view) ? view : "timeline", new URLSearchParams(query || "")]; };
const params = () => split()[1];

// setParams changes parameters of the view in the URL; silent does not draw the view again.
function setParams(changes, replace, silent) {
	const [view, all] = split();
	for (const [k, v] of Object.entries(changes)) if (v === "" || v === undefined) all.delete(k); else all.set(k, v);
	const hash = "#" + view + (all.toString() ? "?" + all : "");
	if (hash === location.hash) return;
	if (replace || view !== "timeline") history.replaceState(history.state, "", hash);
	else history.pushState({ opened: true }, "", hash);
	if (!silent) changed();
}

let shownView = "", shownQuery = "", leave = null, serial = 0;

// changed shows what the URL says.
async function changed() {
	const [view, all] = split();
	const open = view === "timeline" ? all.get("open") : "";
	const query = all.toString();
	if (view === "timeline" && shownView === "timeline") {
		drawTimeline(true);
	} else if (view !== shownView || query !== shownQuery) {
		const mine = ++serial;
		if (leave) leave();
		leave = null;
		const main = el("div", {});
		byID("main").replaceChildren(main);
		for (const a of document.querySelectorAll("header nav a")) {
			if (a.getAttribute("href") === "#" + sections[view]) a.setAttribute("aria-current", "page"); else a.removeAttribute("aria-current");
		}
		document.title = titles[view] + (all.get("repo") ? ": " + visible(all.get("repo")) : "") + " \u00b7 Berth";
		closeDialog();
		scrollTo(0, 0);
		if (shownView) byID("main").focus();
		shownView = view;
		shownQuery = query;
		try {
			const done = await views[view](main);
			if (mine === serial) leave = done || null; else if (done) done();
		} catch (e) {
			main.append(failure(e));
		}
		if (mine !== serial) return; // another view is shown
	}
	if (open && byID("dialog").dataset.open !== open) {
		byID("dialog").dataset.open = open;
		await openRequest(open);
	} else if (!open) {
		delete byID("dialog").dataset.open;
		if (view === "timeline") closeDialog();
	}
}

byID("skip").addEventListener("click", (e) => { e.preventDefault(); byID("main").focus(); });
byID("host").textContent = report ? visible(report.title) : location.host;
addEventListener("hashchange", changed);
addEventListener("popstate", changed);
listen(receive, (cls, text) => { byID("state").className = cls; byID("state").textContent = text; });
changed();
