// One room in the page: its connection, what came over it, and its part of the page.

import { connect } from "@qi-realtime/ws-client";
import type { Client } from "@qi-realtime/ws-client";
import type { API, Price } from "./api.gen.js";
import { drawLag, drawRate, WINDOW } from "./chart.js";
import type { Arrival, View } from "./chart.js";

/** Words for the prices that did not come. */
const MISSED: Record<string, string> = { conflate: "Replaced", ttl: "Too old", catchup: "In gaps" };

const SHOWN = 4;

export interface Figures { received: number; greatest: number; missed: number }

export class Panel {
  readonly client: Client<API>;
  readonly arrivals: Arrival[] = [];
  readonly gaps: { at: number; lost: number | undefined }[] = [];
  readonly title: string;
  readonly #missed: { at: number; count: number }[] = [];
  /** The newest price of each symbol. */
  readonly prices = new Map<string, Price>();
  readonly #section: HTMLElement;
  readonly #rows: HTMLTableRowElement[] = [];
  readonly #clock: () => number;
  readonly #gaps: Element | undefined;

  /** clock is the time of the server. */
  constructor(readonly id: string, url: () => string, clock: () => number) {
    this.#clock = clock;
    this.#section = document.getElementById(id)!;
    this.title = this.#section.querySelector("code")!.textContent!;
    this.#section.append((document.getElementById("body") as HTMLTemplateElement).content.cloneNode(true));
    this.#section.querySelector(".missed")!.textContent = MISSED[id]!;
    if (id === "catchup") this.#gaps = this.#section.querySelector(".gaps span")!;
    else this.#section.querySelector(".gaps")!.remove();
    // A link that is stopped must not count as lost: no probe.
    this.client = connect<API>(url, { probe: 0 });
    const room = this.client.room(id);
    room.on("price", (price) => this.#receive(price));
    room.onGap(({ lost }) => this.gaps.push({ at: Date.now(), lost }));
  }

  #receive(price: Price): void {
    const at = Date.now();
    this.arrivals.push({ at, lag: Math.max(0, this.#clock() - price.at) });
    const before = this.prices.get(price.symbol)?.n ?? price.n;
    if (price.n > before + 1) this.#missed.push({ at, count: price.n - before - 1 });
    this.prices.set(price.symbol, price);
  }

  /** The median lag of the last second; the age of the newest price if none came. */
  get lag(): number | undefined {
    const since = Date.now() - 1000;
    const lags: number[] = [];
    for (let i = this.arrivals.length - 1; i >= 0 && this.arrivals[i]!.at >= since; i--) lags.push(this.arrivals[i]!.lag);
    if (lags.length) return lags.sort((a, b) => a - b)[lags.length >> 1];
    const newest = Math.max(...[...this.prices.values()].map(({ at }) => at));
    return this.prices.size ? Math.max(0, this.#clock() - newest) : undefined;
  }

  /** Figures of the time between two moments. */
  between(from: number, to: number): Figures {
    const figures = { received: 0, greatest: 0, missed: 0 };
    for (const { at, lag } of this.arrivals) {
      if (at < from || at >= to) continue;
      figures.received++;
      figures.greatest = Math.max(figures.greatest, lag);
    }
    for (const { at, count } of this.#missed) if (at >= from && at < to) figures.missed += count;
    return figures;
  }

  /** Forgets what the charts no longer show. */
  prune(): void {
    const since = Date.now() - WINDOW - 1000;
    for (const list of [this.arrivals, this.#missed, this.gaps] as { at: number }[][]) {
      const keep = list.findIndex(({ at }) => at >= since);
      list.splice(0, keep < 0 ? list.length : keep);
    }
  }

  draw(view: View): void {
    drawLag(this.#section.querySelector(".lag")!, view, this.arrivals, this.gaps);
    drawRate(this.#section.querySelector(".rate")!, view, this.arrivals);
  }

  /** Writes the figures, and returns the lag. published are the newest prices of the server. */
  write(now: number, rate: number, published: Price[]): string {
    const { received, greatest, missed } = this.between(now - WINDOW, now + 1);
    const lately = this.between(now - 2000, now + 1).received / 2;
    const lag = this.lag;
    const gaps = this.gaps.length ? plural(this.gaps.length, "gap") : "no gap";
    const texts: Record<string, string> = {
      lag: lag === undefined ? "–" : duration(lag), greatest: duration(greatest),
      rate: `${number(lately)}/s`, missed: number(missed),
    };
    for (const [name, text] of Object.entries(texts)) set(this.#section.querySelector(`[data-figure=${name}]`)!, text);
    if (this.#gaps) set(this.#gaps, gaps);
    this.#section.querySelector(".lag")!.ariaLabel =
      `Lag of each price in the last 30 seconds: ${texts.lag} now, ${texts.greatest} at most` + (this.#gaps ? `; ${gaps}` : "");
    this.#section.querySelector(".rate")!.ariaLabel =
      `${number(received)} prices received in 30 seconds; ${texts.rate} now, of ${number(rate)} published a second`;
    published.slice(0, SHOWN).forEach((price, i) => this.#writePrice(i, price));
    return texts.lag!;
  }

  #writePrice(i: number, published: Price): void {
    const row = (this.#rows[i] ??= this.#addRow());
    const here = this.prices.get(published.symbol);
    const texts = [published.symbol, here?.price.toFixed(2) ?? "–", published.price.toFixed(2)];
    texts.forEach((text, j) => set(row.cells[j]!, text));
    row.classList.toggle("stale", texts[1] !== texts[2]);
  }

  #addRow(): HTMLTableRowElement {
    const row = this.#section.querySelector("tbody")!.insertRow();
    row.innerHTML = '<th scope="row"></th><td></td><td></td>';
    return row;
  }
}

/** Sets a text, if it is another one. */
export function set(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export const number = (n: number): string => (Number.isNaN(n) ? "–" : Math.round(n).toLocaleString("en"));

export const plural = (n: number, noun: string): string => `${number(n)} ${noun}${n === 1 ? "" : "s"}`;

export const duration = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
