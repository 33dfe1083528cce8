import { Calls, closed } from "./calls.js";
import { Emitter } from "./emitter.js";
import { WsError } from "./errors.js";
import { Joins } from "./joins.js";
import { Link } from "./link.js";
import { Overlap } from "./overlap.js";
import { MOVE, PROBE_ANSWER, STABLE, backoff, retryIn, verdict } from "./policy.js";
import { Room } from "./room.js";
import type { Port } from "./room.js";
import type {
  AnyAPI, APIShape, Closed, ConnectOptions, Data, EventName, Info, Req, RequestArgs, RequestName, RequestOptions, Resp,
  RoomOptions, State, Target, URLSource, WebSocketConstructor,
} from "./types.js";

/** Connects to url, and stays connected until `close()` or until the server says that there is no use. */
export function connect<A extends APIShape = AnyAPI>(url: URLSource, options: ConnectOptions = {}): Client<A> {
  return new Client<A>(url, options);
}

/** A connection that comes back by itself. */
export class Client<A extends APIShape = AnyAPI> {
  readonly #Socket: WebSocketConstructor;
  readonly #url: URLSource;
  readonly #options: ConnectOptions;
  readonly #on = new Emitter();
  readonly #joins = new Joins(() => (this.#next?.opened ? this.#next : this.#live));
  readonly #rooms = this.#joins.rooms;
  readonly #calls = new Calls();
  readonly #port: Port;
  #state: State = { name: "connecting" };
  /** The open connection, on which requests are sent. */
  #live: Link | undefined;
  /** The connection that opens. In a move it becomes the open one when all rooms have joined on it. */
  #next: Link | undefined;
  /** The open connection before a move, until its answers have come. */
  #old: Link | undefined;
  /** Of a move that is under way, or has just ended. */
  #overlap: Overlap | undefined;
  #attempt = 0;
  #failures = 0;
  #refresh = false;
  /** Whether the server chose the time of the next attempt. */
  #ordered = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #connectTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(url: URLSource, options: ConnectOptions = {}) {
    const Socket = options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new TypeError("no WebSocket: set options.WebSocket");
    this.#Socket = Socket;
    this.#url = url;
    this.#options = options;
    this.#port = {
      storage: options.storage,
      ask: (link, event, data, done) => void this.#calls.send(link, event, data, false, done),
      emit: (event, data, info) => this.#on.emit("e" + event, data, info),
      leave: (room, links) => this.#leave(room, links),
      answered: (room, link, again) => this.#joins.answered(room, link, again),
    };
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    void this.#open();
  }

  get state(): State {
    return this.#state;
  }

  /** Calls fn after each change of the state. Returns the function that ends this. */
  onState(fn: (state: State) => void): () => void {
    return this.#on.on("state", fn);
  }

  /** Calls fn for each event with this name, of rooms as well. Returns the function that ends this. */
  on<E extends EventName<A>>(event: E, fn: (data: Data<A, E>, info: Info) => void): () => void {
    return this.#on.on("e" + event, fn);
  }

  /** Sends a request and waits for its response. Without a connection it waits in a queue. Rejects with a `WsError`. */
  request<E extends RequestName<A>>(event: E, ...[data, options = {}]: RequestArgs<Req<A, E>>): Promise<Resp<A, E>> {
    return new Promise((resolve, reject) => this.#request(event, data, options, resolve, reject));
  }

  /** Sends a message that needs no answer. Returns false, and sends nothing, without a connection. */
  notify<E extends RequestName<A>>(event: E, data?: Req<A, E>): boolean {
    this.#live?.send(JSON.stringify({ type: "notify", event, data }));
    return !!this.#live;
  }

  /** Joins a room, or returns the one that is there; its options are those of the first call. */
  room(id: string, options: RoomOptions = {}): Room<A> {
    let room = this.#rooms.get(id);
    if (!room) {
      room = new Room<A>(id, this.#port, options);
      if (this.#state.name === "closed") room.end(closed());
      else this.#rooms.set(id, room);
      this.#joins.send();
    }
    return room;
  }

  /** Closes the connection and ends the client. Requests that wait are rejected with code "closed". */
  close(): void {
    this.#stop({ code: 1000, reason: "" });
  }

  #request(
    event: string, data: unknown, { timeout = this.#options.timeout ?? 10_000, signal, idempotent = false }: RequestOptions,
    resolve: (data: any) => void, reject: (error: unknown) => void,
  ): void {
    signal?.throwIfAborted();
    if (this.#state.name === "closed") throw closed();
    if (!this.#live && this.#calls.queued >= (this.#options.queue ?? 256)) {
      throw new WsError("full", "too many requests wait");
    }
    this.#calls.request(this.#live, event, data, timeout, signal, idempotent, resolve, (error, timedOut) => {
      reject(error);
      this.#settle();
      if (timedOut) this.#probe();
    });
  }

  #set(state: State): void {
    this.#state = state;
    this.#on.emit("state", state);
  }

  /** Begins an attempt to connect, while the open connection, if any, stays. */
  async #open(): Promise<void> {
    const attempt = ++this.#attempt;
    const current = (): boolean => attempt === this.#attempt;
    clearTimeout(this.#timer);
    clearTimeout(this.#connectTimer);
    if (!this.#live) this.#set({ name: "connecting" });
    if (!current()) return; // closed by the application's function
    this.#connectTimer = setTimeout(() => this.#failed(), this.#options.connectTimeout ?? 10_000);
    let target: Target | null;
    try {
      const why = { refresh: this.#refresh, attempt: this.#failures };
      target = typeof this.#url === "function" ? await this.#url(why) : this.#url;
    } catch {
      if (current()) this.#failed();
      return;
    }
    if (!current()) return;
    if (target === null) return this.#stop({ code: 0, reason: "no URL" });
    try {
      this.#dial(target);
    } catch (error) {
      this.#stop({ code: 0, reason: String(error) });
    }
  }

  #dial(target: Target): void {
    const { url, protocols = undefined } = typeof target === "string" || target instanceof URL ? { url: target } : target;
    const full = new URL(url, globalThis.location?.href);
    full.protocol = full.protocol.replace("http", "ws");
    if (this.#options.notice ?? true) full.searchParams.set("notice", "1");
    this.#overlap = this.#live && new Overlap();
    this.#next = new Link(this.#Socket, full.href, protocols, {
      open: (link) => this.#opened(link),
      message: (link, text) => this.#receive(link, text),
      lost: (link, code, reason) => this.#lost(link, code, reason),
    });
  }

  /** Ends an attempt that has not led to a connection. */
  #failed(): void {
    this.#attempt++;
    clearTimeout(this.#connectTimer);
    if (this.#next) this.#lost(this.#next, 1006, "");
    else if (this.#live) this.#live.moving = false;
    else this.#retry();
  }

  #opened(link: Link): void {
    clearTimeout(this.#connectTimer);
    this.#refresh = false;
    link.after("stable", STABLE, () => (this.#failures = 0));
    this.#listen(link);
    const first = !this.#live;
    const overlap = this.#overlap;
    if (first) this.#begin(link);
    else this.#sync(link, () => (overlap!.phase = 1));
    this.#joins.send();
    this.#calls.flush(this.#live);
    this.#settle();
    if (first) this.#set({ name: "open" });
  }

  #begin(link: Link): void {
    this.#live = link;
    this.#next = undefined;
  }

  /** Asks a silent server for a sign of life, again and again. */
  #listen(link: Link): void {
    const { probe = 30_000 } = this.#options;
    link.heard = false;
    if (probe > 0) link.after("probe", probe, () => (link.heard ? this.#listen(link) : this.#probe()));
  }

  /** Asks for a sign of life at once, and gives the connection up without one. */
  #probe(): void {
    const link = this.#live;
    const { probe = 30_000 } = this.#options;
    if (!link || !probe || link.probed) return;
    link.heard = false;
    link.probed = true;
    this.#calls.send(link, "ws.ping", undefined, false, () => (link.probed = false));
    link.after("probe", Math.min(PROBE_ANSWER, probe), () => {
      if (link.heard) this.#listen(link);
      else this.#lost(link, 1006, "no answer");
    });
  }

  /** The network is back, or the page is shown. */
  readonly #wake = (): void => {
    if (globalThis.document?.hidden) return;
    if (this.#state.name === "waiting" && !this.#ordered) void this.#open();
    this.#probe();
  };

  #receive(link: Link, text: string): void {
    let m: any;
    try {
      m = JSON.parse(text);
    } catch {
      return; // no envelope
    }
    if (m?.type === "notify") return this.#notified(link, m, text);
    this.#calls.answer(link, m);
    this.#settle();
  }

  #notified(link: Link, m: any, text: string): void {
    const room = this.#rooms.get(m.room);
    if (room && (m.offset !== undefined || (m.event === "ws.gap" && m.data?.next))) room.receive(link, m);
    else if (m.event !== "ws.reconnect") {
      if (this.#isNew(link, room, m, text)) this.#deliver(m);
    } else if (link === this.#live && !link.moving && (this.#options.notice ?? true)) {
      link.moving = true;
      this.#move(retryIn(m.data));
    }
  }

  /** Begins a move after ms, but not before the end of the last one. */
  #move(ms?: number): void {
    this.#timer = setTimeout(() => (this.#overlap ? this.#move(50) : void this.#open()), ms);
  }

  /** Whether a message without an offset is to be delivered now. */
  #isNew(link: Link, room: Room<any> | undefined, m: any, text: string): boolean {
    const overlap = this.#overlap;
    if (room && link !== room.source && link !== room.before) return false; // it was left and joined again
    if (link === this.#live) {
      if (!overlap || m.event === "ws.gap") return true; // two gaps are losses at two servers
      if (!this.#next) return overlap.isNew(text);
      overlap.old(text);
      return true;
    }
    if (link !== this.#next) return false;
    if (!overlap || (room && room.before !== this.#live)) return true;
    if (overlap.isNew(text) && (overlap.phase || m.event === "ws.gap")) overlap.hold(text);
    return false;
  }

  /** Delivers a message without an offset. */
  #deliver(m: any): void {
    const { event, data, room: id, timestamp } = m;
    const room = this.#rooms.get(id);
    if (room) room.deliver(m);
    else this.#on.emit("e" + event, data, { event, room: id, offset: m.offset, timestamp });
  }

  #leave(room: Room<any>, links: Set<Link | undefined>): Promise<void> {
    if (this.#rooms.get(room.id) === room) this.#rooms.delete(room.id);
    const left = [...links].filter((link) => link && (link === this.#live || link === this.#next)).map(
      (link) => new Promise<void>((resolve) => this.#calls.send(link, "ws.leave", { room: room.id }, false, () => resolve())),
    );
    this.#settle();
    return Promise.all(left).then(() => {});
  }

  /** Completes the steps of a move that can be completed. */
  #settle(): void {
    const live = this.#live;
    const next = this.#next;
    const overlap = this.#overlap;
    if (live && next?.opened && overlap?.phase === 1 && this.#joins.doneOn(next)) {
      overlap.phase = 2;
      const done = (): void => void (this.#next === next && this.#takeOver(live, next));
      this.#sync(live, done);
      live.after("move", MOVE, () => {
        if (this.#next === next) this.#report();
        done();
        if (live !== this.#live) this.#lost(live, 1000, ""); // else the new connection has failed
      });
    }
    const old = this.#old;
    if (old && !this.#calls.waitFor(old)) this.#lost(old, 1000, "");
  }

  /** Calls done when the server has answered, behind all that was published before, or the connection is lost. */
  #sync(link: Link, done: () => void): void {
    this.#calls.send(link, "ws.sync", undefined, false, done);
  }

  /** Reports a gap where the old connection has not brought all of its messages. */
  #report(): void {
    const data = { epoch: "", after: 0, next: 0, reason: "moved" };
    for (const { id: room, position } of [{} as Partial<Room>, ...this.#rooms.values()]) {
      if (!position) this.#deliver({ event: "ws.gap", data, room });
    }
  }

  #takeOver(old: Link, next: Link): void {
    if (this.#old) this.#lost(this.#old, 1000, ""); // of an earlier move
    this.#old = old;
    this.#begin(next);
    this.#release(next);
  }

  /** Delivers the messages of the new connection that have waited for the old one. */
  #release(link: Link): void {
    const overlap = this.#overlap;
    for (let text; this.#overlap && (text = overlap!.next()); ) this.#deliver(JSON.parse(text));
    if (!this.#overlap) return; // closed by the application's function
    const end = (): void => void (this.#overlap === overlap && (this.#overlap = undefined));
    if (overlap!.done) end();
    else this.#sync(link, end);
  }

  /** Handles the end of a connection. */
  #lost(link: Link, code: number, reason: string): void {
    link.end();
    const next = this.#next;
    const { stop, wait } = verdict(code, reason);
    if (link === this.#old) {
      this.#old = undefined;
      return this.#drop(link);
    }
    if (link === next) {
      this.#next = undefined;
      if (this.#live && this.#stay(this.#live, link)) return;
    } else {
      this.#live = undefined;
      // 4409: the new connection has taken over the ID
      if (next && (!stop || code === 4409)) return this.#advance(next, link);
      next?.end();
    }
    if (stop) return this.#stop({ code, reason });
    this.#drop(link);
    this.#refresh = code === 4401;
    this.#retry(wait);
  }

  /** After the second connection was lost: stays on the first one, unless a room with a history has already left it. */
  #stay(live: Link, lost: Link): boolean {
    this.#overlap = undefined;
    const stays = [...this.#rooms.values()].every((room) => room.stays(lost));
    if (stays) {
      live.moving = false;
      this.#drop(lost);
      this.#joins.send();
    } else {
      this.#live = undefined;
      live.end();
      this.#drop(live);
    }
    return stays;
  }

  /** After the first connection was lost in a move: goes on with the second one. */
  #advance(next: Link, lost: Link): void {
    const { opened } = next;
    if (opened) {
      this.#report();
      this.#begin(next);
      this.#joins.send();
    }
    this.#drop(lost);
    if (opened) this.#release(next);
    else {
      this.#overlap = undefined;
      this.#set({ name: "connecting" });
    }
  }

  #drop(link: Link): void {
    this.#calls.drop(link);
    this.#calls.flush(this.#live);
  }

  #retry(wait?: number): void {
    this.#attempt++;
    clearTimeout(this.#timer);
    clearTimeout(this.#connectTimer);
    const delay = wait ?? backoff(this.#failures);
    this.#failures++;
    this.#ordered = wait !== undefined;
    this.#timer = setTimeout(() => void this.#open(), delay);
    this.#set({ name: "waiting", retryAt: Date.now() + delay });
  }

  #stop(reason: Closed): void {
    if (this.#state.name === "closed") return;
    this.#attempt++;
    for (const timer of [this.#timer, this.#connectTimer]) clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    const links = [this.#old, this.#live, this.#next];
    this.#old = this.#live = this.#next = this.#overlap = undefined;
    for (const room of this.#rooms.values()) room.end(closed());
    this.#rooms.clear();
    for (const link of links) link?.end();
    this.#calls.close();
    this.#set({ name: "closed", reason });
  }
}
