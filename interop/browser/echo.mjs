// Headless Chromium's own WebSocket against every kind of echo server, from a page of one of them.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { EchoServers, runTests } from "./server.mjs";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const echo = await EchoServers.start();
const browser = await chromium.launch({
  executablePath: EXECUTABLE,
  timeout: 90_000,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--ignore-certificate-errors",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});

// A page over HTTP may open both ws: and wss: connections, one over HTTPS only the latter.
const host = echo.servers.find((s) => s.nethttp && !s.tls);
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.setDefaultTimeout(60_000);
await page.goto(host.url.replace("ws", "http").replace("/ws", "/"));

// What the page offers to the functions that run in it.
await page.evaluate(() => {
  // dial resolves with an open socket whose messages can be awaited one by one.
  window.dial = (url, protocols = []) => new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols);
    const inbox = [];
    let waiting = null;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => { waiting ? waiting(data) : inbox.push(data); waiting = null; };
    socket.receive = () => inbox.length ? inbox.shift() : new Promise((taken) => { waiting = taken; });
    socket.closed = new Promise((done) => { socket.onclose = ({ code, reason, wasClean }) => done({ code, reason, wasClean }); });
    socket.onopen = () => resolve(socket);
    socket.onerror = () => reject(new Error("refused"));
  });
});

const tests = {};
for (const server of echo.servers) {
  const test = (name, run) => { tests[`${server.name}: ${name}`] = run; };

  test("text and binary, up to 1 MiB", async () => {
    const { extensions, wrong } = await page.evaluate(async (url) => {
      const socket = await dial(url);
      const noise = (n) => Uint8Array.from({ length: n }, (_, i) => (Math.imul(i, 2654435761) >>> 13) & 255);
      const messages = [
        "hello", "", new Uint8Array(0), "Grüße, 世界 🌍", new Uint8Array([0, 255, 254, 128]),
        noise(125), noise(126), noise(65535), noise(65536), "the same words, ".repeat(65536), noise(1 << 20),
        ...Array.from({ length: 50 }, (_, n) => JSON.stringify({ type: "tick", n })),
      ];
      const same = (a, b) => typeof a === "string" ? a === b
        : b instanceof ArrayBuffer && a.length === b.byteLength && new Uint8Array(b).every((byte, i) => byte === a[i]);
      const wrong = [];
      for (const message of messages) {
        socket.send(message);
        if (!same(message, await socket.receive())) wrong.push(message.length);
      }
      socket.close();
      await socket.closed;
      return { extensions: socket.extensions, wrong };
    }, server.url);
    assert.deepEqual(wrong, []);
    assert.equal(extensions.includes("permessage-deflate"), server.compression !== "", extensions);
  });

  test("many on their way, and a Blob", async () => {
    const got = await page.evaluate(async (url) => {
      const socket = await dial(url);
      for (let i = 0; i < 50; i++) socket.send(`n${i}`);
      socket.send(new Blob(["a ", "blob"]));
      const got = [];
      while (got.length < 50) got.push(await socket.receive());
      got.push(new TextDecoder().decode(await socket.receive()));
      socket.close();
      return got;
    }, server.url);
    assert.deepEqual(got, [...Array.from({ length: 50 }, (_, i) => `n${i}`), "a blob"]);
  });

  test("the page closes", async () => {
    for (const [code, reason] of [[1000, ""], [1000, "done"], [3000, "registered"], [4000, "grüß"], [4999, "r".repeat(123)]]) {
      const end = await page.evaluate(async ([url, code, reason]) => {
        const socket = await dial(url);
        socket.close(code, reason);
        return socket.closed;
      }, [server.url, code, reason]);
      assert.deepEqual(end, { code, reason, wasClean: true });
    }
  });

  test("the server closes", async () => {
    for (const [code, reason] of [[1000, ""], [1001, "restart"], [1008, "no"], [1013, "later"], [4001, "grüß"], [4999, "r".repeat(123)]]) {
      const end = await page.evaluate(async ([url, message]) => {
        const socket = await dial(url);
        socket.send(message);
        return socket.closed;
      }, [server.url, `close ${code} ${reason}`]);
      assert.deepEqual(end, { code, reason, wasClean: true });
    }
  });

  test("too large", async () => {
    const end = await page.evaluate(async (url) => {
      const socket = await dial(url);
      socket.send("x".repeat((4 << 20) + 1));
      return socket.closed;
    }, server.url);
    assert.equal(end.code, 1009);
  });

  test("subprotocol", async () => {
    for (const [offer, want] of [[[], ""], [["echo.v1"], "echo.v1"], [["echo.v1", "echo.v2"], "echo.v2"], [["x", "echo.v1"], "echo.v1"]]) {
      const got = await page.evaluate(async ([url, offer]) => {
        const socket = await dial(url, offer);
        socket.send("subprotocol");
        return [socket.protocol, await socket.receive()];
      }, [server.url, offer]);
      assert.deepEqual(got, [want, want]);
    }
    const none = page.evaluate((url) => dial(url, ["other"]).then(() => {}), server.url);
    await assert.rejects(none, /refused/, "a browser insists on one that the page asked for");
  });

  test("a refusal", async () => {
    await assert.rejects(page.evaluate((url) => dial(`${url}?deny`).then(() => {}), server.url), /refused/);
  });
}

await runTests(tests, async () => {
  await browser.close();
  await echo.stop();
});
