// The page of package inspect in headless Chromium, against a server under load (interop/inspected): at
// desktop and phone size, light and dark, with the keyboard alone, without a server.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { lowContrast } from "./contrast.mjs";
import { freePort, runTests, sleep, within } from "./server.mjs";

const ARTIFACTS = process.env.ARTIFACTS ?? "artifacts";
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const WAIT = 60_000;
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

mkdirSync(ARTIFACTS, { recursive: true });
assert.ok(existsSync(EXECUTABLE), `no Chromium at ${EXECUTABLE}`);

// Server is the program that INSPECTED_BINARY names. It keeps its address when it starts again.
class Server {
  async start() {
    const binary = process.env.INSPECTED_BINARY;
    if (!binary) throw new Error("INSPECTED_BINARY names no binary: (cd interop && go build -o inspected.bin ./inspected)");
    this.port ??= await freePort();
    this.process = spawn(binary, ["-addr", `127.0.0.1:${this.port}`], { stdio: ["pipe", "pipe", "inherit"] });
    this.exited = once(this.process, "exit");
    const [line] = await within(WAIT, once(createInterface(this.process.stdout), "line"), "address of the page");
    this.url = JSON.parse(line).url;
  }

  async kill() {
    this.process.kill("SIGKILL");
    await within(WAIT, this.exited, "exit after SIGKILL");
  }

  async stop() {
    this.process.stdin.end();
    const [code] = await within(WAIT, this.exited, "end of the server");
    assert.equal(code, 0, "exit code of the server");
  }
}

const server = new Server();
await server.start();
const browser = await chromium.launch({
  executablePath: EXECUTABLE,
  timeout: 90_000,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});

const complaints = []; // errors in the consoles of the pages, and requests to other servers
const refusals = []; // status codes that pages have got
let serverIsDown = false;

async function open(name, options = {}, path = "") {
  const context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT);
  page.on("pageerror", (error) => complaints.push(`${name}: ${error.stack}`));
  page.on("console", (message) => {
    const [, status] = message.text().match(/status of (4\d\d)/) ?? [];
    if (message.type() !== "error" || (serverIsDown && /net::ERR_/.test(message.text()))) return;
    if (status) refusals.push(status);
    else complaints.push(`${name}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url)) complaints.push(`${name}: asks ${request.url()}`);
  });
  await page.goto(server.url + path);
  await state(page, "Live");
  return page;
}

// until waits for a condition of the page. Playwright's waitForFunction needs eval, which the page forbids.
async function until(page, condition, arg) {
  for (const end = Date.now() + WAIT; !(await page.evaluate(condition, arg)); await sleep(100)) {
    if (Date.now() > end) throw new Error(`never: ${condition}`);
  }
}

const state = (page, text) => page.locator("#state-text", { hasText: text }).waitFor();
const tile = (page, label) => page.locator("#tiles > div", { hasText: label }).locator("dd");
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const shot = (page, name, fullPage = true) => page.screenshot({ path: `${ARTIFACTS}/inspect-${name}.png`, fullPage });

// untilCharts waits until the charts have lines of some length, and all kinds of figures are there.
async function untilCharts(page) {
  await until(page, () => {
    const texts = [...document.querySelectorAll(".legend")].map((list) => list.textContent);
    const points = document.querySelector("#charts polyline")?.getAttribute("points")?.split(" ").length ?? 0;
    return points > 7 && texts.length === 4 && /full/.test(texts[1]) && /\d/.test(texts[2]) && /path/.test(texts[3]);
  });
}

let desktop;
const tests = {
  "the page shows live figures": async () => {
    desktop = await open("desktop");
    await until(desktop, () => /[1-9]/.test(document.querySelector("#tiles dd")?.textContent ?? ""));
    await desktop.locator("#rooms tbody tr", { hasText: "lobby" }).waitFor();
    await desktop.locator("#clients tbody tr", { hasText: "stalled-" }).first().waitFor();
    const loops = await desktop.locator("#loops tbody tr").count();
    assert.ok(loops >= 1, "event loops");
    await untilCharts(desktop);
    const seen = await tile(desktop, "Messages out").textContent();
    await until(desktop, (old) => !document.querySelector("#tiles").textContent.includes(old), seen);
    await shot(desktop, "desktop");
  },

  "the orders of rooms and clients can be changed": async () => {
    await desktop.getByRole("group", { name: "Order of the rooms" }).getByText("Traffic").click();
    await until(desktop, () => /^(lobby|market|firehose)/.test(document.querySelector("#rooms tbody .name")?.textContent ?? ""));
    await desktop.getByRole("group", { name: "Order of the clients" }).getByText("Round trip").click();
    await desktop.mouse.move(5, 5);
    await until(desktop, () => {
      const trips = [...document.querySelectorAll("#clients tbody tr")].map((tr) => tr.lastChild.textContent);
      return trips.length > 5 && trips.every((trip) => /\d (ms|s)$/.test(trip));
    });
  },

  "a client is found by ID, user and address": async () => {
    const by = desktop.getByLabel("Search by");
    const find = async (kind, what) => {
      await by.selectOption(kind);
      await desktop.getByLabel("Search for").fill(what);
      await desktop.getByRole("button", { name: "Find" }).click();
    };
    await find("user", "103");
    await desktop.getByText("2 clients", { exact: true }).waitFor();
    await find("address", "127.0.0.1");
    await until(desktop, () => document.querySelectorAll("#found tbody tr").length > 40);
    await find("address", "the moon");
    await desktop.getByText("address is an IP address").waitFor();
    await find("id", "nobody");
    await desktop.getByText("No connected client matches.").waitFor();
    await find("id", "compressed-client");
    const article = desktop.locator("#found article");
    await article.getByText("permessage-deflate").waitFor();
    for (const text of ["feed.v2", "/ws", "market.0", "team-00", '"name": "User 100"', "127.0.0.1:"]) {
      await article.getByText(text).first().waitFor();
    }
    await article.getByText(/^\d+(\.\d)? (µs|ms)$/).first().waitFor();
    await article.scrollIntoViewIfNeeded();
    await shot(desktop, "client", false);
  },

  "updates neither steal the focus nor move rows below the keyboard": async () => {
    await desktop.getByRole("group", { name: "Order of the clients" }).getByText("Queued").click();
    await desktop.mouse.move(5, 5);
    await desktop.locator("#clients tbody tr", { hasText: "stalled-" }).first().waitFor();
    const button = desktop.locator("#clients tbody button").first();
    await button.focus();
    const order = () => desktop.evaluate(() => [...document.querySelectorAll("#clients tbody .name")].map((td) => td.textContent));
    const before = await order();
    await desktop.getByText("The order is held").waitFor();
    const updated = await desktop.locator("#updated").textContent();
    await until(desktop, (old) => {
      const now = document.querySelector("#updated").textContent;
      return now !== old && now.at(-1) !== old.at(-1);
    }, updated);
    await desktop.waitForTimeout(2500); // two more updates
    assert.deepEqual(await order(), before);
    assert.ok(await button.evaluate((b) => b === document.activeElement), "the focus stays");
  },

  "the keyboard alone opens and closes a client": async () => {
    const page = await open("keyboard");
    await page.locator("#clients tbody tr", { hasText: "stalled-" }).first().waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip", "the first stop");
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(ring, "solid", "the focus is visible");
    const stops = [];
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press("Tab");
      const stop = await page.evaluate(() => {
        const e = document.activeElement;
        const box = e.getBoundingClientRect();
        return { id: e.id, text: e.textContent, inClients: Boolean(e.closest("#clients")), inside: box.top >= 0 && box.bottom <= innerHeight };
      });
      stops.push(stop.id || stop.text);
      if (!["pause"].includes(stop.id)) assert.ok(stop.inside, `${stop.id || stop.text} is in view`);
      if (stop.inClients && stop.text.startsWith("stalled-")) break;
    }
    assert.match(stops.at(-1), /^stalled-/, `stops: ${stops}`);
    assert.ok(stops.includes("pause"), "the pause button is a stop");
    await page.keyboard.press("Enter");
    const heading = page.locator("#found h3");
    await heading.waitFor();
    assert.ok(await heading.evaluate((h) => h === document.activeElement), "the client's heading has the focus");
    const id = await heading.textContent();
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.id), "close-cancel", "the safe choice has the focus");
    await shot(page, "close", false);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Close…", "the focus comes back");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter"); // "Close the client"
    await page.getByText("The close frame is on its way.").waitFor();
    await page.getByText("This client has disconnected.").waitFor();
    const answer = await page.evaluate((who) => fetch(`api/client?id=${who}`).then((r) => r.json()), id);
    assert.deepEqual(answer.clients, []);
    await page.context().close();
  },

  "pause stops the updates": async () => {
    await desktop.getByRole("button", { name: "Pause" }).click();
    await state(desktop, "Paused");
    let asked = 0;
    const count = () => asked++;
    desktop.on("request", count);
    await desktop.waitForTimeout(2500);
    desktop.off("request", count);
    assert.equal(asked, 0, "requests while the page is paused");
    await desktop.getByRole("button", { name: "Resume" }).click();
    await state(desktop, "Live");
  },

  "a page that may not close has no button for it": async () => {
    const page = await open("read-only", {}, "readonly/");
    await page.getByLabel("Search for").fill("compressed-client");
    await page.keyboard.press("Enter");
    await page.locator("#found article").getByText("permessage-deflate").waitFor();
    assert.equal(await page.getByRole("button", { name: "Close…" }).count(), 0);
    assert.equal(await page.locator("#found pre").count(), 0, "metadata is not shown");
    const status = await page.evaluate(() => fetch("api/close", {
      method: "POST", body: '{"id":"compressed-client"}', headers: { "Content-Type": "application/json", "X-Inspect": "close" },
    }).then((r) => r.status));
    assert.equal(status, 403);
    await page.context().close();
  },

  "another origin can neither read nor close": async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.route("http://attacker.test/", (route) => route.fulfill({ contentType: "text/html", body: "<p>attacker</p>" }));
    await page.goto("http://attacker.test/");
    const outcomes = await page.evaluate(async (url) => {
      const outcome = (request) => request.then((r) => r.type === "opaque" ? "opaque" : r.status, () => "failed");
      const body = '{"id":"compressed-client"}';
      return [
        await outcome(fetch(`${url}api/stats`)),
        await outcome(fetch(`${url}api/close`, { method: "POST", body, headers: { "Content-Type": "application/json", "X-Inspect": "close" } })),
        await outcome(fetch(`${url}api/close`, { method: "POST", body, mode: "no-cors" })),
      ];
    }, server.url);
    assert.deepEqual(outcomes.slice(0, 2), ["failed", "failed"]);
    await context.close();
    const answer = await desktop.evaluate(() => fetch("api/client?id=compressed-client").then((r) => r.json()));
    assert.equal(answer.clients.length, 1, "the client is still connected");
  },

  "dark, and all figures": async () => {
    await desktop.emulateMedia({ colorScheme: "dark" });
    await desktop.mouse.move(5, 5);
    await desktop.evaluate(() => scrollTo(0, 0));
    await shot(desktop, "desktop-dark");
    await desktop.getByText("All figures").click();
    await desktop.locator("#figures tbody tr", { hasText: "Connected clients".toLowerCase() }).first().waitFor();
    await desktop.emulateMedia({ colorScheme: "light" });
  },

  "the page fits a phone, light and dark": async () => {
    const phone = await open("phone", PHONE);
    await phone.locator("#clients tbody tr", { hasText: "stalled-" }).first().waitFor();
    await untilCharts(phone);
    assert.ok((await overflow(phone)) <= 0, `the page is ${await overflow(phone)} px too wide`);
    await shot(phone, "phone");
    await phone.locator("#clients tbody button", { hasText: "stalled-" }).first().tap();
    await phone.locator("#found article").waitFor();
    assert.ok((await overflow(phone)) <= 0, "a client fits, too");
    await phone.emulateMedia({ colorScheme: "dark" });
    await shot(phone, "phone-dark");
    await phone.context().close();
  },

  "contrast is enough in both schemes": async () => {
    for (const colorScheme of ["light", "dark"]) {
      await desktop.emulateMedia({ colorScheme });
      const low = await desktop.evaluate(lowContrast);
      assert.deepEqual(low, [], `${colorScheme}: text with a contrast below 4.5`);
    }
    await desktop.emulateMedia({ colorScheme: "light" });
  },

  "the page says that the server drains": async () => {
    server.process.stdin.write("drain\n");
    await desktop.getByText(/about to drain: \d+ of \d+ clients are left/).waitFor();
    await desktop.evaluate(() => scrollTo(0, 0));
    await shot(desktop, "drain", false);
  },

  "the page says that the server has gone, and comes back": async () => {
    serverIsDown = true;
    await server.kill();
    const banner = desktop.getByRole("alert").filter({ hasText: "The server does not answer" });
    await banner.waitFor();
    await state(desktop, "Offline");
    await desktop.evaluate(() => scrollTo(0, 0));
    await shot(desktop, "offline", false);
    await server.start();
    await state(desktop, "Live");
    await banner.waitFor({ state: "hidden" });
    await desktop.locator("#rooms tbody tr", { hasText: "lobby" }).waitFor();
    serverIsDown = false;
  },

  "nothing complained in a console, or asked another server": async () => {
    assert.deepEqual(complaints, []);
    assert.deepEqual(refusals, ["400", "403"], "the wrong address, and the close that is not allowed");
  },
};

await runTests(tests, async () => {
  await browser.close();
  if (server.process.exitCode === null && server.process.signalCode === null) await server.stop();
});
