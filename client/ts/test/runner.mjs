import assert from "node:assert/strict";
import { connect, WsError } from "../dist/index.js";
import { idle } from "./clock.mjs";

// Runner plays one script: it is the application and the server.
export class Runner {
  #client;
  #clock;
  #options;
  #early = [];
  #sockets = []; // by dial - 1
  #names = new Map(); // bound names
  #aborts = new Map();
  #rooms = new Map();
  #out = {};

  constructor(options, clock) {
    this.#options = options;
    this.#clock = clock;
  }

  async step({ do: input, expect = {} }, name) {
    this.#out = { dials: [], frames: [], closes: [], states: [], messages: [], results: [] };
    if (input) {
      const action = Object.keys(input).find((key) => key !== "on");
      if (!this.#client && action === "notify") this.#sent(input.notify.as, false); // there is no connection
      else if (!this.#client && action !== "connect") this.#early.push(input);
      else await this[action](input[action], input.on);
    }
    await idle();
    await this.#clock.pass(0);
    const { positions = {}, ...want } = expect;
    this.#compare(want, name);
    for (const [room, position] of Object.entries(positions)) {
      assert.deepEqual(this.#rooms.get(room).position ?? { epoch: "", offset: 0 }, position, `${name}: position of ${room}`);
    }
  }

  #compare(want, name) {
    for (const [list, got] of Object.entries(this.#out)) {
      let wanted = want[list] ?? [];
      assert.equal(got.length, wanted.length, `${name}: ${list}: ${JSON.stringify(got)}`);
      if (list === "frames") {
        got.sort((a, b) => a.on - b.on); // stable: in order for each connection
        wanted = [...wanted].sort((a, b) => a.on - b.on).map((w, i) => this.#bind(w, got[i]));
      }
      if (list === "results") for (const l of [got, wanted]) l.sort((a, b) => (a.of < b.of ? -1 : 1));
      if (list === "states") wanted = wanted.map((w) => ("code" in w ? { reason: "", ...w } : w));
      assert.deepEqual(got, wanted, `${name}: ${list}`);
    }
  }

  // bind replaces "$name" in what is wanted; the first use takes the value that the client sent.
  #bind(want, got) {
    if (typeof want === "string" && want.startsWith("$")) {
      if (!this.#names.has(want)) this.#names.set(want, got);
      return this.#names.get(want);
    }
    if (typeof want !== "object" || want === null) return want;
    if (Array.isArray(want)) return want.map((w, i) => this.#bind(w, got?.[i]));
    return Object.fromEntries(Object.entries(want).map(([key, w]) => [key, this.#bind(w, got?.[key])]));
  }

  connect() {
    const runner = this;
    class Socket {
      constructor() {
        this.dial = runner.#sockets.push(this);
        runner.#out.dials.push(runner.refresh ? { dial: this.dial, refresh: true } : { dial: this.dial });
      }
      send(text) {
        const frame = JSON.parse(text);
        delete frame.timestamp;
        runner.#out.frames.push({ on: this.dial, frame });
      }
      close(code) {
        if (this.open) runner.#out.closes.push({ on: this.dial, code });
        this.open = false;
      }
    }
    const url = ({ refresh }) => {
      this.refresh = refresh;
      return "ws://server/";
    };
    const c = (this.#client = connect(url, {
      WebSocket: Socket, timeout: 0, connectTimeout: 3_600_000, probe: 0,
      queue: this.#options.queue ?? 256, notice: this.#options.make_before_break ?? true,
    }));
    this.#state(c.state);
    c.onState((state) => this.#state(state));
    for (const event of ["hello", "chat.message", "ws.presence", "ws.gap", ...(this.#options.events ?? [])]) {
      c.on(event, (data, info) => {
        if (!info.room) this.#out.messages.push(clean({ event, data }));
      });
    }
    for (const input of this.#early) {
      const [action] = Object.keys(input);
      this[action](input[action]);
    }
  }

  #state(state) {
    const { name, retryAt, reason } = state;
    const entry = { state: name };
    if (retryAt !== undefined) entry.retry_in_ms = retryAt - Date.now();
    this.#out.states.push(reason ? { ...entry, ...reason } : entry);
  }

  accept(dial) {
    const socket = this.#sockets[dial - 1];
    socket.open = true;
    socket.onopen?.({});
  }

  fail(dial) {
    const socket = this.#sockets[dial - 1];
    socket.onerror?.({});
    socket.onclose?.({ code: 1006, reason: "" });
  }

  receive(message, on) {
    const fill = (value) => {
      if (typeof value === "string") return value.startsWith("$") ? this.#names.get(value) : value;
      if (typeof value !== "object" || value === null) return value;
      if (Array.isArray(value)) return value.map(fill);
      return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, fill(v)]));
    };
    this.#sockets[on - 1].onmessage?.({ data: JSON.stringify(fill(message)) });
  }

  close({ code, reason = "" }, on) {
    const socket = this.#sockets[on - 1];
    socket.open = false;
    socket.onclose?.({ code, reason });
  }

  pass_ms(ms) {
    return this.#clock.pass(ms);
  }

  request({ as, event, data, idempotent, timeout_ms }) {
    const abort = new AbortController();
    this.#aborts.set(as, () => abort.abort());
    const options = { idempotent, signal: abort.signal };
    if (timeout_ms !== undefined) options.timeout = timeout_ms;
    this.#result(as, this.#client.request(event, data, options), (data) => ({ data }));
  }

  cancel(as) {
    this.#aborts.get(as)();
  }

  notify({ as, event, data }) {
    this.#sent(as, this.#client.notify(event, data));
  }

  join({ as, room: id, device, since, last, strict, auto_ack: autoAck, presence }) {
    let list;
    const room = this.#client.room(id, { device, since, last, strict, autoAck, presence: presence && (() => list) });
    if (presence) room.on("ws.presence", ({ epoch, version }) => { list = { epoch, version }; });
    // the room of the first call
    if (this.#rooms.get(id) === room) return void this.#out.results.push({ of: as, error: "joined" });
    this.#rooms.set(id, room);
    let canceled = false;
    this.#aborts.set(as, () => {
      canceled = true;
      void room.leave();
    });
    const joined = room.joined.catch((error) => {
      throw canceled ? new DOMException("canceled", "AbortError") : error;
    });
    this.#result(as, joined, ({ head, replaying }) => ({ joined: { ...(head ?? { epoch: "", offset: 0 }), replaying } }));
    this.#listen(room);
  }

  #listen(room) {
    const heard = (event) => (data, { offset }) => this.#out.messages.push(clean({ room: room.id, event, offset, data }));
    for (const event of ["hello", "chat.message", "ws.presence", ...(this.#options.events ?? [])]) room.on(event, heard(event));
    room.onGap(({ lost, ...gap }) => {
      assert.equal(lost, gap.next && gap.reason !== "epoch" ? gap.next - gap.after - 1 : undefined);
      this.#out.messages.push({ gap });
    });
    room.onError(({ code }) => this.#out.messages.push({ left: { room: room.id, code } }));
  }

  leave({ as, room }) {
    const closed = this.#client.state.name === "closed";
    this.#result(as, this.#rooms.get(room).leave(), () => (closed ? { error: "closed" } : {})); // it never rejects
  }

  ack({ room, offset }) {
    this.#rooms.get(room)?.ack(offset);
  }

  disconnect() {
    this.#client.close();
  }

  #sent(of, sent) {
    this.#out.results.push(sent ? { of } : { of, error: "lost" });
  }

  async #result(of, promise, show) {
    const result = await promise.then(show, failure);
    this.#out.results.push(clean({ of, ...result }));
  }
}

function failure(error) {
  if (error.name === "AbortError") return { error: "canceled" };
  assert.ok(error instanceof WsError, error.stack);
  const { code, message, data } = error;
  if (typeof code === "number") return clean({ error: "server", code, message, data });
  return { error: code === "full" ? "queue_full" : code };
}

// clean leaves out what is undefined.
function clean(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}
