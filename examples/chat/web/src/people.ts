import type { Presence } from "./api.gen.js";
import { avatar, byID, el } from "./dom.js";

/** Milliseconds until the page asks again after it got no answer. */
const AGAIN = 2_000;

/** The names that are in the room. The server sends changes with versions; after a hole the page asks for all names. */
export class People {
  readonly #list = byID("members");
  readonly #names = new Map<string, HTMLElement>();
  #version = -1;
  #count = 0;
  #asking = false;
  #stale = false;
  #closed = false;

  /** `ask` asks the server for all names. `news` hears who has joined or left. */
  constructor(
    private readonly me: string,
    private readonly ask: () => Promise<Presence>,
    private readonly news: (text: string) => void,
  ) {
    this.#list.replaceChildren();
    this.#render();
  }

  /** Asks for all names: after each join, because changes may be missing. */
  async refresh(): Promise<void> {
    this.#stale = this.#asking;
    if (this.#asking || this.#closed) return;
    this.#asking = true;
    try {
      this.#set(await this.ask());
    } catch {
      setTimeout(() => void this.refresh(), AGAIN);
    }
    this.#asking = false;
    if (this.#stale) void this.refresh();
  }

  change(p: Presence): void {
    if (this.#version < 0 || p.version > this.#version + 1) return void this.refresh();
    if (p.version <= this.#version) return; // already known from an answer
    if (p.names) return this.#set(p);
    this.#version = p.version;
    this.#count = p.count;
    for (const name of p.left ?? []) this.#remove(name);
    for (const name of p.joined ?? []) this.#insert(name);
    this.#render();
    for (const name of p.left ?? []) this.news(`${name} left`);
    for (const name of p.joined ?? []) if (name !== this.me) this.news(`${name} joined`);
  }

  close(): void {
    this.#closed = true;
  }

  #set(p: Presence): void {
    if (this.#closed) return;
    this.#version = p.version;
    this.#count = p.count;
    const names = p.names ?? [];
    for (const name of this.#names.keys()) if (!names.includes(name)) this.#remove(name);
    names.forEach((name) => this.#insert(name));
    this.#render();
  }

  #insert(name: string): void {
    if (this.#names.has(name)) return;
    const item = el("li", "", avatar(name), el("span", "name", name));
    if (name === this.me) item.append(el("span", "you", "you"));
    const after = [...this.#names].find(([other]) => name.localeCompare(other) < 0);
    this.#list.insertBefore(item, after?.[1] ?? null);
    this.#names.set(name, item);
    const sorted = [...this.#names].sort(([a], [b]) => a.localeCompare(b));
    this.#names.clear();
    for (const [key, value] of sorted) this.#names.set(key, value);
  }

  #remove(name: string): void {
    this.#names.get(name)?.remove();
    this.#names.delete(name);
  }

  #render(): void {
    const more = this.#count - this.#names.size;
    byID("count").textContent = String(this.#count);
    byID("more").textContent = more > 0 ? `and ${more} more` : "";
  }
}
