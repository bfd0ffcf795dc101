// Elements. Everything that comes from a registry becomes text, never markup.

const byID = (id) => document.getElementById(id);

// el returns an element with properties and children, which are elements or text.
function el(tag, props, ...children) {
	const svg = svgTags.has(tag);
	const e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
	for (const [name, value] of Object.entries(props || {})) {
		if (value === undefined || value === null || value === false) continue;
		if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
		else e.setAttribute(name, value === true ? "" : String(value));
	}
	append(e, children);
	return e;
}

const svgTags = new Set(["svg", "rect", "text", "path", "line", "g", "title", "polyline"]);

function append(e, children) {
	for (const child of children.flat(9)) {
		if (child === undefined || child === null || child === false) continue;
		e.append(child instanceof Node ? child : String(child));
	}
}

// name returns hostile text, in isolation from the text around it, and with the characters
// visible that would change how it is shown.
const name = (text, cls) => el("bdi", { class: cls }, clipText(visible(text)));

const clipText = (text) => text.length > 20000 ? text.slice(0, 20000) + "\u2026" : text;

const link = (href, text, cls) => el("a", { href, class: cls }, text);

const button = (text, onclick, props) => el("button", { type: "button", onclick, ...props }, text);

// table returns a table. Columns have a title, a class and the function of a row.
function table(caption, columns, rows) {
	return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {},
		el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col", class: c.cls }, c.title)))),
		el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((c) => el("td", { class: c.cls }, c.cell(row))))))));
}

// define returns a list of terms and their values, without those that have none.
const define = (pairs, cls) => el("dl", { class: cls }, pairs.filter(([, v]) => v !== undefined && v !== null && v !== "").map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));

// say announces what has happened.
let saidTimer;
function say(text) {
	byID("said").textContent = text;
	clearTimeout(saidTimer);
	saidTimer = setTimeout(() => { byID("said").textContent = ""; }, 2500);
}

// copyText copies text to the clipboard, which browsers allow only with TLS or on loopback.
async function copyText(text) {
	try {
		await navigator.clipboard.writeText(text);
		say("Copied");
	} catch {
		const area = el("textarea", { readonly: true, "aria-label": "Text to copy" });
		area.value = text;
		(byID("dialog").open ? byID("dialog") : document.body).append(area);
		area.select();
		const ok = document.execCommand("copy");
		area.remove();
		say(ok ? "Copied" : "The browser does not allow copying");
	}
}

// save offers text as a file.
function save(filename, type, text) {
	const url = URL.createObjectURL(new Blob([text], { type }));
	const a = el("a", { href: url, download: filename });
	document.body.append(a);
	a.click();
	a.remove();
	setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// openDialog shows a dialog, and calls closed when it is closed.
function openDialog(title, children, closed) {
	const d = byID("dialog");
	d.replaceChildren(el("h1", { id: "dialog-title", tabindex: "-1" }, title), button("Close", closeDialog, { class: "close" }));
	append(d, [children]);
	d.onclose = () => {
		if (d.open) return; // it was opened again before this event came
		d.onclose = null;
		d.replaceChildren();
		if (closed) closed();
	};
	if (!d.open) d.showModal();
	byID("dialog-title").focus();
	return d;
}

// closeDialog closes the dialog if it is open. It does not wait for the event: until that
// comes, the URL may have changed.
function closeDialog() {
	const d = byID("dialog");
	if (!d.open) return;
	d.close();
	if (d.onclose) d.onclose();
}

// bar returns a picture of a share of a whole.
const bar = (part, whole, label) => el("svg", { width: 120, height: 12, viewBox: "0 0 120 12", role: "img", "aria-label": label },
	el("rect", { class: "track", width: 120, height: 12, rx: 2 }),
	el("rect", { class: "a", width: whole > 0 ? Math.max(1, Math.min(120, 120 * (part / whole))) : 0, height: 12, rx: 2 }));

