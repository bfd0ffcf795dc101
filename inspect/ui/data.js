// Where the page gets its data: from the server, or from the report that it is part of.

const report = byID("report") ? JSON.parse(byID("report").textContent) : null;

// urlOf returns the URL of a part of the page, without the name and the password that the
// page's own may have, with which browsers fetch nothing.
const urlOf = (path) => new URL(path, location.origin + location.pathname);

// api returns the result of a request to the server.
async function api(path, params, method) {
	const query = new URLSearchParams(Object.entries(params || {}).filter(([, v]) => v !== "" && v !== undefined)).toString();
	const url = path + (query ? "?" + query : "");
	if (report) {
		if (report.api[url] === undefined) throw new Error("This is not part of the report.");
		return report.api[url];
	}
	const resp = await fetch(urlOf("api/" + url), { method: method || "GET", headers: { Accept: "application/json" } });
	let result = {};
	try { result = await resp.json(); } catch { /* a deletion has no content */ }
	if (!resp.ok) {
		const e = (result.errors || [])[0];
		throw new Error(result.error || (e && (e.message || e.code)) || "The server responded with " + resp.status + ".");
	}
	return result;
}

// listen calls receive with each message of the server's stream of records, and whether it is
// the first of a connection, which has all records. It returns a function that ends it.
function listen(receive, state) {
	if (report) {
		receive({ records: report.records }, true);
		state("", "report");
		return () => {};
	}
	let source, closed = false, timer;
	// The browser would connect again by itself, and ask for the records after the last one.
	// The server may be another process by then, which counts from 1: ask for all.
	const open = () => {
		let first = true;
		source = new EventSource(urlOf("events"));
		source.onopen = () => state("live", "live");
		source.onmessage = (e) => { receive(JSON.parse(e.data), first); first = false; };
		source.onerror = () => {
			source.close();
			state("lost", "not connected");
			if (!closed) timer = setTimeout(open, 2000);
		};
	};
	open();
	return () => { closed = true; clearTimeout(timer); source.close(); };
}

