// The page of examples/react in headless Chromium. It must be built.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import test from "node:test";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { connect } from "../dist/index.js";
import { Proxy } from "./proxy.mjs";
import { startServers, until } from "./servers.mjs";

const folder = new URL("../../../examples/react/", import.meta.url);

test("a page with hooks shows a room, and goes on after a cut", async () => {
  const servers = await startServers();
  const proxy = await Proxy.start(servers.main);
  const pages = createServer(({ url }, response) => {
    const script = url === "/dist/main.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.end(readFileSync(new URL(script ? "dist/main.js" : "index.html", folder)));
  }).listen(0, "127.0.0.1");
  await once(pages, "listening");
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    timeout: 90_000,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
  const publisher = connect(servers.main, { WebSocket });
  try {
    const publish = (n) => publisher.request("publish", { room: "react", n });
    await publish(30);
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    const complaints = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    await page.goto(`http://127.0.0.1:${pages.address().port}/?room=react&url=${proxy.url}`);
    const shows = (numbers) => page.waitForFunction(
      (text) => [...document.querySelectorAll("li")].map((li) => li.textContent).join() === text, numbers.join(),
    );
    const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
    await shows(range(11, 30)); // the last 20, once, also under StrictMode
    await page.getByRole("button", { name: "Publish" }).click();
    await shows(range(11, 31));
    proxy.cut("reset");
    await publish(9);
    await until(() => proxy.count === 2, "a new connection");
    await shows(range(11, 40));
    proxy.refuse = true;
    proxy.cut("reset");
    await page.getByRole("status").getByText("Connection lost").waitFor();
    await publish(60); // more than the room keeps
    proxy.refuse = false;
    await shows([...range(11, 40), "10 messages were missed", ...range(51, 100)]);
    assert.deepEqual(complaints, []);
  } finally {
    publisher.close();
    await browser.close();
    pages.close();
    await proxy.stop();
    await servers.stop();
  }
});
