import { once } from "node:events";
import { connect, createServer } from "node:net";

// Proxy passes TCP connections on to a server, until a test cuts them.
export class Proxy {
  /** Milliseconds by which each piece is late, in both directions. */
  delay = 0;
  /** Milliseconds by which the pieces of every second connection are later. */
  lag = 0;
  /** Whether new connections are reset at once. */
  refuse = false;
  /** The number of connections that were accepted. */
  count = 0;
  #pairs = new Set();
  #held = undefined; // a promise while no piece passes

  static async start(url) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(url);
    proxy.server = createServer((client) => proxy.#accept(client, +port, hostname)).listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.url = `ws://127.0.0.1:${proxy.server.address().port}/ws`;
    return proxy;
  }

  #accept(client, port, host) {
    client.on("error", () => {});
    if (this.refuse) return client.resetAndDestroy();
    this.count++;
    const lag = this.lag * (this.count % 2);
    const server = connect(port, host);
    const pair = { client, server, silent: false, half: false };
    this.#pairs.add(pair);
    for (const [from, to] of [[client, server], [server, client]]) {
      from.setNoDelay(true);
      from.on("error", () => {});
      let earlier = Promise.resolve(); // pieces stay in their order
      from.on("data", (data) => {
        const delay = this.delay + lag;
        const due = delay > 0 && new Promise((resolve) => setTimeout(resolve, delay));
        earlier = earlier.then(() => due).then(() => this.#held).then(() => pass(pair, to, data));
      });
      from.on("close", () => {
        if (!pair.silent) to.destroy();
        if (to.destroyed) this.#pairs.delete(pair);
      });
    }
  }

  // hold keeps all pieces, in both directions, until the function that it returns is called.
  hold() {
    let release;
    this.#held = new Promise((resolve) => (release = resolve));
    return () => {
      this.#held = undefined;
      release();
    };
  }

  // cut ends all connections. How: "drop" with a FIN to both sides, "reset" with an RST, "half" passes half of the next piece
  // from the server and then resets, "silent" passes nothing any more.
  cut(how) {
    for (const pair of this.#pairs) {
      const { client, server } = pair;
      if (how === "drop") {
        client.end();
        server.end();
      } else if (how === "reset") reset(pair);
      else pair[how] = true;
    }
  }

  async stop() {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    this.server.close();
    await once(this.server, "close");
  }
}

function pass(pair, to, data) {
  if (pair.silent) return;
  if (pair.half && to === pair.client) {
    pair.silent = true;
    to.write(data.subarray(0, data.length >> 1), () => reset(pair));
  } else to.write(data);
}

// reset sends an RST in both directions. Node leaks a socket that is reset while its end is on the way.
function reset({ client, server }) {
  for (const socket of [client, server]) {
    if (socket.connecting || socket.writableEnded) socket.destroy();
    else socket.resetAndDestroy();
  }
}
