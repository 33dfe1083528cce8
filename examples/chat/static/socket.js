// A WebSocket that stays connected, and the server's message envelope on top of it.

const FIRST_WINDOW = 1_000; // ms; the wait before a retry is random within this window,
const MAX_WINDOW = 30_000; // which doubles with each failure up to this one.
const RESTART_WINDOW = 4_000; // A restart disconnects everyone at once: come back spread out.
const STABLE_AFTER = 10_000; // Only a connection that lasted this long forgives past failures.
const REQUEST_TIMEOUT = 10_000;
const SILENCE_LIMIT = 15_000; // The server sends stats each second, so silence means it is gone.

const RESTARTING = new Set([1001, 1012, 1013]); // going away, service restart, try again later

export class Socket {
  #ws = null;
  #pending = new Map(); // request ID -> {resolve, reject, timer}
  #lastID = 0;
  #failures = 0;
  #retryTimer = 0;
  #heardAt = 0;

  // url() names the address at each attempt. onOpen() runs after each connect, onNotify(event,
  // data) for what the server pushes, onState({state, retryAt}) when "connecting", "open" or
  // "waiting" begins.
  constructor({ url, onOpen, onNotify, onState }) {
    Object.assign(this, { url, onOpen, onNotify, onState });
    addEventListener("online", () => this.reconnect());
    setInterval(() => this.#checkSilence(), 5_000);
  }

  // reconnect drops the connection, if any, and dials at once.
  reconnect() {
    clearTimeout(this.#retryTimer);
    this.#drop(1000);
    this.#dial();
  }

  // giveUp drops a connection that does not work, and dials again after a wait.
  giveUp() {
    this.#drop(1006);
    this.#retryLater(FIRST_WINDOW);
  }

  // request resolves with the response's data. It rejects with an Error whose code is the
  // server's, or 408 if there was no answer, the close code if the connection was lost meanwhile,
  // and 0 if there was none.
  request(event, data = {}) {
    return new Promise((resolve, reject) => {
      if (this.#ws?.readyState !== WebSocket.OPEN) {
        reject(failure(0, "Not connected"));
        return;
      }
      const id = `req_${++this.#lastID}`;
      const timer = setTimeout(() => this.#settle(id, failure(408, "No answer")), REQUEST_TIMEOUT);
      this.#pending.set(id, { resolve, reject, timer });
      const timestamp = Math.floor(Date.now() / 1000);
      this.#ws.send(JSON.stringify({ type: "request", event, request_id: id, data, timestamp }));
    });
  }

  #dial() {
    this.onState({ state: "connecting" });
    const ws = new WebSocket(this.url());
    const openedAt = Date.now();
    this.#ws = ws;
    this.#heardAt = openedAt;
    ws.onopen = () => {
      this.onState({ state: "open" });
      this.onOpen();
    };
    ws.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    ws.onclose = ({ code }) => {
      if (Date.now() - openedAt > STABLE_AFTER) this.#failures = 0;
      this.#drop(code);
      this.#retryLater(RESTARTING.has(code) ? RESTART_WINDOW : FIRST_WINDOW);
    };
  }

  // Exponential backoff with full jitter: clients that fell together do not come back together.
  #retryLater(firstWindow) {
    const window = Math.min(MAX_WINDOW, firstWindow * 2 ** this.#failures++);
    const delay = Math.random() * window;
    this.onState({ state: "waiting", retryAt: Date.now() + delay });
    this.#retryTimer = setTimeout(() => this.#dial(), delay);
  }

  #drop(code) {
    const ws = this.#ws;
    this.#ws = null;
    if (ws) {
      ws.onopen = ws.onmessage = ws.onclose = null;
      if (ws.readyState < WebSocket.CLOSING) ws.close(1000);
    }
    for (const id of [...this.#pending.keys()]) {
      this.#settle(id, failure(code, "The connection was lost"));
    }
  }

  #receive(message) {
    this.#heardAt = Date.now();
    switch (message.type) {
      case "notify":
        this.onNotify(message.event, message.data);
        break;
      case "response":
        this.#settle(message.request_id, null, message.data);
        break;
      case "error":
        this.#settle(message.request_id, failure(message.code, message.message));
        break;
    }
  }

  #settle(id, error, data) {
    const request = this.#pending.get(id);
    if (!request) return;
    this.#pending.delete(id);
    clearTimeout(request.timer);
    if (error) request.reject(error);
    else request.resolve(data);
  }

  #checkSilence() {
    if (this.#ws && Date.now() - this.#heardAt > SILENCE_LIMIT) this.giveUp();
  }
}

function failure(code, message) {
  return Object.assign(new Error(message), { code });
}
