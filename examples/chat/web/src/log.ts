import type { Line } from "./bubble.js";
import { bubble, timeOf } from "./bubble.js";
import { byID, el } from "./dom.js";

/** The number of lines that the page keeps. Older ones are removed. */
const MOST = 500;
/** Milliseconds in which lines are collected before they are shown together. */
const FRAME = 16;
/** Seconds after which a message of the same person shows its author again. */
const PAUSE = 300;

/** The messages of the room. It follows the newest one, unless the reader has scrolled up. */
export class Log {
  readonly #scroller = byID("log");
  readonly #lines = byID("lines");
  readonly #newer = byID("newer");
  readonly #observer = new ResizeObserver(() => this.#follow());
  #waiting: HTMLElement[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The author and the time of the last message. */
  #last = { user: "", seconds: 0 };
  #following = true;
  #top = 0;
  #unseen = 0;

  constructor() {
    this.#scroller.onscroll = () => this.#scrolled();
    this.#newer.onclick = () => this.toNewest();
    this.#observer.observe(this.#scroller);
    this.#observer.observe(byID("talk-content"));
    this.clear();
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#waiting = [];
    this.#lines.replaceChildren();
    this.#last = { user: "", seconds: 0 };
    byID("earlier").hidden = true;
    byID("empty").hidden = false;
    this.toNewest();
  }

  message(line: Line, seconds: number): void {
    const element = bubble(line, timeOf(new Date(seconds * 1000)));
    const follows = this.#last.user === line.user && seconds - this.#last.seconds < PAUSE;
    element.classList.toggle("follows", follows);
    this.#last = { user: line.user, seconds };
    this.#add(element);
  }

  /** Adds a line between the messages. */
  remark(text: string): void {
    this.#last = { user: "", seconds: 0 };
    this.#add(el("p", "remark", text));
  }

  /** Shows the newest message, and follows from then on. */
  toNewest(): void {
    this.#following = true;
    this.#follow();
    this.#count(0);
  }

  #add(element: HTMLElement): void {
    this.#waiting.push(element);
    this.#timer ??= setTimeout(() => this.#flush(), FRAME);
  }

  #flush(): void {
    this.#timer = undefined;
    const lines = this.#waiting.splice(0);
    if (!this.#following) this.#count(this.#unseen + lines.length);
    byID("empty").hidden = true;
    this.#lines.append(...lines.slice(-MOST));
    this.#trim();
    this.#follow();
  }

  /** Removes the oldest lines. What the reader sees stays in its place. */
  #trim(): void {
    const surplus = this.#lines.childElementCount - MOST;
    if (surplus <= 0) return;
    const before = this.#scroller.scrollHeight;
    for (let i = 0; i < surplus; i++) this.#lines.firstElementChild!.remove();
    byID("earlier").hidden = false;
    if (!this.#following) this.#scroller.scrollTop += this.#scroller.scrollHeight - before;
    this.#top = this.#scroller.scrollTop;
  }

  #follow(): void {
    if (!this.#following) return;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
    this.#top = this.#scroller.scrollTop;
  }

  /** The reader has scrolled, or the page has. Downward the last piece of the way is enough. */
  #scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    const rest = scrollHeight - scrollTop - clientHeight;
    if (rest < (scrollTop > this.#top ? 40 : 2)) {
      this.#following = true;
      this.#count(0);
    } else if (scrollTop < this.#top) this.#following = false; // not a message that has come meanwhile
    this.#top = scrollTop;
  }

  #count(unseen: number): void {
    this.#unseen = unseen;
    this.#newer.hidden = unseen === 0;
    this.#newer.textContent = unseen === 1 ? "1 new message ↓" : `${unseen} new messages ↓`;
  }
}
