// Inboxes of users, against a real server, in Node. The data of message number i is i, its offset as well.

import assert from "node:assert/strict";
import test, { after, afterEach, before, beforeEach } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { connect } from "../dist/index.js";
import { Proxy } from "./proxy.mjs";
import { generator } from "./random.mjs";
import { startServers, until } from "./servers.mjs";

let servers, proxy, publisher;
const random = Math.random;
before(async () => {
  servers = await startServers();
  publisher = connect(servers.main, { WebSocket, timeout: 60_000 });
  Math.random = () => random() / 50; // short waits between attempts
});
after(async () => {
  Math.random = random;
  publisher.close();
  await servers.stop();
});
beforeEach(async () => void (proxy = await Proxy.start(servers.main)));
afterEach(() => proxy.stop());

const publish = (user, n) => publisher.request("publish.inbox", { room: user, n }, { idempotent: true });

// run is one run of a program that reads the inbox of a user: a page until its reload.
function run(user, options) {
  const storage = { getItem: () => JSON.stringify({ epoch: "no use", offset: 1 }), setItem: assert.fail, removeItem: assert.fail };
  const c = connect(`${proxy.url}?user=${user}`, { WebSocket, probe: 500, connectTimeout: 2_000, storage });
  const room = c.room(`@user:${user}`, options);
  const numbers = [];
  room.on("number", (number, { offset }) => {
    assert.equal(number, offset);
    if (numbers.length > 0) assert.equal(number, numbers.at(-1) + 1);
    numbers.push(number);
  });
  room.onGap((gap) => assert.fail(JSON.stringify(gap)));
  room.onError(assert.fail);
  return { c, room, numbers };
}

test("a page goes on behind the last acknowledged message", async () => {
  await publish("ann", 5);
  const first = run("ann", { device: "phone" });
  assert.equal((await first.room.joined).replaying, 5);
  await until(() => first.numbers.length === 5, "5 messages");
  for (const offset of [2, 3, 1, 6]) first.room.ack(offset);
  first.c.close();
  for (let begin; begin !== 4; ) { // the server may still handle the last acknowledgement
    const { c, numbers } = run("ann", { device: "phone" });
    await until(() => numbers.at(-1) === 5, "the last message");
    begin = numbers[0];
    c.close();
  }
  const second = run("ann", { device: "phone", autoAck: true });
  await until(() => second.numbers.at(-1) === 5, "the last message");
  second.c.close();
  for (let replaying; replaying !== 0; ) {
    const { c, room } = run("ann", { device: "phone" });
    ({ replaying } = await room.joined);
    c.close();
  }
});

test("the inbox of another user, and an acknowledgement without a room", async () => {
  const { c } = run("eve");
  await assert.rejects(c.room("@user:ann").joined, { code: 403 });
  c.room("@user:ann").ack(1);
  assert.equal(await c.request("echo", 1), 1);
  c.close();
});

test("reloads, crashes and cuts lose no message of an inbox", async (t) => {
  const rnd = generator(3);
  const total = 1_000;
  const published = (async () => {
    for (let i = 0; i < total; i += 5) {
      await publish("bob", 5);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  let [done, again, runs] = [0, 0, 0];
  for (; done < total; runs++) {
    const { c, numbers } = run("bob", { device: "d", autoAck: true });
    const goal = Math.min(total, done + 50);
    while (!(numbers.at(-1) >= goal)) {
      await new Promise((resolve) => setTimeout(resolve, 1 + rnd(10)));
      if (rnd(3) === 0) proxy.cut(["drop", "reset", "half", "silent"][rnd(4)]);
    }
    if (runs % 2) proxy.cut("reset"); // the page crashes
    c.close();
    assert.ok(numbers[0] <= done + 1, `${numbers[0]} after ${done}`);
    again += done + 1 - numbers[0];
    done = numbers.at(-1);
  }
  await published;
  t.diagnostic(JSON.stringify({ runs, again, connections: proxy.count }));
  for (let replaying; replaying !== 0; ) { // each acknowledges all
    const { c, room } = run("bob", { device: "d", autoAck: true });
    ({ replaying } = await room.joined);
    await until(() => room.position?.offset === total, "the last message");
    c.close();
  }
});

test("an older server, which answers ws.ping with 404, is alive", async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  let connections = 0;
  let pings = 0;
  server.on("connection", (socket) => {
    connections++;
    socket.on("message", (text) => {
      const { event, request_id } = JSON.parse(text);
      assert.equal(event, "ws.ping");
      pings++;
      socket.send(JSON.stringify({ type: "error", code: 404, message: "handler not found", request_id }));
    });
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const c = connect(`ws://127.0.0.1:${server.address().port}/`, { WebSocket, probe: 1_000 });
  await until(() => pings >= 5, "5 pings");
  assert.equal(connections, 1);
  assert.equal(c.state.name, "open");
  c.close();
  server.close();
});
