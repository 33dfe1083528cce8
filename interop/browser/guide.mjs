// The browser client of docs/guide.md in headless Chromium, against the chat binary, with a restart of the server.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import { ChatServer, runTests } from "./server.mjs";

const guide = readFileSync(new URL("../../docs/guide.md", import.meta.url), "utf8");
const [, code] = guide.match(/```js\n(.*?)```/s);

const server = await ChatServer.create();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  timeout: 90_000,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
});
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
await page.goto(`http://127.0.0.1:${server.page}/`);
await page.evaluate(`${code}; globalThis.Connection = Connection`);

const join = () => page.evaluate(() => connection.request("ws.join", { room: "guide" }));

const tests = {
  "a request is answered": async () => {
    await page.evaluate((url) => (globalThis.connection = new Connection(url)), `ws://127.0.0.1:${server.page}/ws?name=Ada`);
    assert.ok(await join());
  },
  "an error has its code": async () => {
    const code = await page.evaluate(() => connection.request("chat.dance").catch((error) => error.code));
    assert.equal(code, 404);
  },
  "notifications arrive": async () => {
    const text = await page.evaluate(() => new Promise((resolve, reject) => {
      connection.on("chat.message", resolve);
      connection.request("chat.send", { room: "guide", id: "1", text: "hello" }).catch(reject);
    }));
    assert.equal(text.text, "hello");
  },
  "the connection comes back after a restart": async () => {
    await page.evaluate(() => {
      globalThis.lost = new Promise((resolve) => connection.socket.addEventListener("close", () => resolve(true)));
    });
    assert.equal(await server.signal("SIGTERM"), 0);
    assert.equal(await page.evaluate(() => lost), true);
    await server.start();
    await page.waitForFunction(() => connection.socket.readyState === WebSocket.OPEN);
    assert.ok(await join());
  },
};

await runTests(tests, async () => {
  await browser.close();
  await server.signal("SIGTERM");
});
