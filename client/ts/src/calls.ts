import { WsError } from "./errors.js";
import type { Link } from "./link.js";

/** The end of a request. */
export type Done = (error: WsError | undefined, data?: any) => void;

interface Call {
  /** Its text: a repeat has the same bytes. */
  message: string;
  /** The connection on which the request was sent, undefined while it waits. */
  link: Link | undefined;
  /** Whether it is sent again after a lost connection. */
  keep: boolean;
  /** Whether it was sent, on a connection that may be lost. */
  sent: boolean;
  done: Done;
}

export const lost = (): WsError => new WsError("lost", "the connection was lost");
export const closed = (): WsError => new WsError("closed", "the client is closed");

/** The requests that have no answer, in the order of the calls. */
export class Calls {
  readonly #calls = new Map<string, Call>();
  /** Request IDs begin with it: those of two pages of one user must differ. */
  readonly #prefix = crypto.getRandomValues(new Uint32Array(4)).join("-") + "-";
  #lastID = 0;

  /** Sends a request on link; without one, it waits for flush. Returns its ID. */
  send(link: Link | undefined, event: string, data: unknown, keep: boolean, done: Done): string {
    const request_id = this.#prefix + ++this.#lastID;
    const message = JSON.stringify({ type: "request", event, request_id, idempotent: keep || undefined, data });
    this.#calls.set(request_id, { message, link, keep, sent: !!link, done });
    link?.send(message);
    return request_id;
  }

  /** Sends a request that may be given up. `fail` ends it: with `timedOut` after the time. */
  request(
    link: Link | undefined, event: string, data: unknown, timeout: number, signal: AbortSignal | undefined, keep: boolean,
    resolve: (data: any) => void, fail: (error: unknown, timedOut?: boolean) => void,
  ): void {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
    const id = this.send(link, event, data, keep, (error, data) => {
      end();
      if (error) fail(error);
      else resolve(data);
    });
    const give = (error: unknown, timedOut?: boolean): void => {
      end();
      this.forget(id);
      fail(error, timedOut);
    };
    const abort = (): void => give(signal!.reason);
    // Timers count up to 2^31 ms only, and are due at once beyond.
    const timer = timeout > 0 && timeout < 2 ** 31 ? setTimeout(() => give(new WsError("timeout", "no answer in time"), true), timeout)
      : undefined;
    signal?.addEventListener("abort", abort);
  }

  /** Sends the requests that wait. */
  flush(link: Link | undefined): void {
    for (const call of this.#calls.values()) {
      if (!link || call.link) continue;
      call.link = link;
      call.sent = true;
      link.send(call.message);
    }
  }

  /** Ends a request with its answer m. */
  answer(link: Link, m: any): void {
    const call = this.#calls.get(m?.request_id);
    if (!call || call.link !== link) return;
    this.#calls.delete(m.request_id);
    if (m.type === "error") call.done(new WsError(m.code, m.message, m.data, m.trace_id));
    else call.done(undefined, m.data);
  }

  forget(id: string): void {
    this.#calls.delete(id);
  }

  /** The number of requests that were never sent. */
  get queued(): number {
    return [...this.#calls.values()].filter((call) => !call.sent).length;
  }

  /** Whether an answer is due on link. */
  waitFor(link: Link): boolean {
    return [...this.#calls.values()].some((call) => call.link === link);
  }

  /** Ends the requests that were sent on link; those to keep wait for flush. */
  drop(link: Link): void {
    for (const [id, call] of this.#calls) {
      if (call.link !== link) continue;
      call.link = undefined;
      if (call.keep) continue;
      this.#calls.delete(id);
      call.done(lost());
    }
  }

  /** Ends all requests. */
  close(): void {
    for (const call of this.#calls.values()) call.done(call.sent ? lost() : closed());
    this.#calls.clear();
  }
}
