import { Emitter, run } from "./emitter.js";
import { WsError } from "./errors.js";
import type { Link } from "./link.js";
import type {
  AnyAPI, APIShape, Data, EventName, Gap, Info, Joined, Position, PositionStore, RoomOptions,
} from "./types.js";

/** The part of the client that a room uses. */
export interface Port {
  storage: PositionStore | undefined;
  ask(link: Link, event: string, data: object, done: (error: WsError | undefined, data?: any) => void): void;
  emit(event: string, data: unknown, info: Info): void;
  /** Ends the membership on these connections. Resolves with the answers. */
  leave(room: Room<any>, links: Set<Link | undefined>): Promise<void>;
  /** A join has its answer on this connection: it is done, or refused and must be sent again later. */
  answered(room: Room<any>, link: Link, again?: WsError): void;
}

/** The least milliseconds between two acknowledgements of a room. */
const ACK_PAUSE = 50;
/** The beginning of the IDs of inboxes. The server keeps the position of each device there. */
const INBOX = "@user:";

/**
 * A room that the client is in. The client joins it again after each reconnect, from its position. Functions added in the
 * same task as `client.room()` miss nothing.
 */
export class Room<A extends APIShape = AnyAPI> {
  /** Resolves with the first join. Rejects if it is refused, or if the room is left before. */
  readonly joined: Promise<Joined>;
  /** The connection on which the room was joined last. @internal */
  target: Link | undefined;
  /** The connection from which the room takes its messages: the one that answered the join. @internal */
  source: Link | undefined;
  /** The source before the last join. @internal */
  before: Link | undefined;

  readonly #port: Port;
  readonly #options: RoomOptions;
  readonly #on = new Emitter();
  #first = true;
  /** The epoch of the room, undefined without history. */
  #epoch: string | undefined;
  /** The offset of the last message, undefined until it is known: offsets before the head may have holes. */
  #offset: number | undefined;
  /** Whether the history began anew after the last join was sent, and the gap that follows its answer has not come. */
  #anew = false;
  /** The acknowledged offset, and the one that was sent on the present connection. */
  #acked = 0;
  #ackSent = 0;
  #ackTimer: ReturnType<typeof setTimeout> | undefined;
  #resolve!: (joined: Joined) => void;
  #reject!: (error: WsError) => void;

  /** @internal */
  constructor(readonly id: string, port: Port, options: RoomOptions) {
    this.#port = port;
    this.#options = options;
    const since = options.since ?? this.#stored();
    this.#epoch = since?.epoch;
    this.#offset = since?.offset;
    this.joined = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.joined.catch(() => {}); // nobody has to look at it
  }

  /** The position of the last delivered message; undefined until it is known, and in a room without history. */
  get position(): Position | undefined {
    const epoch = this.#epoch;
    const offset = this.#offset;
    return epoch === undefined || offset === undefined ? undefined : { epoch, offset };
  }

  /** Calls fn for each message of this event. Returns the function that ends this. */
  on<E extends EventName<A>>(event: E, fn: (data: Data<A, E>, info: Info) => void): () => void {
    return this.#on.on("e" + event, fn);
  }

  /** Calls fn for each loss, before any later message of the room. Returns the function that ends this. */
  onGap(fn: (gap: Gap) => void): () => void {
    return this.#on.on("gap", fn);
  }

  /** Calls fn when a join is refused, also one after a reconnect. The client has left the room then. */
  onError(fn: (error: WsError) => void): () => void {
    return this.#on.on("error", fn);
  }

  /** Leaves the room and forgets its position. Resolves when the server has answered, or the connection is lost. */
  leave(): Promise<void> {
    const links = new Set([this.before, this.source, this.target]);
    this.end(new WsError("closed", "left the room"));
    this.#storage?.removeItem(this.#key);
    return this.#port.leave(this, links);
  }

  /**
   * Acknowledges the messages of an inbox up to offset, by default up to the position: the server does not send them to this
   * device again, such as after a reload. It sends one acknowledgement in 50 ms at most, and the last one again after a reconnect.
   */
  ack(offset: number = this.#offset ?? 0): void {
    if (offset <= this.#acked || offset > (this.#offset ?? 0)) return;
    this.#acked = offset;
    if (this.#ackTimer === undefined) this.#sendAck();
  }

  /** Sends the acknowledgement that is due. Without a connection it waits for the next join. */
  #sendAck(): void {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (!this.source?.opened || this.#acked <= this.#ackSent) return;
    this.#ackSent = this.#acked;
    this.source.send(JSON.stringify({ type: "notify", event: "ws.ack", data: { room: this.id, offset: this.#acked } }));
    this.#ackTimer = setTimeout(() => this.#sendAck(), ACK_PAUSE);
  }

  /** @internal */
  join(link: Link): void {
    const { device, last, strict, presence } = this.#options;
    const since = this.position;
    const again = this.#first || this.#epoch !== undefined; // else a room without history
    this.target = link;
    this.before = this.source;
    const request = {
      room: this.id, device, since, last: again && !since ? last : undefined, strict: (again && strict) || undefined,
      presence: presence?.(),
    };
    link.joins++;
    this.#port.ask(link, "ws.join", request, (error, data) => {
      link.joins--;
      if (error?.code === "lost") return;
      const here = this.target === link; // else the room was left
      const again = here && error && (error.code === 429 || (!this.#first && +error.code >= 500)) ? error : undefined;
      if (again) this.target = undefined;
      else if (here && error) this.#refuse(error);
      else if (here) this.#enter(link, since, data ?? {});
      this.#port.answered(this, link, again);
    });
  }

  /** Takes a notify of the room's history. @internal */
  receive(link: Link, m: any): void {
    if (link !== this.source) return;
    if (m.event === "ws.gap") return this.#gap(m.data);
    const offset: number | undefined = m.offset;
    const epoch = this.#epoch;
    if (offset !== undefined && epoch !== undefined) {
      const after = this.#offset ?? offset - 1;
      if (this.#offset !== undefined && offset <= after) return;
      const before = m.prev ?? offset - 1;
      this.#offset = offset;
      if (before > after) this.#report({ epoch, after, next: before + 1, reason: "unknown" });
    }
    this.deliver(m);
    this.#moved();
  }

  /** Delivers a message of the room. @internal */
  deliver(m: any): void {
    if (!this.source) return; // the join has no answer yet
    if (m.event === "ws.gap") return this.#report(m.data); // it has no place in the history
    const info: Info = { event: m.event, room: this.id, offset: m.offset, timestamp: m.timestamp };
    this.#on.emit("e" + m.event, m.data, info);
    this.#port.emit(m.event, m.data, info);
  }

  /** Goes back to the connection before the last join. Returns false if it has lost messages for that. @internal */
  stays(lost: Link): boolean {
    if (this.source === lost) {
      if (this.before && this.#epoch !== undefined) return false;
      this.source = this.before;
    }
    if (this.target === lost) this.target = this.source;
    return true;
  }

  /** Rejects `joined`, and ends the room. @internal */
  end(error: WsError): void {
    this.#reject(error);
    this.#sendAck();
    clearTimeout(this.#ackTimer);
    this.target = this.source = this.before = undefined;
  }

  #enter(link: Link, since: Position | undefined, data: any): void {
    this.source = link;
    const replaying: number = data.replaying ?? 0;
    if (!since) {
      this.#epoch = data.epoch;
      this.#offset = replaying > 0 ? undefined : data.offset;
    }
    this.#anew = !!since && since.epoch !== data.epoch && this.#epoch === data.epoch;
    this.#first = false;
    const head = data.epoch === undefined ? undefined : { epoch: data.epoch, offset: data.offset };
    this.#resolve({ head, replaying });
    this.#ackSent = 0; // the last one may be lost
    if (this.#ackTimer === undefined) this.#sendAck();
  }

  #refuse(error: WsError): void {
    const links = new Set([this.source]);
    this.end(error);
    void this.#port.leave(this, links);
    if (!this.#first) this.#on.emit("error", error);
  }

  #gap(d: Gap): void {
    const p = this.#offset;
    const epoch = this.#epoch;
    let { after } = d;
    const anew = this.#anew;
    this.#anew = false;
    if (p !== undefined && d.epoch === epoch && (d.reason !== "epoch" || anew)) {
      if (d.next - 1 <= p) return; // the other connection has delivered these messages
      after = Math.max(after, p);
    }
    this.#epoch = d.epoch || undefined;
    this.#offset = d.epoch ? d.next - 1 : undefined;
    if (epoch !== this.#epoch || (this.#offset ?? 0) < this.#acked) this.#acked = this.#ackSent = 0; // of another history
    this.#report({ ...d, after });
    this.#moved();
  }

  #report({ epoch, after, next, reason }: Omit<Gap, "room" | "lost">): void {
    const lost = next && reason !== "epoch" ? next - after - 1 : undefined;
    this.#on.emit("gap", { room: this.id, epoch, after, next, reason, lost });
  }

  /** Keeps the new position, after the message was delivered. */
  #moved(): void {
    if (!this.source) return; // left by the application's function
    const storage = this.#storage;
    const p = this.position;
    if (storage) run(() => (p ? storage.setItem(this.#key, JSON.stringify(p)) : storage.removeItem(this.#key)));
    if (this.#options.autoAck) this.ack();
  }

  get #storage(): PositionStore | undefined {
    return this.id.startsWith(INBOX) ? undefined : this.#port.storage;
  }

  get #key(): string {
    return "ws:" + this.id;
  }

  #stored(): Position | undefined {
    try {
      const p = JSON.parse(this.#storage?.getItem(this.#key) ?? "");
      if (typeof p.epoch === "string" && Number.isSafeInteger(p.offset)) return p;
    } catch {
      // Nothing is stored, or nothing that is a position.
    }
    return undefined;
  }
}
