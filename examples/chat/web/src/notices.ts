import { byID, list } from "./dom.js";

/** Milliseconds after its notice for which a person counts as typing. Pages send one every 2 s. */
const TYPING = 4_000;
const SAY_AGAIN = 2_000;
/** Milliseconds for which it is shown that somebody has come or gone. */
const NEWS = 3_000;

/** The line above the composer: who is typing, who has come and gone. */
export class Notices {
  readonly #line = byID("notice");
  readonly #typing = new Map<string, { name: string; timer: ReturnType<typeof setTimeout> }>();
  #news = "";
  #newsTimer: ReturnType<typeof setTimeout> | undefined;
  #said = 0;

  /** Somebody else types. Without another notice it ends by itself. */
  typing(user: string, name: string): void {
    this.silent(user);
    this.#typing.set(user, { name, timer: setTimeout(() => this.silent(user), TYPING) });
    this.#render();
  }

  /** The message of this person is there. */
  silent(user: string): void {
    clearTimeout(this.#typing.get(user)?.timer);
    this.#typing.delete(user);
    this.#render();
  }

  news(text: string): void {
    this.#news = text;
    clearTimeout(this.#newsTimer);
    this.#newsTimer = setTimeout(() => this.news(""), NEWS);
    this.#render();
  }

  /** Whether to tell the others that this person types: now and then is enough. */
  isDue(): boolean {
    const now = Date.now();
    if (now - this.#said < SAY_AGAIN) return false;
    this.#said = now;
    return true;
  }

  /** A message was sent: the next key is news. */
  sent(): void {
    this.#said = 0;
  }

  clear(): void {
    for (const user of this.#typing.keys()) this.silent(user);
    this.news("");
  }

  #render(): void {
    const names = [...new Set([...this.#typing.values()].map(({ name }) => name))];
    const typing = names.length > 0 ? `${list(names)} ${names.length > 1 ? "are" : "is"} typing` : "";
    this.#line.textContent = typing || this.#news;
    this.#line.classList.toggle("dots", typing !== "");
  }
}
