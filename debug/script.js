"use strict";

// Everything that is shown comes from others and is set as text, never as HTML.

const $ = (selector, from = document) => from.querySelector(selector);
const list = $("#clients"), tip = $("#tip"), rangeSelect = $("#range select"), filterBox = $("#filter");
const STATES = ["waiting", "connecting", "offline", "suspended", "idle", "closed", "open"];
const QUIET = 40_000; // ms: the server says something at least every 15 s
const HOLD = 15_000; // ms: a client that was in trouble stays among the first for so long
const KEPT = 400; // spans for each client

const rows = new Map(); // by name
let skew = 0; // the server's clock less ours
let range = 0; // ms, of the timelines
const epoch = Date.now(); // the x of timelines counts from here: floats of a picture are short
let only = ""; // a state, or all

const now = () => Date.now() + skew;

// Text

function el(tag, className, text) {
	const e = document.createElement(tag);
	if (className) e.className = className;
	if (text !== undefined) e.textContent = text;
	return e;
}

// put sets the text of an element, if it is another one.
function put(e, text) {
	if (e.shown !== text) e.textContent = e.shown = text;
}

// pair sets a text and a smaller one.
function pair(e, text, small) {
	const both = text + "\n" + small;
	if (e.shown === both) return;
	e.shown = both;
	e.classList.toggle("zero", /^(0(?! s)|–)/.test(text) && !/[1-9]/.test(small));
	e.replaceChildren(text, ...(small ? [" ", el("small", "", small)] : []));
}

function count(n) {
	if (n >= 9.995e5) return (n / 1e6).toPrecision(3) + " M";
	if (n >= 9_999.5) return (n / 1e3).toPrecision(3) + " k";
	return n > 0 && n < 10 ? String(Math.round(n * 10) / 10) : Math.round(n).toLocaleString("en");
}

function bytes(n) {
	for (const unit of ["B", "kB", "MB", "GB"]) {
		if (n < 999.5 || unit === "GB") return (unit === "B" || n >= 100 ? Math.round(n) : n.toPrecision(2)) + " " + unit;
		n /= 1000;
	}
}

// duration is about seconds.
function duration(s) {
	if (s < 0.001) return s <= 0 ? "0 s" : Math.max(1, Math.round(s * 1e6)) + " µs";
	if (s < 0.9995) return Math.round(s * 1e3) + " ms";
	if (s < 9.95) return Math.round(s * 10) / 10 + " s";
	if (s < 119.5) return Math.round(s) + " s";
	if (s < 7200) return Math.round(s / 60) + " min";
	if (s < 172_800) return Math.round(s / 360) / 10 + " h";
	return Math.round(s / 8640) / 10 + " d";
}

// age is how long ago something was, in whole seconds, so that it does not flicker.
const age = (at) => duration(Math.max(0, Math.floor((now() - at) / 1000)));

const clock = new Intl.DateTimeFormat("en-GB", {hour: "2-digit", minute: "2-digit", second: "2-digit"});
const day = new Intl.DateTimeFormat("en-GB", {day: "numeric", month: "short"});

function time(at) {
	const d = new Date(at);
	return (now() - at > 72_000_000 ? day.format(d) + " " : "") + clock.format(d);
}

// told is the text of an error, without what is said beside it.
function told(error, phase) {
	const text = error.replaceAll("resock: ", "");
	return text.startsWith(`dial: ${phase}: `) ? text.slice(phase.length + 8) : text;
}

// cause is how something ended.
function cause(e) {
	const parts = [];
	if (e.failures > 1) parts.push(`${e.failures} failures, the last one`);
	if (e.phase) parts.push(e.phase);
	if (e.error) parts.push(told(e.error, e.phase));
	if (e.code) parts.push(`closed with ${e.code}` + (e.reason ? ` “${e.reason}”` : ""));
	return parts.join(": ") + (e.rule ? ` (rule: ${e.rule})` : "");
}

// Data

// parsed turns times into numbers.
function parsed(o, ...names) {
	for (const name of names) if (o[name]) o[name] = Date.parse(o[name]);
	return o;
}

class Row {
	constructor(name) {
		this.name = name;
		this.spans = [];
		this.ends = [];
		this.node = $("#client").content.firstElementChild.cloneNode(true);
		this.node.row = this;
		const at = (selector) => $(selector, this.node);
		this.at = {state: at(".state b"), age: at(".state small"), button: at(".name button"), url: at(".name small")};
		put(at("bdi"), name);
	}

	// fill adds what only those rows need that were in sight: of many, most never are.
	fill() {
		const note = el("p", "note");
		$(".row", this.node).append($("#rest").content.cloneNode(true));
		$(".row", this.node).after(note);
		const at = (selector) => $(selector, this.node);
		Object.assign(this.at, {timeline: at(".timeline"), in: at(".in"), out: at(".out"), queue: at(".queue"), trip: at(".trip"), last: at(".last"), note});
		this.filled = true;
	}

	// take takes what is new.
	take(c) {
		parsed(c, "since", "nextAttempt", "lastMessage", "blockedSince");
		for (const s of [...(c.spans ?? []), ...c.live]) parsed(s, "start", "end");
		if (c.spans) this.spans = this.spans.concat(c.spans).slice(-KEPT);
		if (c.ends) this.ends = this.ends.concat(c.ends.map((e) => parsed(e, "time"))).slice(-20);
		this.live = c.live;
		this.c = c;
		this.told = now();
		const last = this.ends[this.ends.length - 1];
		this.hay = [c.name, c.url, c.state, c.blockedBy, c.lastError, last ? cause(last) : ""].join("\n").toLowerCase();
		const rank = this.ownRank();
		if (rank < 3) this.troubled = now(), this.trouble = rank;
		this.shapes = "";
		this.render();
	}

	// ownRank is the place among others: the smaller, the more trouble.
	ownRank() {
		const c = this.c;
		if (c.blockedSince && now() - c.blockedSince > 1000) return 1;
		switch (c.state) {
			case "waiting": case "offline": return 0;
			case "connecting": return this.ends.length > 0 ? 0 : 3;
			case "closed": return c.err ? 2 : 6;
			case "suspended": return 3;
			case "idle": return 4;
		}
		return 5;
	}

	get rank() {
		const rank = this.ownRank();
		return rank > 3 && now() - this.troubled < HOLD ? this.trouble : rank;
	}

	get downtime() {
		const c = this.c;
		return c.downtime + (c.session > 0 && c.state !== "open" && c.state !== "closed" ? (now() - this.told) / 1000 : 0);
	}

	// render shows what came; tick what changes by itself. Out of sight, both show little.
	render() {
		const {c, at} = this, r = c.rates;
		if (this.node.className !== "client " + c.state) this.node.className = "client " + c.state;
		put(at.state, c.state);
		put(at.url, c.url ?? (c.session ? "" : "no session yet"));
		if (this.more) this.renderMore();
		if (!this.visible) return;
		if (!this.filled) this.fill();
		pair(at.in, `${count(r.messagesIn)}/s`, `${bytes(r.bytesIn)}/s`);
		pair(at.out, `${count(r.messagesOut)}/s`, `${bytes(r.bytesOut)}/s`);
		pair(at.queue, count(c.queued), c.queued ? bytes(c.queuedBytes) : c.dropped ? `${count(c.dropped)} dropped` : "");
		pair(at.trip, c.roundTrip ? duration(c.roundTrip) : "–", "");
		this.tick();
	}

	tick() {
		const {c, at} = this;
		if (this.more) this.tickMore();
		if (!this.visible) return;
		put(at.age, "for " + age(c.since));
		pair(at.last, c.lastMessage ? age(c.lastMessage) + " ago" : "–", "");
		put(at.note, this.note());
		this.draw();
	}

	// next tells of the next attempt.
	get next() {
		const {c} = this;
		if (c.state !== "waiting" || !c.nextAttempt) return "";
		const left = Math.ceil((c.nextAttempt - now()) / 1000);
		return left > 0 ? `next attempt in ${duration(left)}` : "next attempt now";
	}

	// note is what is wrong.
	note() {
		const {c} = this, notes = [];
		if (c.blockedSince && now() - c.blockedSince > 1000) notes.push(`delivery blocked by “${c.blockedBy}” for ${age(c.blockedSince)}`);
		if (c.state === "closed" && c.err) notes.push(told(c.err));
		if (["waiting", "connecting", "offline"].includes(c.state)) {
			if (this.next) notes.push(this.next);
			const last = this.ends[this.ends.length - 1];
			if (last) notes.push(cause(last));
		}
		return notes.join(" · ");
	}

	// all returns the spans up to now.
	all() {
		return this.spans.concat(this.live);
	}

	// draw draws the timeline. It is made of seconds since epoch; as time goes by only the
	// view of it moves.
	draw() {
		const end = (now() - epoch) / 1000, wide = range / 1000;
		const key = `${this.spans.length} ${this.c.since} ${range} ${this.told}`;
		this.at.timeline.setAttribute("viewBox", `${(end - wide).toFixed(2)} 0 ${wide} 26`);
		if (this.shapes === key) return;
		this.shapes = key;
		const from = now() - range * 1.1, shapes = [];
		for (const s of this.all()) {
			if (s.end && s.end < from) continue;
			shapes.push(shape(s, from));
		}
		shapes.sort((a, b) => a.z - b.z); // outages in front of sessions
		this.at.timeline.replaceChildren(...shapes);
		const outages = this.all().filter((s) => s.failures).length;
		this.at.timeline.setAttribute("aria-label", `${this.c.state} since ${time(this.c.since)}, ${outages} failures in its timeline`);
	}
}

const HEIGHTS = {open: 26, connecting: 18, waiting: 11, suspended: 6, offline: 6, idle: 3, closed: 3};

function shape(s, from) {
	const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
	const start = (Math.max(s.start, from) - epoch) / 1000, high = HEIGHTS[s.state] ?? 3;
	rect.setAttribute("class", s.state + (s.state === "open" ? "" : " gap"));
	rect.setAttribute("x", start.toFixed(3));
	rect.setAttribute("width", s.end ? Math.max(0.001, (s.end - epoch) / 1000 - start).toFixed(3) : 1e6);
	rect.setAttribute("y", 26 - high);
	rect.setAttribute("height", high);
	rect.z = s.state === "open" ? 0 : s.state === "waiting" ? 1 : 2;
	return rect;
}

// spanAt returns the span at a place of a timeline. Those that are hard to hit come first:
// what failed, and then the shortest.
function spanAt(row, x) {
	const box = row.at.timeline.getBoundingClientRect();
	const perPixel = range / box.width, at = now() - range + (x - box.left) * perPixel;
	const near = row.all().filter((s) => s.start <= at + 3 * perPixel && (s.end || Infinity) >= at - 3 * perPixel);
	const exact = near.filter((s) => s.start <= at && (s.end || Infinity) >= at);
	const length = (s) => (s.end || now()) - s.start;
	const short = near.filter((s) => length(s) < 6 * perPixel);
	const order = (a, b) => !cause(a) - !cause(b) || length(a) - length(b);
	return (short.length ? short : exact).sort(order)[0];
}

// showTip tells of the span under the pointer, be it a mouse or a finger.
function showTip(event) {
	const timeline = event.target.closest?.(".timeline");
	const s = timeline && spanAt(timeline.closest(".client").row, event.clientX);
	tip.hidden = !s;
	if (!s) return;
	const lines = [s.state + (s.session ? `, session ${s.session}` : "") + ", " + duration(((s.end || now()) - s.start) / 1000)];
	lines.push(`${time(s.start)} to ${s.end ? time(s.end) : "now"}`);
	if (cause(s)) lines.push(cause(s));
	put(tip, lines.join("\n"));
	const box = timeline.getBoundingClientRect(), own = tip.getBoundingClientRect();
	const left = Math.min(Math.max(8, event.clientX - own.width / 2), innerWidth - own.width - 8);
	const above = box.top - own.height - 6;
	tip.style.left = left + "px";
	tip.style.top = (above > 4 ? above : box.bottom + 6) + "px";
}

list.addEventListener("pointermove", showTip);
addEventListener("pointerdown", showTip); // beside a timeline it hides the tip
list.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") tip.hidden = true; }); // a finger always leaves
addEventListener("scroll", () => tip.hidden = true, {passive: true});
addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

// Details

Row.prototype.toggle = function () {
	const open = !this.more;
	this.at.button.setAttribute("aria-expanded", String(open));
	if (!open) {
		this.more.remove();
		this.more = undefined;
		return;
	}
	this.more = el("div", "more");
	this.facts = el("dl");
	this.log = el("ol", "log"), this.past = el("ol", "log");
	this.log.tabIndex = this.past.tabIndex = 0; // to be scrolled by keyboard
	const right = el("div");
	right.append(el("h3", "", "How the last attempts and sessions ended"), this.log, el("h3", "", "Sessions and outages"), this.past);
	this.more.append(this.facts, right);
	this.node.append(this.more);
	this.renderMore();
};

Row.prototype.renderMore = function () {
	this.tickMore();
	const key = `${this.spans.length} ${this.c.since} ${this.ends.length} ${this.ends.at(-1)?.time}`;
	if (this.moreKey === key && this.log.firstChild) return;
	this.moreKey = key;
	this.log.replaceChildren(...this.ends.toReversed().map((e) => entry(e.time, e.session ? `session ${e.session}` : `attempt ${e.attempt}`,
		`after ${duration(e.took)}: ${cause(e)}, then ${e.next}${e.retryIn ? ` for ${duration(e.retryIn)}` : ""}`)));
	if (!this.ends.length) this.log.append(el("li", "muted", "none"));
	this.past.replaceChildren(...this.all().slice(-40).toReversed().map((s) => entry(s.start, s.state + (s.session ? ` ${s.session}` : ""),
		(s.end ? duration((s.end - s.start) / 1000) : "until now") + (cause(s) ? `, ${cause(s)}` : ""))));
};

function entry(at, what, text) {
	const li = el("li"), when = el("time", "muted", time(at));
	when.dateTime = when.title = new Date(at).toISOString();
	li.append(when, el("span", "", what), el("bdi", "", text));
	return li;
}

Row.prototype.tickMore = function () {
	const {c} = this;
	const facts = [
		["Session", c.session ? `${c.session}${c.subprotocol ? `, ${c.subprotocol}` : ""}` : "none yet"],
		["URL", c.url ?? "–"],
		["Since", `${time(c.since)} (${age(c.since)})`],
		["Next attempt", c.state === "waiting" && c.nextAttempt ? `${time(c.nextAttempt)}, ${this.next}` : "–"],
		["Attempts", `${count(c.attempts)}, and ${count(c.fails)} failures`],
		["Downtime", duration(this.downtime)],
		["Received", `${count(c.messagesIn)} messages, ${bytes(c.bytesIn)}`],
		["Sent", `${count(c.messagesOut)} messages, ${bytes(c.bytesOut)}`],
		["Last message", c.lastMessage ? `${time(c.lastMessage)} (${age(c.lastMessage)} ago)` : "–"],
		["Queue", `${count(c.queued)} messages, ${bytes(c.queuedBytes)}`],
		["Dropped", `${count(c.dropped)} messages`],
		["Blocked", c.blockedSince ? `by “${c.blockedBy}” for ${age(c.blockedSince)}` : `${duration(c.blocked)} in all`],
		["Round trip", c.roundTrip ? duration(c.roundTrip) : "–"],
		["Last failure", c.lastError ? told(c.lastError) : "none"],
	];
	if (c.state === "closed") facts.push(["Ended", c.err ? told(c.err) : "as intended"]);
	if (this.facts.children.length !== facts.length * 2)
		this.facts.replaceChildren(...facts.flatMap(([name]) => [el("dt", "", name), el("dd")]));
	facts.forEach(([, text], i) => put(this.facts.children[2 * i + 1], text));
};

list.addEventListener("click", (event) => event.target.closest(".name button")?.closest(".client").row.toggle());

// The list

const watcher = new IntersectionObserver((seen) => {
	for (const {target, isIntersecting} of seen) {
		target.row.visible = isIntersecting;
		if (isIntersecting) target.row.render();
	}
}, {rootMargin: "300px"});

let touched = 0; // when the pointer last moved over the list
list.addEventListener("pointermove", () => touched = Date.now(), {passive: true});

// busy reports whether somebody is about to press something in the list.
const busy = () => Date.now() - touched < 2000 && list.matches(":hover") || list.querySelector(":focus-visible");

// sort moves those clients whose place changed; while somebody is busy it only adds new ones.
function sort() {
	const moved = new Set(), wait = busy();
	for (const row of rows.values()) {
		if (wait && row.node.isConnected) continue;
		const rank = row.rank;
		if (rank !== row.sortedBy || !row.node.isConnected) row.sortedBy = rank, moved.add(row);
	}
	if (!moved.size) return;
	const sorted = [...rows.values()].sort((a, b) => a.sortedBy - b.sortedBy || (a.name < b.name ? -1 : 1));
	for (const row of moved) row.node.remove();
	let next = list.firstChild;
	for (const row of sorted) {
		if (row.node === next) next = next.nextSibling;
		else list.insertBefore(row.node, next);
	}
}

function filter() {
	const wanted = filterBox.value.trim().toLowerCase();
	let shown = 0;
	for (const row of rows.values()) {
		const hidden = only && row.c.state !== only || wanted && !row.hay.includes(wanted);
		if (row.node.hidden !== !!hidden) row.node.hidden = !!hidden;
		if (!hidden) shown++;
	}
	const none = $("#none");
	none.hidden = shown > 0;
	put(none, rows.size ? "No client matches the filter." : "No client is registered.");
}

function totals() {
	const sum = {messagesIn: 0, messagesOut: 0, bytesIn: 0, bytesOut: 0, queued: 0, dropped: 0, blocked: 0, downtime: 0};
	const states = {};
	for (const row of rows.values()) {
		const {c} = row;
		states[c.state] = (states[c.state] ?? 0) + 1;
		for (const name of ["messagesIn", "messagesOut", "bytesIn", "bytesOut"]) sum[name] += c.rates[name];
		sum.queued += c.queued;
		sum.dropped += c.dropped;
		sum.blocked += c.blockedSince ? 1 : 0;
		sum.downtime += row.downtime;
	}
	const all = [
		["Open", `${count(states.open ?? 0)}`, `of ${count(rows.size)}`], ["In", `${count(sum.messagesIn)}/s`, `${bytes(sum.bytesIn)}/s`], ["Out", `${count(sum.messagesOut)}/s`, `${bytes(sum.bytesOut)}/s`],
		["Queued", count(sum.queued), ""], ["Dropped", count(sum.dropped), ""], ["Blocked", count(sum.blocked), ""], ["Downtime", duration(sum.downtime), ""],
	];
	const dl = $("#totals");
	if (!dl.firstChild) for (const [name] of all) {
		const div = el("div");
		div.append(el("dt", "", name), el("dd"));
		dl.append(div);
	}
	all.forEach(([, text, small], i) => pair(dl.children[i].lastChild, text, small));
	for (const button of $("#states").children) {
		const n = states[button.state] ?? 0;
		put(button.lastChild, `${button.state} ${n}`);
		button.hidden = !n && only !== button.state;
	}
}

for (const state of STATES) {
	const button = el("button", state);
	button.type = "button";
	button.state = state;
	button.setAttribute("aria-pressed", "false");
	button.append(el("span", "mark"), el("span"));
	button.addEventListener("click", () => {
		only = only === state ? "" : state;
		for (const b of $("#states").children) b.setAttribute("aria-pressed", String(b.state === only));
		filter();
	});
	$("#states").append(button);
}
filterBox.addEventListener("input", filter);
function setRange() {
	range = Number(rangeSelect.value) * 1000;
	put($("#axis").firstChild, `Timeline: ${rangeSelect.selectedOptions[0].text} ago`);
	for (const row of rows.values()) if (row.visible) row.draw();
}

rangeSelect.addEventListener("change", setRange);
setRange(); // a browser may remember another one

// The stream

function apply(u) {
	skew = Date.parse(u.time) - Date.now();
	$("main").hidden = false;
	const stay = u.all && new Set(u.clients?.map((c) => c.name));
	for (const name of stay ? [...rows.keys()].filter((name) => !stay.has(name)) : u.removed ?? []) {
		watcher.unobserve(rows.get(name).node);
		rows.get(name).node.remove();
		rows.delete(name);
	}
	for (const c of u.clients ?? []) {
		let row = rows.get(c.name);
		if (!row) {
			rows.set(c.name, row = new Row(c.name));
			watcher.observe(row.node);
		} else if (u.all) row.spans = [], row.ends = [];
		row.take(c);
	}
	sort();
	filter();
	totals();
}

let source, heard = 0, lostAt = 0, polling = 0;

function say(text, lost) {
	document.body.classList.toggle("lost", lost);
	put($("#status"), text);
}

function connect() {
	source?.close();
	clearTimeout(polling);
	source = new EventSource("?events"); // which comes again by itself
	heard = Date.now();
	source.onmessage = (event) => {
		heard = Date.now();
		lostAt = 0;
		apply(JSON.parse(event.data));
		say("live", false);
	};
	source.onerror = () => {
		if (source.readyState === EventSource.CLOSED) refused();
		else lost();
	};
}

function lost() {
	lostAt ||= Date.now();
	say(`The stream is lost: this is as it was at ${time(heard + skew)}. Trying again…`, true);
}

// refused asks now and then, since there is no stream: perhaps too many pages are open.
async function refused() {
	source.close();
	clearTimeout(polling);
	try {
		const answer = await fetch("?json", {cache: "no-store"});
		if (!answer.ok) throw new Error(answer.statusText);
		const report = await answer.json();
		for (const c of report.clients) c.spans = c.timeline.slice(0, -1), c.live = c.timeline.slice(-1), c.ends.reverse();
		heard = Date.now();
		apply({...report, all: true});
		say("not live: the server refuses the stream. Asking every 5 s.", false);
	} catch {
		lost();
	}
	polling = setTimeout(connect, 5000);
}

setInterval(() => {
	if (document.hidden) return;
	if (Date.now() - heard > QUIET) {
		lost();
		connect();
		heard = Date.now() - QUIET / 2;
		return;
	}
	if (lostAt) return; // nothing is known of what goes on
	for (const row of rows.values()) if (row.visible && !row.node.hidden || row.more) row.tick();
	sort();
	totals();
}, 1000);

// A page in the background needs no stream.
document.addEventListener("visibilitychange", () => {
	if (!document.hidden) return connect();
	source?.close();
	clearTimeout(polling);
});
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
say("connecting…", false);
connect();
