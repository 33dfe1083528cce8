// The client in headless Chromium, against a real server behind a proxy that cuts connections.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import test, { after, afterEach, before, beforeEach } from "node:test";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";
import { Proxy } from "./proxy.mjs";
import { startServers, until } from "./servers.mjs";

const dist = new URL("../dist/", import.meta.url);
let servers, pages, browser, proxy, page;

before(async () => {
  servers = await startServers();
  pages = createServer(({ url }, response) => {
    const [, name] = url.match(/^\/dist\/(\w+\.js)$/) ?? [];
    response.setHeader("content-type", name ? "text/javascript" : "text/html");
    response.end(name ? readFileSync(new URL(name, dist)) : "<!doctype html><title>client</title>");
  }).listen(0, "127.0.0.1");
  await once(pages, "listening");
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    timeout: 90_000,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
});
after(async () => {
  await browser.close();
  pages.close();
  await servers.stop();
});
beforeEach(async () => {
  proxy = await Proxy.start(servers.main);
  page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await load();
});
afterEach(async () => {
  await page.close();
  await proxy.stop();
});

// load opens the page, with a client that notes what the room "chromium" delivers.
async function load() {
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  await page.evaluate(async () => {
    const { connect } = await import("/dist/index.js");
    globalThis.start = (url, options, room, roomOptions) => {
      globalThis.c = connect(url, { storage: sessionStorage, probe: 1_000, ...options });
      globalThis.entries = [];
      globalThis.room = c.room(room, roomOptions);
      globalThis.room.on("number", (data, { offset }) => entries.push({ from: offset, to: offset, data }));
      globalThis.room.onGap(({ after, next }) => entries.push({ from: after + 1, to: next - 1 }));
    };
  });
}

const request = (event, data) => page.evaluate(([e, d]) => c.request(e, d, { idempotent: true, timeout: 60_000 }), [event, data]);
const caughtUp = (offset) => page.waitForFunction((offset) => room.position?.offset === offset, offset);

// tiled asserts that the entries of the page tile the messages after the first position up to head.
async function tiled(after, head) {
  for (const { from, to, data } of await page.evaluate(() => entries)) {
    assert.equal(from, after + 1);
    if (data !== undefined) assert.equal(data, from);
    after = to;
  }
  assert.equal(after, head);
}

test("a relative URL, a request, an error", async () => {
  await page.evaluate((url) => start(url, {}, "r1"), proxy.url.replace("ws:", "http:"));
  assert.deepEqual(await request("echo", { text: "ü" }), { text: "ü" });
  assert.equal(await page.evaluate(() => c.request("no.such").catch((error) => error.code)), 404);
});

for (const how of ["drop", "reset", "half", "silent"]) {
  test(`${how}: a room goes on without a hole`, async () => {
    const name = `browser-${how}`;
    const publisher = connect(servers.main, { WebSocket });
    const since = await publisher.request("publish", { room: name, n: 1 });
    await page.evaluate(([url, room, since]) => start(url, {}, room, { since }), [proxy.url, name, since]);
    await page.evaluate(() => room.joined);
    for (let i = 1; i <= 3; i++) {
      await publisher.request("publish", { room: name, n: 5 });
      proxy.cut(how);
      await publisher.request("publish", { room: name, n: 5 });
      await until(() => proxy.count > i, "a new connection");
    }
    const head = await publisher.request("publish", { room: name, n: 1 });
    await caughtUp(head.offset);
    await tiled(since.offset, head.offset);
    publisher.close();
  });
}

test("a page goes on after a reload where it was", async () => {
  const publisher = connect(servers.main, { WebSocket });
  const since = await publisher.request("publish", { room: "reload", n: 1 });
  await page.evaluate(([url, since]) => start(url, {}, "reload", { since }), [proxy.url, since]);
  const first = await publisher.request("publish", { room: "reload", n: 7 });
  await caughtUp(first.offset);
  await load();
  const head = await publisher.request("publish", { room: "reload", n: 7 });
  await page.evaluate((url) => start(url, {}, "reload"), proxy.url);
  await caughtUp(head.offset);
  await tiled(first.offset, head.offset);
  publisher.close();
});

test("an inbox goes on behind the last acknowledged message after a reload", async () => {
  const publisher = connect(servers.main, { WebSocket });
  await publisher.request("publish.inbox", { room: "kim", n: 5 });
  const open = () => page.evaluate((url) => start(url, {}, "@user:kim", { device: "tab" }), `${proxy.url}?user=kim`);
  await open();
  await caughtUp(5);
  await page.evaluate(() => room.ack(3));
  await request("echo"); // it is handled after the acknowledgement
  await load();
  await publisher.request("publish.inbox", { room: "kim", n: 3 });
  await open();
  await caughtUp(8);
  await tiled(3, 8); // 4 and 5 come again
  await page.evaluate(() => room.ack());
  await request("echo");
  await load();
  await open();
  assert.deepEqual(await page.evaluate(() => room.joined), { head: { epoch: await page.evaluate(() => room.position.epoch), offset: 8 }, replaying: 0 });
  publisher.close();
});

test("the network or the page comes back: no more waiting", async () => {
  for (const type of ["online", "visibilitychange"]) {
    proxy.refuse = true;
    await page.evaluate((url) => {
      const { random } = Math;
      Math.random = () => 1;
      start(url, {}, "r1");
      globalThis.restore = () => void (Math.random = random);
    }, proxy.url);
    await page.waitForFunction(() => c.state.name === "waiting" && c.state.retryAt > Date.now() + 5_000);
    proxy.refuse = false;
    const before = proxy.count;
    await page.evaluate((type) => (type === "online" ? window : document).dispatchEvent(new Event(type)), type);
    await page.waitForFunction(() => c.state.name === "open");
    assert.equal(proxy.count, before + 1);
    await page.evaluate(() => (restore(), c.close()));
  }
});

test("a room is read without a break while its connection moves", async () => {
  const moving = await Proxy.start(servers.moving);
  const publisher = connect(moving.url, { WebSocket });
  const since = await publisher.request("publish", { room: "browser-moved", n: 1 });
  await page.evaluate(([url, since]) => {
    start(url, {}, "browser-moved", { since });
    globalThis.states = [];
    c.onState(({ name }) => states.push(name));
  }, [moving.url, since]);
  let head;
  while (moving.count < 8) head = await publisher.request("publish", { room: "browser-moved", n: 1 });
  await caughtUp(head.offset);
  await tiled(since.offset, head.offset);
  assert.deepEqual(await page.evaluate(() => states), ["open"]);
  publisher.close();
  await moving.stop();
});
