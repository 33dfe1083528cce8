import type { WebSocketConstructor, WebSocketLike } from "./types.js";

const noop = (): void => {};

/** One connection: a WebSocket that has not ended for the client. */
export class Link {
  readonly #socket: WebSocketLike;
  readonly #timers = new Map<string, ReturnType<typeof setTimeout>>();
  /** Whether the handshake has ended well, until `end`. */
  opened = false;
  /** Whether the client moves away from it. */
  moving = false;
  /** Whether a message came since the last look. */
  heard = true;
  /** Whether a request for a sign of life has no answer. */
  probed = false;
  /** Joins that have no answer. */
  joins = 0;
  /** Whether joins wait, because one was refused. */
  paused = false;
  /** Whether a join was refused and is sent again: joins are sent one after the other then. */
  refused = false;
  /** Refused joins in a row. */
  refusals = 0;

  constructor(
    Socket: WebSocketConstructor,
    url: string,
    protocols: string | string[] | undefined,
    on: {
      open(link: Link): void;
      message(link: Link, text: string): void;
      lost(link: Link, code: number, reason: string): void;
    },
  ) {
    const s = (this.#socket = new Socket(url, protocols));
    s.onopen = () => {
      this.opened = true;
      on.open(this);
    };
    s.onmessage = (e) => {
      this.heard = true;
      if (typeof e.data === "string") on.message(this, e.data);
    };
    s.onclose = (e) => on.lost(this, e.code, e.reason);
    s.onerror = noop; // a close follows
  }

  send(message: string): void {
    this.#socket.send(message);
  }

  /** Calls fn after ms, in place of the call that was set before for the same purpose. */
  after(purpose: string, ms: number, fn: () => void): void {
    clearTimeout(this.#timers.get(purpose));
    this.#timers.set(purpose, setTimeout(fn, ms));
  }

  /** Forgets the socket and closes it. Nothing is called any more. */
  end(): void {
    this.opened = false;
    this.#timers.forEach(clearTimeout);
    const s = this.#socket;
    s.onopen = s.onmessage = s.onclose = null;
    s.onerror = noop;
    try {
      s.close(1000);
    } catch {
      // Some classes throw before the handshake has ended.
    }
  }
}
