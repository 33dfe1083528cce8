import { get } from "./api.js";
import { Chart } from "./chart.js";
import { drawing, element, facts, setAttribute, setText } from "./dom.js";
import { allowClose, clientTable, refresh, start } from "./find.js";
import { bytes, integer, percent, rate, words } from "./format.js";
import { History } from "./history.js";
import { number, Table, text } from "./table.js";

const $ = (id) => document.getElementById(id);
const INTERVAL = 1000;
const ROWS = matchMedia("(max-width: 640px)").matches ? 8 : 15;

const history = new History();
let paused = false;
let timer;
let asked = 0; // requests; only the answer to the last one counts
let before = null; // the last snapshot
let latest = null;
let descriptions = {};

const throughput = new Chart($("charts"), "Messages");
const drops = new Chart($("charts"), "Drops by reason");
const closes = new Chart($("charts"), "Closes by code");
const refusals = new Chart($("charts"), "Refusals by reason");

const rooms = new Table($("rooms"), {
  key: (r) => r.id, empty: "There are no rooms.", note: (held) => noteOf(held, "rooms"),
  columns: [
    { label: "Room", name: true, cell: text((r) => r.id) },
    { label: "Members", cell: number((r) => r.members, integer) },
    { label: "Messages/s", cell: number((r) => r.messages_per_second, rate) },
    { label: "Deliveries/s", title: "messages × members", cell: number((r) => r.deliveries_per_second, rate) },
    { label: "Lost", title: "messages that members did not get", cell: number((r) => r.lost, integer, (r) => r.lost > 0) },
  ],
});
const clients = clientTable($("clients"), "No client is slow.", (held) => noteOf(held, "clients"));
let loops = null;
let figures = null;

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

function noteOf(held, what) {
  return held ? "The order is held while you are in the table." : `The first ${ROWS} ${what}, every second.`;
}

// ask asks for everything that the page shows, and goes on in a second.
async function ask() {
  clearTimeout(timer);
  const request = ++asked;
  if (paused || document.hidden) return;
  try {
    const [stats, points, ranking, slowest] = await Promise.all([
      get("stats"), get("history", { after: history.last }),
      get("rooms", { by: chosen("rooms"), n: ROWS }), get("clients", { by: chosen("clients"), n: ROWS }),
      refresh(),
    ]);
    if (request !== asked) return;
    if (stats.at !== latest?.at) [before, latest] = [latest, stats];
    history.add(points);
    rooms.update(ranking.rooms);
    clients.update(slowest.clients);
    setText($("rooms-count"), `${integer(ranking.total)} in all`);
    show(stats);
    setState("live");
  } catch (error) {
    if (request !== asked) return;
    setState("offline", error);
  }
  timer = setTimeout(ask, INTERVAL);
}

function setState(state, error) {
  document.body.dataset.state = state;
  $("state").dataset.state = state;
  setText($("state-text"), { live: "Live", paused: "Paused", offline: "Offline" }[state]);
  if (state === "live") setText($("updated"), new Date(latest.at).toLocaleTimeString("en-GB"));
  const seen = latest ? ` The figures are from ${new Date(latest.at).toLocaleTimeString("en-GB")}.` : "";
  $("offline").hidden = state !== "offline";
  setText($("offline"), state === "offline" ? `The server does not answer (${error.message}).${seen} The page goes on asking.` : "");
}

function show(stats) {
  allowClose(stats.may_close);
  showTiles(stats);
  showCharts();
  showLoops(stats);
  showDrain(stats);
  showAdmission(stats.manager);
  showFigures(stats);
}

const sum = (stats, name) => stats.loops.reduce((n, loop) => n + (loop[name] ?? 0), 0);
const lost = ({ reason }) => reason !== "conflated";

function showTiles(stats) {
  const losses = history.now("drops_total", lost);
  const blocked = sum(stats, "blocked");
  facts($("tiles"), [
    { label: "Clients", value: integer(stats.manager.clients) },
    { label: "Rooms", value: integer(stats.manager.rooms) },
    { label: "Messages in", value: rate(history.now("messages_in_total")), unit: "/s" },
    { label: "Messages out", value: rate(history.now("messages_out_total")), unit: "/s" },
    { label: "Bytes out", value: bytes(history.now("bytes_out_total")), unit: "/s" },
    { label: "Lost messages", value: rate(losses), unit: "/s", alarm: losses > 0, title: "drops, without conflated messages" },
    { label: "Full sockets", value: integer(blocked), title: "clients that take no bytes at the moment" },
    { label: "Queued", value: bytes(sum(stats, "queued_memory_bytes")), title: "memory of the queues of full sockets" },
  ]);
}

function showCharts() {
  const now = history.last;
  const line = (label, name) => {
    const [found] = history.find(name);
    return found ? [{ label, rates: history.rates(found.place), note: `${rate(history.now(name))}/s` }] : [];
  };
  const lines = [...line("in", "messages_in_total"), ...line("out", "messages_out_total")];
  const peak = Math.max(0, ...lines.flatMap(({ rates }) => rates.map(({ value }) => value)));
  throughput.update(lines, { now, summary: `peak ${rate(peak)}/s`, none: "no messages" });
  byReason(drops, "drops_total", "No message was dropped.");
  byReason(closes, history.find("closes_total").length ? "closes_total" : "closed_total", "No connection ended.");
  byReason(refusals, "refused_total", "No request was refused.");
}

function byReason(chart, name, none) {
  const lines = history.find(name)
    .map(({ reason, place }) => ({
      label: (reason ?? "all").replaceAll("_", " "), total: history.total(place), rates: history.rates(place),
    }))
    .filter(({ total }) => total > 0)
    .sort((a, b) => b.total - a.total)
    .map((l) => ({ ...l, note: integer(l.total) }));
  const total = lines.reduce((n, l) => n + l.total, 0);
  chart.update(lines, { now: history.last, summary: total ? `${integer(total)} in 5 min` : "", none });
}

// loopRate is the growth of a counter of a loop, per second.
function loopRate(loop, name) {
  const old = before?.loops[loop.index]?.[name];
  return old === undefined ? 0 : Math.max(0, (1000 * (loop[name] - old)) / (latest.at - before.at));
}

function busyCell(td, loop) {
  const share = Math.min(1, loop.busy);
  if (!td.firstChild) {
    const bar = drawing("rect", { height: 6, width: 0 });
    const picture = drawing("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" }, bar);
    td.append(element("span", { className: "busy" }, picture, element("span")));
  }
  const box = td.firstChild;
  setAttribute(box.querySelector("rect"), "width", (100 * share).toFixed(0));
  setText(box.lastChild, percent(share));
  box.classList.toggle("high", share > 0.9);
}

function loopColumns(loop) {
  const has = (name) => loop[name] !== undefined;
  const growth = (name) => number((l) => l.rates[name], rate);
  return [
    { label: "Loop", name: true, cell: text((l) => l.label) },
    { label: "Connections", cell: number((l) => l.connections, integer) },
    ...(has("busy_seconds_total") ? [{ label: "Busy", title: "share of the time in which the loop works", cell: busyCell }] : []),
    { label: "Inbox", title: "tasks that wait in the loop's ring", cell: number((l) => l.inbox_len, integer) },
    { label: "Full sockets", cell: number((l) => l.blocked, integer) },
    { label: "Queued", title: "memory of the queues of full sockets", cell: number((l) => l.queued_memory_bytes, bytes) },
    { label: "Slow", title: "clients between OnSlow and OnDrain", cell: number((l) => l.slow, integer) },
    { label: "Paused", title: "clients that are not read, so that they wait", cell: number((l) => l.paused, integer) },
    { label: "Yields/s", title: "turns that were cut short for fairness", cell: growth("yields_total") },
    ...(has("stalls_total")
      ? [{ label: "Stalls", title: "callbacks that held the loop too long", cell: number((l) => l.stalls_total, integer, (l) => l.stalls_total > 0) }]
      : []),
  ];
}

function showLoops(stats) {
  if (!stats.loops.length) return; // before Run
  loops ??= new Table($("loops"), { key: (l) => l.label, columns: loopColumns(stats.loops[0]), empty: "" });
  const rows = stats.loops.map((loop, index) => {
    const row = { ...loop, index, label: String(index) };
    row.rates = { yields_total: loopRate(row, "yields_total") };
    row.busy = loopRate(row, "busy_seconds_total");
    return row;
  });
  loops.update(rows);
}

function showDrain({ drain }) {
  $("draining").hidden = drain.phase === "none";
  const left = `${integer(drain.remaining)} of ${integer(drain.total)} clients are left`;
  const texts = {
    none: "",
    grace: `This server is about to drain: ${left}, and new ones are still accepted.`,
    slots: `This server drains: ${left}, ${rate(drain.clients_per_second)} get their slot every second.`,
    done: `This server is drained. ${integer(drain.moved)} clients have moved, ${integer(drain.closed)} were closed at their slot, ` +
      `${integer(drain.forced)} at once.`,
  };
  setText($("draining"), texts[drain.phase] ?? drain.phase);
}

const admissionFacts = [
  ["accept_descriptors_resting", "Waits for descriptors", (n) => (n ? "yes" : "no"), true],
  ["accept_pace_resting", "Waits for the pace", (n) => (n ? "yes" : "no"), true],
  ["accept_upgrades", "Upgrades that wait", integer],
  ["accept_polite_total", "Polite refusals", integer],
  ["accept_addresses", "Addresses that count", integer],
  ["accept_authenticating", "Authentications", integer],
  ["accept_auth_queue", "Waiting to authenticate", integer, true],
  ["stuck", "Stuck authentications", integer, true],
  ["waiting_tasks", "Clients that wait for a worker", integer],
  ["rate_limited_total", "Rate-limited messages", integer],
  ["late_handlers_total", "Late handlers", integer],
  ["inbound_memory_bytes", "Inbound memory", bytes],
  ["histories", "Rooms with a history", integer],
  ["history_memory_bytes", "History memory", bytes],
  ["history_evicted_total", "Evicted messages", integer, true],
  ["gaps_total", "Gaps", integer, true],
];

function showAdmission(manager) {
  const refused = Object.values(manager.refused_total ?? {}).reduce((n, m) => n + m, 0);
  facts($("admission"), [
    { label: "Refused requests", value: integer(refused), title: "since the start" },
    ...admissionFacts.filter(([name]) => manager[name] !== undefined).map(([name, label, format, alarming]) => (
      { label, value: format(manager[name]), alarm: alarming && manager[name] > 0, title: descriptions[name]?.help }
    )),
  ]);
}

// flat lists all figures of a snapshot; those of loops are summed.
function flat(stats) {
  const list = new Map();
  const add = (name, value, reason) => {
    if (typeof value === "object") {
      for (const [r, n] of Object.entries(value)) add(name, n, r);
      return;
    }
    const key = reason ? `${name} ${reason}` : name;
    list.set(key, { key, name, reason, value: (list.get(key)?.value ?? 0) + value });
  };
  for (const [name, value] of Object.entries(stats.manager)) add(name, value);
  for (const loop of stats.loops) for (const [name, value] of Object.entries(loop)) add(`loop_${name}`, value);
  return [...list.values()];
}

const unitOf = (name) => (/_bytes(_|$)|bytes_(in|out)/.test(name) ? bytes : name.includes("_seconds") ? (n) => `${n.toFixed(2)} s` : integer);

function showFigures(stats) {
  if (!$("all").open) return;
  figures ??= new Table($("figures"), {
    key: (f) => f.key, empty: "",
    columns: [
      { label: "Figure", name: true, cell: text((f) => words(f.name) + (f.reason ? `: ${f.reason.replaceAll("_", " ")}` : "")) },
      { label: "Value", cell: number((f) => f.value, (n, f) => unitOf(f.name)(n)) },
      { label: "Meaning", cell: text((f) => descriptions[f.name]?.help ?? "") },
    ],
  });
  figures.update(flat(stats));
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  setText($("pause"), paused ? "Resume" : "Pause");
  if (paused) setState("paused");
  ask();
});
for (const input of document.querySelectorAll(".switch input")) input.addEventListener("change", ask);
document.addEventListener("visibilitychange", ask);
$("all").addEventListener("toggle", () => latest && showFigures(latest));
setText($("host"), location.host);
start();
get("figures").then((answer) => (descriptions = answer), () => {});
ask();
