/** The shape of the interface that the Go module `schema` generates. */
export interface APIShape {
  requests: object;
  events: object;
  errors?: object;
}

/** The API of a client without a generated interface: every event name, with any data. */
export interface AnyAPI {
  requests: Record<string, { req: any; resp: any }>;
  events: Record<string, any>;
}

/** The names of the requests of an API. */
export type RequestName<A extends APIShape> = keyof A["requests"] & string;
/** The names of the events of an API. */
export type EventName<A extends APIShape> = keyof A["events"] & string;
/** The data of the request E. */
export type Req<A extends APIShape, E extends RequestName<A>> = A["requests"][E] extends { req: infer R } ? R : unknown;
/** The data of the response to E. */
export type Resp<A extends APIShape, E extends RequestName<A>> = A["requests"][E] extends { resp: infer R } ? R : unknown;
/** The data of the event E. */
export type Data<A extends APIShape, E extends EventName<A>> = A["events"][E];
/** The arguments after the name of a request: its data can be left out if it may be undefined or null. */
export type RequestArgs<R> = undefined extends R ? [data?: R, options?: RequestOptions]
  : null extends R ? [data?: R, options?: RequestOptions]
  : [data: R, options?: RequestOptions];

/** A place in the history of a room. Offsets count within an epoch only. */
export interface Position {
  epoch: string;
  offset: number;
}

/** Messages that the room no longer has: those with after < offset < next. */
export interface Gap {
  room: string;
  epoch: string;
  after: number;
  /** 0 if messages without an offset are lost. */
  next: number;
  /**
   * "expired": the history has moved on while the client was away. "slow": the client was too slow. "epoch": the history began
   * anew, and `after` counts in the old epoch. "broker": messages were possibly lost between servers. "moved": messages were
   * possibly lost with the old connection, when the client moved to a new one. "unknown": the server did not name the loss.
   */
  reason: string;
  /** The number of offsets in the gap, undefined if the epoch changed or the messages have no offsets. With some stores fewer messages are missing. */
  lost: number | undefined;
}

/** The fields of an event beside its data. */
export interface Info {
  event: string;
  /** The room of the message, undefined for a message to this client alone. */
  room?: string;
  /** The offset in the room's history, undefined in a room without history. */
  offset?: number;
  /** Unix seconds of the server. */
  timestamp?: number;
}

/** The answer to the first join of a room. */
export interface Joined {
  /** The newest position of the room at the join; undefined in a room without history. */
  head: Position | undefined;
  /** The number of messages of the history that come first. */
  replaying: number;
}

/** Why a client does not connect again. */
export interface Closed {
  /** The close code, 1000 after `close()`, and 0 if there is nowhere to connect to. */
  code: number;
  reason: string;
}

export type State =
  | { name: "connecting" }
  | { name: "open" }
  /** The next attempt is at `retryAt`, in milliseconds like `Date.now()`. */
  | { name: "waiting"; retryAt: number }
  | { name: "closed"; reason: Closed };

/** Where to connect. A relative URL is resolved against the page's; http becomes ws. */
export type Target = string | URL | { url: string | URL; protocols?: string | string[] };

/**
 * A target, or a function that is called before each connection. `refresh` is true after the server refused the credentials
 * (4401), `attempt` is the number of connections in a row that failed. An error counts as a failed connection; null closes
 * the client.
 */
export type URLSource =
  | Target
  | ((why: { refresh: boolean; attempt: number }) => Target | null | Promise<Target | null>);

/** The part of a WebSocket that the client uses. */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type WebSocketConstructor = new (url: string, protocols?: string | string[]) => WebSocketLike;

/** Keeps the positions of rooms, under keys that begin with "ws:". `sessionStorage` and `localStorage` are such stores. */
export interface PositionStore {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** Options of `connect`. Times are in milliseconds. */
export interface ConnectOptions {
  /** The WebSocket class. Default: the global one. Node 20 has none: pass the class of the npm package `ws`. */
  WebSocket?: WebSocketConstructor;
  /** The timeout of a request, its time in the queue included. Default 10,000; 0 is none. */
  timeout?: number;
  /** The timeout of one attempt to connect. Default 10,000. */
  connectTimeout?: number;
  /** The number of requests that wait for a connection. One more fails with code "full". Default 256. */
  queue?: number;
  /**
   * After this time without a message, the client sends a request (`ws.ping`), because a page does not see the server's
   * pings. Without any message within the same time, 10 s at most, the connection counts as lost. It also asks when the
   * page is shown, when the network is back, and after a request that timed out. Default 30,000; 0 never asks.
   */
  probe?: number;
  /**
   * Adds `notice=1` to the query, and moves to a new connection before the old one ends when the server asks for it
   * (`ws.reconnect`). Default true.
   */
  notice?: boolean;
  /** Keeps positions across reloads of the page. Default: they are kept in memory. */
  storage?: PositionStore;
}

export interface RequestOptions {
  /** Milliseconds, the time in the queue included. Default: the client's timeout; 0 is none. */
  timeout?: number;
  /** Ends the wait; the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /**
   * Sends the request again, with the same ID, after a lost connection. The server answers a repeat with the first reply
   * (`ws.WithIdempotency`); without that, handling the request twice must do no harm.
   */
  idempotent?: boolean;
}

export interface RoomOptions {
  /** Begin after this position. Default: the position in `storage`, if any. */
  since?: Position;
  /** Begin with the newest n messages of the history, if there is no `since`. */
  last?: number;
  /** Refuse the join (code 409) if a message after the position is lost. Default: join, and report a gap. */
  strict?: boolean;
  /** The name of this device, in the inbox of a user: the server keeps an acknowledged offset for each. Default "". */
  device?: string;
  /** Acknowledge each message of an inbox when the functions that read it have returned. Default: call `ack()`. */
  autoAck?: boolean;
  /**
   * Called with each join, also after a reconnect: the version of the list of users that the application has from `ws.presence`,
   * undefined without one. If the server has kept the changes since then, it sends these in place of the list.
   */
  presence?: () => PresenceVersion | undefined;
}

/** A version of the list of users in a room. */
export interface PresenceVersion {
  epoch: string;
  version: number;
}
