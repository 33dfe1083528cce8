// Rooms with history, against a real server, while a proxy cuts the connection. The oracle: within an epoch, the messages
// that are delivered and the gaps that are reported tile the list of published messages, each once and in order.

import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";
import { Proxy } from "./proxy.mjs";
import { Log } from "./log.mjs";
import { generator } from "./random.mjs";
import { startServers, until } from "./servers.mjs";

const SCHEDULES = Number(process.env.SCHEDULES ?? 300);
const SEED = Number(process.env.SEED ?? (Math.random() * 2 ** 31) | 0);
const PARALLEL = 16;

let servers;
const clients = [];
const open = (url, options) => {
  const client = connect(url, options);
  clients.push(client);
  return client;
};
const random = Math.random;
before(async () => {
  servers = await startServers();
  Math.random = () => random() / 50; // short waits between attempts
});
after(async () => {
  for (const client of clients) client.close();
  Math.random = random;
  await servers.stop();
});

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const settings = { WebSocket, timeout: 0, connectTimeout: 2_000, probe: 500 };

// schedule plays one random schedule: a publisher, a client behind a proxy, and cuts.
async function schedule(seed, url, counts) {
  const rnd = generator(seed);
  const room = `room-${seed}`;
  const proxy = await Proxy.start(url);
  const publisher = open(url, { WebSocket, timeout: 0 });
  const client = open(proxy.url, settings);
  try {
    const begin = await publisher.request("publish", { room, n: 1 + rnd(20) }, { idempotent: true });
    const since = rnd(2) ? begin : undefined;
    const r = client.room(room, since ? { since } : { last: rnd(10) || undefined });
    const log = new Log(r, since);
    for (let i = 3 + rnd(5); i > 0; i--) {
      const n = rnd(4) === 0 ? rnd(120) : rnd(20);
      if (n > 0) await publisher.request("publish", { room, n });
      proxy.delay = rnd(3) === 0 ? rnd(20) : 0;
      await sleep(rnd(20));
      if (rnd(5) > 0) proxy.cut(["drop", "reset", "half", "silent"][rnd(4)]);
      proxy.refuse = rnd(4) === 0;
    }
    proxy.delay = 0;
    proxy.refuse = false;
    await r.joined;
    const head = await publisher.request("publish", { room, n: 1 });
    await until(() => r.position?.offset === head.offset, `seed ${seed}: offset ${head.offset}, not ${JSON.stringify(r.position)}`);
    log.check(head, `seed ${seed}`);
    counts.messages += log.messages;
    counts.gaps += log.gaps;
    counts.connections += proxy.count;
  } finally {
    client.close();
    publisher.close();
    await proxy.stop();
  }
}

async function schedules(first, number, url) {
  const counts = { messages: 0, gaps: 0, connections: 0 };
  let next = first;
  const worker = async () => {
    while (next < first + number) await schedule(next++, url, counts);
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return counts;
}

test(`${SCHEDULES} random schedules of cuts, from seed ${SEED}`, async (t) => {
  const counts = await schedules(SEED, SCHEDULES, servers.main);
  t.diagnostic(JSON.stringify(counts));
});

test("random schedules of cuts while the connections move", async (t) => {
  const counts = await schedules(SEED, Math.ceil(SCHEDULES / 10), servers.moving);
  t.diagnostic(JSON.stringify(counts));
});

test("a room is read without a break while its connection moves", async (t) => {
  const proxy = await Proxy.start(servers.moving);
  t.after(() => proxy.stop());
  const client = open(proxy.url, { ...settings, probe: 0, connectTimeout: 60_000 });
  const publisher = open(servers.moving, { WebSocket, timeout: 0 });
  const since = await publisher.request("publish", { room: "moved", n: 1 });
  const states = [];
  const room = client.room("moved", { since });
  const log = new Log(room, since);
  await room.joined;
  client.onState(({ name }) => states.push(name));
  let head;
  while (proxy.count < 5) {
    head = await publisher.request("publish", { room: "moved", n: 1 }, { idempotent: true });
    await sleep(2);
  }
  await until(() => room.position.offset === head.offset, "the last message");
  log.check(head, "moved");
  assert.equal(log.gaps, 0);
  assert.deepEqual(states, []);
});

test("a room without a history is read without a break, too", async (t) => {
  const proxy = await Proxy.start(servers.moving);
  t.after(() => proxy.stop());
  proxy.lag = 10;
  const client = open(proxy.url, { ...settings, probe: 0, connectTimeout: 60_000 });
  const publisher = open(servers.moving, { WebSocket, timeout: 0 });
  const states = [];
  const numbers = [];
  const room = client.room("plain-moved");
  room.on("number", (number) => numbers.push(number));
  await room.joined;
  client.onState(({ name }) => states.push(name));
  let published = 0;
  while (proxy.count < 9) {
    await publisher.request("publish", { room: "plain-moved", n: 1 });
    published++;
    await sleep(2);
  }
  await until(() => numbers.at(-1) === published, "the last message");
  assert.deepEqual(numbers, Array.from({ length: published }, (_, i) => i + 1));
  assert.deepEqual(states, []);
});

test("a join that is refused, and a position that is lost", async () => {
  const client = open(servers.main, settings);
  await assert.rejects(client.room("secret").joined, { code: 403 });
  const epoch = (await client.request("publish", { room: "strict", n: 100 })).epoch;
  await assert.rejects(client.room("strict", { since: { epoch, offset: 1 }, strict: true }).joined, { code: 409 });
  const room = client.room("strict", { since: { epoch: "other", offset: 70 } });
  const gaps = [];
  room.onGap((gap) => gaps.push(gap));
  await room.joined;
  await until(() => gaps.length > 0, "a gap");
  assert.deepEqual(gaps, [{ room: "strict", epoch, after: 70, next: 101, reason: "epoch", lost: undefined }]);
  assert.deepEqual(room.position, { epoch, offset: 100 });
});

test("another server has another epoch, and the client goes on there", async (t) => {
  const proxy = await Proxy.start(servers.main);
  t.after(() => proxy.stop());
  let url = proxy.url;
  const client = open(() => url, settings);
  const publishers = [servers.main, servers.strict].map((server) => open(server, settings));
  const [here, there] = await Promise.all(publishers.map((p, i) => p.request("publish", { room: "both", n: 9 - 6 * i })));
  const room = client.room("both", { since: here });
  const log = [];
  room.on("number", (data) => log.push(data));
  room.onGap((gap) => log.push(gap));
  await room.joined;
  url = servers.strict;
  proxy.cut("reset");
  await until(() => log.length === 1, "a gap");
  await publishers[1].request("publish", { room: "both", n: 2 });
  await until(() => log.length === 3, "the messages after the gap");
  assert.deepEqual(log, [{ room: "both", epoch: there.epoch, after: 9, next: 4, reason: "epoch", lost: undefined }, 4, 5]);
  assert.deepEqual(room.position, { epoch: there.epoch, offset: 5 });
  client.close();
});

test("a rate limit delays the joins of many rooms", async (t) => {
  const proxy = await Proxy.start(servers.strict);
  t.after(() => proxy.stop());
  const client = open(proxy.url, { ...settings, probe: 0, connectTimeout: 60_000 });
  const states = [];
  client.onState(({ name }) => states.push(name));
  const rooms = Array.from({ length: 30 }, (_, i) => client.room(`many-${i}`));
  await Promise.all(rooms.map((room) => room.joined));
  assert.deepEqual(states, ["open"]);
  const { source } = rooms[0];
  proxy.cut("reset");
  await until(() => rooms.every((room) => room.source !== source), "all rooms again");
  assert.deepEqual(states, ["open", "waiting", "connecting", "open"]);
  client.close();
});

test("a rejoin that the server refuses with 503 is sent again", async (t) => {
  const proxy = await Proxy.start(servers.main);
  t.after(() => proxy.stop());
  const publisher = open(servers.main, settings);
  const since = await publisher.request("publish", { room: "busy", n: 1 });
  const client = open(proxy.url, { ...settings, probe: 0, connectTimeout: 60_000 });
  const room = client.room("busy", { since });
  const log = new Log(room, since);
  await room.joined;
  let head;
  for (let i = 1; i <= 3; i++) {
    proxy.cut("reset");
    head = await publisher.request("publish", { room: "busy", n: 5 });
    await until(() => room.position.offset === head.offset, `offset ${head.offset}`);
    assert.equal(proxy.count, i + 1);
  }
  log.check(head, "busy");
  client.close();
});

test("a storage keeps the position for the next page", async () => {
  const items = new Map();
  const storage = { getItem: (k) => items.get(k) ?? null, setItem: (k, v) => items.set(k, v), removeItem: (k) => items.delete(k) };
  const publisher = open(servers.main, settings);
  const since = await publisher.request("publish", { room: "stored", n: 1 });
  const first = open(servers.main, { ...settings, storage });
  const before = first.room("stored", { since });
  await publisher.request("publish", { room: "stored", n: 5 });
  await until(() => before.position.offset === 6, "6 messages");
  first.close();
  await publisher.request("publish", { room: "stored", n: 5 });
  const second = open(servers.main, { ...settings, storage });
  const after = second.room("stored");
  const log = new Log(after, { ...since, offset: 6 });
  await until(() => after.position?.offset === 11, "11 messages");
  log.check({ ...since, offset: 11 }, "stored");
  await after.leave();
  assert.equal(items.size, 0);
});
