// The page of examples/prices in headless Chromium, over slow links: each room delivers in its own way, and the frames of the
// history tile it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { lowContrast } from "./contrast.mjs";
import { runTests, sleep, within } from "./server.mjs";

const ARTIFACTS = process.env.ARTIFACTS ?? "artifacts";
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const WAIT = 60_000;
const DESKTOP = { viewport: { width: 1280, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

mkdirSync(ARTIFACTS, { recursive: true });
assert.ok(existsSync(EXECUTABLE), `no Chromium at ${EXECUTABLE}`);
assert.ok(process.env.PRICES_BINARY, "PRICES_BINARY names no binary: go build -o prices ./examples/prices");

const server = spawn(process.env.PRICES_BINARY, ["-addr", "127.0.0.1:0"], { stdio: ["ignore", "ignore", "pipe"] });
const exited = once(server, "exit");
const [line] = await within(WAIT, once(createInterface(server.stderr), "line"), "address of the page");
const [url] = line.match(/http:\S+/);

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

// Page is the page, and a log of the frames of its rooms.
class Page {
  static async open(name, options) {
    const tab = new Page();
    const context = await browser.newContext({ colorScheme: "light", ...options });
    tab.page = await context.newPage();
    tab.page.setDefaultTimeout(WAIT);
    tab.page.on("pageerror", (error) => complaints.push(`${name}: ${error.stack}`));
    tab.page.on("console", (message) => message.type() === "error" && complaints.push(`${name}: ${message.text()}`));
    tab.page.on("request", (request) => request.url().startsWith(url) || complaints.push(`${name}: asks ${request.url()}`));
    tab.history = []; // of the room catchup: offsets and gaps
    tab.page.on("websocket", (socket) => socket.on("framereceived", ({ payload }) => {
      const { event, room, offset, data } = JSON.parse(payload);
      if (room !== "catchup") return;
      if (event === "ws.gap") tab.history.push({ from: data.after + 1, to: data.next - 1 });
      if (event === "price") tab.history.push({ from: offset, to: offset });
    }));
    await tab.page.goto(url);
    return tab;
  }

  speed(name) {
    return this.page.getByRole("radio", { name, exact: true });
  }

  // figures returns the figures of each room, with its lag in milliseconds.
  figures() {
    return this.page.evaluate(() => Object.fromEntries(["conflate", "ttl", "catchup"].map((id) => {
      const text = (name) => document.querySelector(`#${id} [data-figure=${name}]`)?.textContent ?? "";
      const [, value, unit] = text("lag").match(/^([\d.]+) (ms|s)$/) ?? [];
      const number = (name) => parseInt(text(name).replaceAll(",", ""), 10);
      return [id, { lag: value && value * (unit === "s" ? 1000 : 1), rate: number("rate"), missed: number("missed") }];
    })));
  }

  // until waits for a condition of the figures.
  async until(what, condition) {
    let figures;
    for (const end = Date.now() + WAIT; Date.now() < end; await sleep(100)) {
      figures = await this.figures();
      if (condition(figures)) return figures;
    }
    throw new Error(`${what}: never; ${JSON.stringify(figures)}`);
  }

  async shot(name, fullPage = false) {
    await this.page.screenshot({ path: `${ARTIFACTS}/prices-${name}.png`, fullPage });
  }
}

const rooms = (figures) => Object.values(figures);
const live = (figures) => rooms(figures).every(({ lag, rate }) => lag < 1000 && rate > 100);

// tiled asserts that prices and gaps name each offset once, in order.
function tiled(history) {
  let after = history[0].from - 1;
  for (const { from, to } of history) {
    assert.equal(from, after + 1);
    after = to;
  }
}

let desktop, phone;
const tests = {
  "at full speed all rooms deliver the feed": async () => {
    desktop = await Page.open("desktop", DESKTOP);
    phone = await Page.open("phone", PHONE);
    for (const tab of [desktop, phone]) {
      const { catchup } = await tab.until("all are live", live);
      assert.equal(catchup.missed, 0);
    }
    await desktop.shot("full-speed");
  },

  "at 4 KB/s, chosen by keyboard, the rooms differ": async () => {
    await desktop.page.keyboard.press("Tab");
    for (let i = 0; i < 2; i++) await desktop.page.keyboard.press("ArrowRight");
    assert.ok(await desktop.speed("4 KB/s").isChecked());
    await desktop.page.getByRole("status").getByText("Connections: 4 KB/s").waitFor();
    await phone.speed("4 KB/s").check();
    for (const tab of [desktop, phone]) {
      await tab.until("CatchUp falls behind, the others do not", ({ conflate, ttl, catchup }) =>
        catchup.lag > 6000 && conflate.lag < 4000 && ttl.lag < 4000 && conflate.missed > 0 && ttl.missed > 0);
      await tab.until("the history is over, the lag of the others is bounded", ({ conflate, ttl, catchup }) =>
        catchup.lag > 9000 && catchup.missed > 0 && conflate.lag < 5000 && ttl.lag < 5000);
      await tab.page.getByRole("status").getByText(/^CatchUp: .* lost in a gap/).waitFor();
    }
    for (const colorScheme of ["light", "dark"]) {
      for (const [name, tab] of Object.entries({ desktop, phone })) {
        await tab.page.emulateMedia({ colorScheme });
        await tab.page.waitForFunction(() => new Promise(requestAnimationFrame));
        await sleep(300); // the charts are drawn in the new colors
        await tab.shot(`${name}-${colorScheme}`, name === "phone");
        assert.deepEqual(await tab.page.evaluate(lowContrast), [], `${name}, ${colorScheme}: text with a contrast below 4.5`);
      }
    }
  },

  "at full speed again CatchUp catches up, and nothing is lost without a gap": async () => {
    for (const tab of [desktop, phone]) {
      await tab.speed("Full speed").check();
      await tab.until("all are live", live);
      await tab.page.getByRole("status").getByText("CatchUp has caught up").waitFor();
      assert.ok(tab.history.some(({ from, to }) => to > from), "a gap");
      tiled(tab.history);
    }
    await desktop.shot("again");
    await phone.shot("again");
  },

  "a stopped link goes on": async () => {
    await desktop.page.emulateMedia({ colorScheme: "light" });
    await desktop.speed("Stopped").check();
    await desktop.until("nothing comes", (figures) => rooms(figures).every(({ lag, rate }) => lag > 3000 && rate === 0));
    const before = desktop.history.length;
    await desktop.shot("stopped");
    await desktop.speed("Full speed").check();
    await desktop.until("all are live", live);
    assert.ok(desktop.history.length > before + 300, "the prices of that time");
    tiled(desktop.history);
  },

  "the charts have a text, and a table": async () => {
    const { page } = desktop;
    for (const name of [/^Lag of each price .* now, .* at most; (\d+ gaps?|no gap)$/, /^[\d,]+ prices received in 30 seconds/]) {
      assert.ok(await page.getByRole("img", { name }).count() > 0, `${name}`);
    }
    await page.locator("summary").focus();
    await page.keyboard.press("Enter");
    const table = page.getByRole("table", { name: /^The last 30 seconds/ });
    await table.waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#table tbody tr").length === 6);
    const cells = await table.locator("tbody tr").first().locator("th, td").allTextContents();
    assert.match(cells.join("|"), /^0 to 5 s ago\|[\d,]+(\|[\d,]+\|[\d.]+ m?s\|[\d,]+){3}$/);
    await desktop.shot("table", true);
  },

  "the page fits a phone": async () => {
    const wide = await phone.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} px too wide`);
  },

  "charts pause, and draw seldom with reduced motion": async () => {
    const { page } = desktop;
    await page.evaluate(() => {
      const { clearRect } = CanvasRenderingContext2D.prototype;
      globalThis.drawn = 0;
      CanvasRenderingContext2D.prototype.clearRect = function (...area) {
        globalThis.drawn++;
        clearRect.apply(this, area);
      };
    });
    const perSecond = () => page.evaluate(async () => {
      const [start, before] = [performance.now(), drawn];
      await new Promise((resolve) => setTimeout(resolve, 2500));
      return (drawn - before) / 6 / ((performance.now() - start) / 1000);
    });
    await page.emulateMedia({ reducedMotion: "reduce" });
    assert.ok((await perSecond()) < 2);
    await page.getByRole("button", { name: "Pause" }).click();
    assert.equal(await perSecond(), 0);
  },

  "nothing complained in a console, or asked another server": async () => {
    assert.deepEqual(complaints, []);
  },
};

await runTests(tests, async () => {
  await browser.close();
  server.kill("SIGTERM");
  const [code] = await within(WAIT, exited, "end of the server");
  assert.equal(code, 0, "exit code of the server");
});
