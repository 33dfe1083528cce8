import type { State } from "@qi-realtime/ws-client";
import { byID } from "./dom.js";

/** Milliseconds for which it is shown that the connection is back. */
const BACK = 4_000;

/** The state of the connection, below the name of the room. */
export class Status {
  readonly #text = byID("state");
  readonly #detail = byID("state-detail");
  readonly #retry = byID("retry");
  #timer: ReturnType<typeof setTimeout> | undefined;
  #wasOffline = false;

  /** `again` connects again after the server has closed for good. */
  constructor(private readonly again: () => void) {}

  show(state: State): void {
    clearTimeout(this.#timer);
    document.body.dataset["state"] = state.name;
    this.#retry.hidden = state.name !== "waiting" && state.name !== "closed";
    this.#detail.textContent = "";
    switch (state.name) {
      case "connecting":
        if (!this.#wasOffline) this.#say("Connecting…");
        break;
      case "open":
        this.#open();
        break;
      case "waiting":
        this.#wasOffline = true;
        this.#say("Offline");
        this.#countDown(state.retryAt);
        // The client of the library tries at once when the browser says that the network is back.
        this.#retry.onclick = () => dispatchEvent(new Event("online"));
        break;
      case "closed":
        this.#say("Disconnected");
        this.#detail.textContent = state.reason.reason && `: ${state.reason.reason}`;
        this.#retry.onclick = this.again;
    }
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #open(): void {
    this.#say(this.#wasOffline ? "Back online" : "Connected");
    if (this.#wasOffline) this.#timer = setTimeout(() => this.#say("Connected"), BACK);
    this.#wasOffline = false;
  }

  /** Only this text is read aloud. */
  #say(text: string): void {
    if (this.#text.textContent !== text) this.#text.textContent = text;
  }

  #countDown(retryAt: number): void {
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    this.#detail.textContent = seconds > 1 ? `, retry in ${seconds} s` : "";
    if (seconds > 0) this.#timer = setTimeout(() => this.#countDown(retryAt), 1000);
  }
}
