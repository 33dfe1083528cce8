// Headless Chromium against echo servers whose address limit it has reached: the page must read from the close event
// that it is to come back, and when. It cannot read the status of a refused upgrade.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { EchoServers, runTests } from "./server.mjs";

const LIMIT = 3;
const echo = await EchoServers.start("-per-address", String(LIMIT));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  timeout: 90_000,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--ignore-certificate-errors",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
const host = echo.servers.find((s) => s.nethttp && !s.tls);
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.setDefaultTimeout(60_000);
await page.goto(host.url.replace("ws", "http").replace("/ws", "/"));

const tests = {};
for (const server of echo.servers) {
  tests[`${server.name}: one connection too many`] = async () => {
    const { opened, end, again } = await page.evaluate(async ([url, limit]) => {
      // visit resolves with an open socket that echoes, or with the close event.
      const visit = () => new Promise((resolve) => {
        const socket = new WebSocket(url, ["echo.v1"]);
        socket.onopen = () => socket.send("hello");
        socket.onmessage = () => resolve({ socket });
        socket.onclose = ({ code, reason, wasClean }) => resolve({ end: { code, reason, wasClean } });
      });
      const sockets = [];
      for (let i = 0; i < limit; i++) sockets.push((await visit()).socket);
      const { end } = await visit();
      const gone = new Promise((done) => { sockets[0].onclose = done; });
      sockets[0].close();
      await gone;
      let again;
      for (const end = Date.now() + 60_000; !again && Date.now() < end; ) { // the server may see the end a little later than the page
        again = (await visit()).socket;
        if (!again) await new Promise((done) => setTimeout(done, 100));
      }
      const opened = sockets.every((s) => s);
      for (const s of [...sockets, again]) s?.close();
      return { opened, end, again: Boolean(again) };
    }, [server.url, LIMIT]);
    assert.ok(opened);
    assert.equal(end.code, 1013);
    assert.ok(end.wasClean);
    const { retry_ms } = JSON.parse(end.reason);
    assert.ok(retry_ms >= 5_000 && retry_ms <= 30_000, end.reason);
    assert.ok(again, "the place of a connection that has ended is not free");
  };
}

await runTests(tests, async () => {
  await browser.close();
  await echo.stop();
});
