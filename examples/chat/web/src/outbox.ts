import { WsError } from "@qi-realtime/ws-client";
import { bubble } from "./bubble.js";
import { button, byID, el, random } from "./dom.js";

/** Milliseconds after which a message that was not sent counts as failed. */
const PATIENCE = 60_000;
/** Milliseconds until a message is sent again that the server did not take now. */
const LATER = 2_000;
/** Codes of the server for "not now": the room is not joined yet, too fast, too busy. */
const NOT_NOW: (number | string)[] = [409, 429, 503];

/** A message of this page that has not come back through the room. */
interface Draft {
  id: string;
  text: string;
  /** "sent" has its answer, but the room has not shown it yet. */
  state: "waiting" | "sent" | "failed";
  deadline: number;
  element: HTMLElement;
}

/** The messages on their way, below those of the room. They are sent one after the other, in their order. */
export class Outbox {
  readonly #view = byID("outbox");
  #drafts: Draft[] = [];
  #sending = false;
  #closed = false;

  /** `send` sends one message, and waits for the answer for so many milliseconds. */
  constructor(private readonly send: (id: string, text: string, timeout: number) => Promise<unknown>) {}

  get size(): number {
    return this.#drafts.length;
  }

  add(text: string): void {
    const draft: Draft = { id: random(8), text, state: "waiting", deadline: 0, element: el("div", "") };
    this.#drafts.push(draft);
    this.#view.append(draft.element);
    this.#queue(draft);
  }

  /** Removes a message that the room has shown. */
  confirm(id: string): void {
    const draft = this.#drafts.find((draft) => draft.id === id);
    if (draft) this.#remove(draft);
  }

  /** Removes and returns the messages that the server has, but that the page has missed. */
  missed(): { id: string; text: string }[] {
    const sent = this.#drafts.filter((draft) => draft.state === "sent");
    sent.forEach((draft) => this.#remove(draft));
    return sent;
  }

  close(): void {
    this.#closed = true;
    this.#drafts = [];
    this.#view.replaceChildren();
  }

  #queue(draft: Draft): void {
    draft.state = "waiting";
    draft.deadline = Date.now() + PATIENCE;
    this.#show(draft, el("span", "meta", "Sending…"));
    void this.#run();
  }

  async #run(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    for (let draft; (draft = this.#drafts.find(({ state }) => state === "waiting")); ) await this.#deliver(draft);
    this.#sending = false;
  }

  async #deliver(draft: Draft): Promise<void> {
    try {
      await this.send(draft.id, draft.text, Math.max(1, draft.deadline - Date.now()));
      draft.state = "sent";
    } catch (error) {
      if (!(error instanceof WsError)) throw error;
      if (this.#closed) return;
      if (NOT_NOW.includes(error.code) && Date.now() + LATER < draft.deadline) {
        await new Promise((resolve) => setTimeout(resolve, LATER));
      } else this.#fail(draft, error);
    }
  }

  #fail(draft: Draft, { code, message }: WsError): void {
    if (!this.#drafts.includes(draft)) return; // the answer was lost, but the room has shown it
    draft.state = "failed";
    const reason = code === "timeout" || code === "lost" ? "There is no connection." : message;
    this.#show(draft, el("span", "meta", "Not sent"));
    const retry = button("small", "Try again", () => this.#queue(draft));
    const remove = button("small", "Delete", () => this.#remove(draft));
    const text = el("span", "", reason);
    text.role = "alert";
    draft.element.append(el("div", "failure", text, retry, remove));
    draft.element.classList.add("failed");
  }

  #show(draft: Draft, meta: HTMLElement): void {
    const before = draft.element;
    draft.element = bubble({ user: "", name: "", text: draft.text, mine: true }, meta);
    draft.element.classList.add("follows", "pending");
    this.#exchange(before, draft.element);
  }

  #remove(draft: Draft): void {
    this.#drafts = this.#drafts.filter((other) => other !== draft);
    this.#exchange(draft.element);
  }

  /** Replaces an element. A focus inside it goes to the composer. */
  #exchange(before: HTMLElement, after?: HTMLElement): void {
    const focused = before.contains(document.activeElement);
    if (after) before.replaceWith(after);
    else before.remove();
    if (focused) byID("text").focus();
  }
}
