// The client in Node, with the npm package ws, against a real server behind a proxy that cuts connections.

import assert from "node:assert/strict";
import test, { after, before, beforeEach, afterEach } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { connect } from "../dist/index.js";
import { Proxy } from "./proxy.mjs";
import { reaches, startServers, until } from "./servers.mjs";

let servers, proxy;
const clients = [];
const open = (url, options) => {
  const client = connect(url, { WebSocket, timeout: 60_000, ...options });
  clients.push(client);
  return client;
};

before(async () => void (servers = await startServers()));
after(() => servers.stop());
beforeEach(async () => void (proxy = await Proxy.start(servers.main)));
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await proxy.stop();
});

test("a request is answered, an error has code, message and data", async () => {
  const c = open(proxy.url);
  assert.deepEqual(await c.request("echo", { text: "héllo" }), { text: "héllo" });
  await assert.rejects(c.request("refuse", {}), (error) => {
    assert.equal(error.name, "WsError");
    assert.deepEqual([error.code, error.message, error.data], [422, "no", { field: "name" }]);
    assert.match(error.traceId, /^\w+/);
    return true;
  });
  await assert.rejects(c.request("no.such"), { code: 404 });
  assert.equal(await c.request("ws.ping"), undefined);
});

test("a request ends with its timeout or its signal", async () => {
  const c = open(proxy.url);
  await assert.rejects(c.request("hold", null, { timeout: 10 }), { code: "timeout" });
  await assert.rejects(c.request("hold", null, { signal: AbortSignal.timeout(10) }), { name: "TimeoutError" });
  const abort = new AbortController();
  abort.abort("why not");
  await assert.rejects(c.request("echo", 1, { signal: abort.signal }), (reason) => reason === "why not");
});

test("data that is no JSON, and a timeout beyond the range of timers", async () => {
  const c = open(proxy.url);
  const circular = {};
  circular.self = circular;
  await assert.rejects(c.request("echo", circular, { timeout: 10 }), TypeError);
  assert.equal(await c.request("echo", 1, { timeout: Infinity }), 1);
  assert.throws(() => c.notify("echo", circular), TypeError);
  assert.equal(await c.request("echo", 2, { timeout: 2 ** 40 }), 2);
});

test("functions may add and remove functions, and close the client", async () => {
  const c = open(proxy.url);
  const room = c.room("r1");
  const calls = [];
  const first = room.on("number", () => {
    calls.push("first");
    first();
    second();
    room.on("number", () => calls.push("third"));
    c.close();
  });
  const second = room.on("number", () => calls.push("second"));
  await room.joined;
  const publisher = open(proxy.url);
  await publisher.request("publish", { room: "r1", n: 3 });
  await reaches(c, "closed");
  await publisher.request("echo");
  assert.deepEqual(calls, ["first"]);
});

test("many timeouts ask for a sign of life once", async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  const events = [];
  server.on("connection", (socket) => socket.on("message", (text) => events.push(JSON.parse(text).event)));
  await new Promise((resolve) => server.once("listening", resolve));
  const c = open(`ws://127.0.0.1:${server.address().port}/`);
  await reaches(c, "open");
  await Promise.all(Array.from({ length: 20 }, () => assert.rejects(c.request("slow", null, { timeout: 10 }), { code: "timeout" })));
  await until(() => events.includes("ws.ping"), "a ping");
  await assert.rejects(c.request("last", null, { timeout: 10 }), { code: "timeout" });
  await until(() => events.includes("last"), "the last request");
  assert.equal(events.filter((event) => event === "ws.ping").length, 1);
  c.close();
  server.close();
});

for (const how of ["drop", "reset", "half", "silent"]) {
  test(`${how}: a request that was sent is lost, an idempotent one is sent again`, async () => {
    const c = open(`${proxy.url}?user=${how}`, { probe: how === "silent" ? 5_000 : 30_000 });
    await c.request("echo", 1);
    const count = () => c.request("count", { key: how }, { idempotent: true });
    let kept;
    if (how === "half") {
      proxy.cut(how); // the next answer
      kept = count();
    }
    const lost = assert.rejects(c.request("hold"), { code: "lost" });
    if (how !== "half") {
      kept = count();
      proxy.cut(how);
    }
    await lost;
    assert.deepEqual(await kept, { n: 1 }); // it ran once
    assert.equal(await c.request("echo", 3), 3);
    assert.equal(proxy.count, 2);
  });
}

test("requests wait while there is no connection, and one too many fails", async () => {
  const c = open(proxy.url, { queue: 2 });
  await reaches(c, "open");
  proxy.refuse = true;
  proxy.cut("reset");
  await until(() => c.state.name !== "open", "lost");
  const waiting = [c.request("echo", 1), c.request("echo", 2)];
  await assert.rejects(c.request("echo", 3), { code: "full" });
  proxy.refuse = false;
  assert.deepEqual(await Promise.all(waiting), [1, 2]);
});

test("4401 asks for new credentials", async () => {
  const asked = [];
  const c = open(({ refresh }) => {
    asked.push(refresh);
    return `${proxy.url}?token=${refresh ? "new" : "old"}`;
  });
  await assert.rejects(c.request("token"), { code: "lost" });
  assert.equal(await c.request("token"), "new");
  assert.deepEqual(asked, [false, true]);
});

test("a code of 4500 and more stops the client", async () => {
  const c = open(proxy.url);
  await assert.rejects(Promise.race([c.request("close", { code: 4503, reason: "banned" }), reaches(c, "closed").then(() => c.request("echo"))]));
  assert.deepEqual((await reaches(c, "closed")).reason, { code: 4503, reason: "banned" });
  await assert.rejects(c.request("echo"), { code: "closed" });
});

test("an address without a server, and a provider that fails", async () => {
  let calls = 0;
  const c = open(async () => {
    if (++calls === 1) throw new Error("no token");
    return calls === 2 ? "ws://127.0.0.1:1/" : proxy.url;
  });
  assert.equal(await c.request("echo", 1), 1);
  assert.equal(calls, 3);
  const stopped = open(() => null);
  assert.equal((await reaches(stopped, "closed")).reason.code, 0);
});

test("the client moves to a new connection before the old one ends", async (t) => {
  const moving = await Proxy.start(servers.moving);
  t.after(() => moving.stop());
  const c = open(moving.url);
  const states = [];
  c.onState(({ name }) => states.push(name));
  let answers = 0;
  while (moving.count < 4) {
    assert.equal(await c.request("echo", ++answers), answers); // none is lost
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.deepEqual(states, ["open"]);
});
