// The page: the connection at full speed, the three panels, and the rate of their links.

import { connect } from "@qi-realtime/ws-client";
import type { API, Price } from "./api.gen.js";
import { WINDOW } from "./chart.js";
import type { View } from "./chart.js";
import { duration, number, Panel, plural, set } from "./panel.js";

const SLICE = 5000; // of the table
const SCALES = [1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000];

const $ = <E extends HTMLElement>(selector: string): E => document.querySelector<E>(selector)!;
const checked = (): HTMLInputElement => $<HTMLInputElement>("#speed :checked");

const link = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
const control = connect<API>("/ws");

// The server's clock: the best answer is the one that came fastest.
let ahead = 0;
let fastest = Infinity;
async function readClock(): Promise<void> {
  const before = Date.now();
  const { now } = await control.request("clock");
  const took = Date.now() - before;
  if (took > fastest + 5) return;
  fastest = took;
  ahead = now - (before + took / 2);
}

const panels = ["conflate", "ttl", "catchup"].map(
  (id) => new Panel(id, () => `/slow?link=${link}&rate=${checked().value}`, () => Date.now() + ahead),
);
const catchUp = panels[2]!;

// The feed: the number of prices published up to some moments, and the newest ones.
const reports: { at: number; published: number }[] = [];
let prices: Price[] = [];
control.room("feed").on("report", (report) => {
  prices = report.prices ?? [];
  reports.push({ at: report.at - ahead, published: report.published });
});

/** The newest price of each symbol: a panel may know a newer one than the last report. */
function newest(): Price[] {
  return prices.map((price) => panels.reduce((best, panel) => {
    const other = panel.prices.get(price.symbol);
    return other && other.n > best.n ? other : best;
  }, price));
}

/** The number at a time; NaN before the first report. */
function publishedAt(time: number): number {
  const i = reports.findIndex(({ at }) => at >= time);
  if (i <= 0) return i < 0 && reports.length ? reports.at(-1)!.published : NaN;
  const [before, after] = [reports[i - 1]!, reports[i]!];
  return before.published + ((after.published - before.published) * (time - before.at)) / (after.at - before.at);
}

function publishedRate(): number {
  const lately = Date.now() - 1000;
  return publishedAt(lately) - publishedAt(lately - 1000) || 200;
}

// The rate of the links.
const changes: View["changes"] = [];
let behind = false; // CatchUp had something to catch up with
let gapTold = false;

async function setRate(): Promise<void> {
  const text = checked().nextElementSibling!.textContent!;
  if (changes.length && changes.at(-1)!.at > Date.now() - 1000) changes.pop(); // passed by, with the arrow keys
  changes.push({ at: Date.now(), text: text.replace(" speed", "") });
  gapTold = false;
  say(`Connections: ${text}`);
  try {
    await control.request("link", { link, bytes_per_second: +checked().value }, { idempotent: true });
  } catch (error) {
    say(`The speed was not changed: ${error}`);
  }
}
$("#speed").addEventListener("change", () => void setRate());

/** Shows a line that screen readers read aloud. It changes seldom. */
function say(text: string): void {
  set($("#status"), text);
}

/** Says what has happened to CatchUp, once for each change of the rate. */
function comment(): void {
  const lag = catchUp.lag ?? 0;
  const gap = catchUp.gaps.at(-1);
  if (gap && !gapTold && gap.at > (changes.at(-1)?.at ?? 0)) {
    gapTold = true;
    say(`CatchUp: ${gap.lost === undefined ? "some prices" : plural(gap.lost, "price")} lost in a gap, the history has moved on`);
  }
  if (lag > 2000) behind = true;
  else if (behind && lag < 500) {
    behind = false;
    say("CatchUp has caught up");
  }
}

for (const client of [control, ...panels.map((panel) => panel.client)]) {
  let lost = false;
  client.onState(({ name }) => {
    if (name === "waiting" || name === "closed") say("Connection lost");
    else if (name === "open" && (lost || client === control)) say(`Connections: ${checked().nextElementSibling!.textContent}`);
    lost = name === "waiting";
    if (name === "open" && client === control) readClock().catch(() => {});
  });
}

const pause = $("#pause");
let paused = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.ariaPressed = String(paused);
});

function draw(): void {
  const now = Date.now();
  const greatest = Math.max(...panels.map((panel) => panel.between(now - WINDOW, now + 1).greatest));
  const top = SCALES.find((scale) => scale >= greatest) ?? greatest;
  const view = { now, top, rate: publishedRate(), publishedAt, changes: changes.filter(({ at }) => at > now - WINDOW) };
  for (const panel of panels) panel.draw(view);
}

function write(): void {
  const now = Date.now();
  const rate = publishedRate();
  set($("#published"), `${number(Math.round(rate / 10) * 10)} prices a second`);
  const prices = newest();
  const lags = panels.map((panel) => `<span>${panel.title} <b>${panel.write(now, rate, prices)}</b></span>`);
  $("#lags").innerHTML = lags.join("");
  if ($<HTMLDetailsElement>("#table").open) writeTable(now);
}

function writeTable(now: number): void {
  let rows = "";
  for (let from = 0; from < WINDOW; from += SLICE) {
    const end = now - from;
    const figures = panels.flatMap((panel) => {
      const { received, greatest, missed } = panel.between(end - SLICE, end);
      return [number(received), received ? duration(greatest) : "–", number(missed)];
    });
    const published = number(publishedAt(end) - publishedAt(end - SLICE));
    rows += `<tr><th scope="row">${from / 1000} to ${(from + SLICE) / 1000} s ago</th>${[published, ...figures].map((text) => `<td>${text}</td>`).join("")}</tr>`;
  }
  $("#table tbody").innerHTML = rows;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
let turn = 0;
setInterval(() => {
  turn++;
  if (turn % 10 === 0) {
    for (const panel of panels) panel.prune();
    reports.splice(0, Math.max(0, reports.findIndex(({ at }) => at >= Date.now() - WINDOW - 2000)));
    comment();
  }
  if (turn % 100 === 0) readClock().catch(() => {});
  if (document.hidden || paused) return;
  if (!still.matches || turn % 10 === 0) draw();
  if (turn % (still.matches ? 20 : 5) === 0) write();
}, 100);
$("#table").addEventListener("toggle", () => writeTable(Date.now()));
addEventListener("resize", draw);
