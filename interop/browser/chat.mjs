// The chat page in headless Chromium: two tabs, one for each path, and a restart in between.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { chromium } from "playwright-core";
import { ChatServer, runTests } from "./server.mjs";

const ARTIFACTS = process.env.ARTIFACTS ?? "artifacts";
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const WAIT = 30_000; // covers the random waits of a reconnect on a busy machine

mkdirSync(ARTIFACTS, { recursive: true });
assert.ok(existsSync(EXECUTABLE), `no Chromium at ${EXECUTABLE}`);

const server = await ChatServer.create();
const browser = await chromium.launch({
  executablePath: EXECUTABLE,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});

const complaints = []; // what the pages wrote to their consoles as errors
let serverIsDown = false; // meanwhile failing to connect is what a page should do

class Tab {
  static async open(name, path, options = {}) {
    const tab = new Tab();
    tab.name = name;
    tab.context = await browser.newContext({ viewport: { width: 1180, height: 820 }, colorScheme: "light", ...options });
    tab.page = await tab.context.newPage();
    tab.page.setDefaultTimeout(WAIT);
    tab.page.on("pageerror", (error) => complaints.push(`${name}: ${error.stack}`));
    tab.page.on("console", (message) => {
      const expected = serverIsDown && /ERR_CONNECTION|WebSocket connection/.test(message.text());
      if (message.type() === "error" && !expected) complaints.push(`${name}: ${message.text()}`);
    });
    tab.sockets = [];
    tab.page.on("websocket", (socket) => tab.sockets.push(new URL(socket.url())));
    await tab.page.goto(`http://127.0.0.1:${server.page}/?path=${path}`);
    return tab;
  }

  async join(room) {
    await this.page.getByLabel("Your name").fill(this.name);
    await this.page.getByLabel("Room").fill(room);
    await this.page.getByRole("button", { name: "Join" }).click();
    await this.page.getByRole("heading", { name: `#${room}` }).waitFor();
  }

  async say(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.keyboard.press("Enter");
  }

  async reads(text) {
    await this.page.locator(".message .text", { hasText: text }).waitFor();
  }

  async seesMembers(...names) {
    await this.page.waitForFunction(
      (want) => [...document.querySelectorAll("#members li span:nth-child(2)")].map((e) => e.textContent).join() === want,
      names.join(),
    );
  }

  screenshot(name) {
    return this.page.screenshot({ path: `${ARTIFACTS}/${name}.png` });
  }
}

let ada, linus;
const tests = {
  "two tabs join one room, one over each path": async () => {
    ada = await Tab.open("Ada", "http");
    await ada.page.getByText("Connected").waitFor();
    await ada.screenshot("join");
    await ada.join("lobby");
    linus = await Tab.open("Linus", "native");
    await linus.join("lobby");
    assert.deepEqual(ada.sockets.map((u) => Number(u.port)), [server.page]);
    assert.deepEqual(linus.sockets.map((u) => Number(u.port)), [server.native]);
    await ada.seesMembers("Ada", "Linus");
    await linus.seesMembers("Ada", "Linus");
    await ada.page.getByText("Linus joined").waitFor();
  },

  "messages arrive both ways": async () => {
    await ada.say("Hello from the net/http tab");
    await linus.reads("Hello from the net/http tab");
    await linus.say("And hello from the native one");
    await linus.say("Same room, same rings");
    await ada.reads("Same room, same rings");
    await ada.reads("Hello from the net/http tab"); // the sender reads its own as well
  },

  "text is never read as HTML": async () => {
    await linus.say("<img src=x onerror=alert(1)> & <b>bold</b>");
    await ada.reads("<img src=x onerror=alert(1)> & <b>bold</b>");
    assert.equal(await ada.page.locator(".log img, .log .text b").count(), 0);
  },

  "live counts are shown": async () => {
    await ada.page.waitForFunction(() => document.getElementById("connections").textContent === "2");
    await ada.say("One more for the counter");
    await linus.page.waitForFunction(() => Number(document.getElementById("rate").textContent) >= 1);
    await ada.screenshot("chat");
    await linus.screenshot("chat-native");
  },

  "a refused name is explained": async () => {
    const nobody = await Tab.open(" ", "http");
    await nobody.page.getByRole("button", { name: "Join" }).click();
    await nobody.page.getByRole("alert").getByText("Your name needs 1 to 24 characters").waitFor();
    await nobody.context.close();
  },

  "leaving and changing the path": async () => {
    const grace = await Tab.open("Grace", "native");
    await grace.join("lobby");
    await ada.seesMembers("Ada", "Grace", "Linus");
    await grace.page.getByText("net/http").click();
    await grace.page.waitForFunction(() => document.getElementById("app").dataset.state === "open");
    assert.equal(Number(grace.sockets.at(-1).port), server.page);
    await grace.say("Switched paths");
    await ada.reads("Switched paths");
    await grace.page.getByRole("button", { name: "Leave" }).click();
    await ada.seesMembers("Ada", "Linus");
    await grace.context.close(); // and one that disappears without leaving:
    const gone = await Tab.open("Gone", "native");
    await gone.join("lobby");
    await ada.seesMembers("Ada", "Gone", "Linus");
    await gone.context.close();
    await ada.seesMembers("Ada", "Linus");
    await ada.page.getByText("Gone left").waitFor();
    assert.equal(await ada.page.getByText("Grace joined").count(), 1, "changing the path is no news to others");
  },

  "both tabs come back after a restart": async () => {
    serverIsDown = true;
    assert.equal(await server.signal("SIGTERM"), 0);
    await ada.page.getByText("Connection lost").waitFor();
    await linus.page.getByText("Connection lost").waitFor();
    await ada.screenshot("offline");
    await server.start();
    await chatsAgain("after the restart");
  },

  "both tabs come back after a crash": async () => {
    serverIsDown = true;
    await server.signal("SIGKILL");
    await ada.page.getByText("Connection lost").waitFor();
    await server.start();
    await chatsAgain("after the crash");
  },

  "the page fits a phone, and the dark": async () => {
    const phone = await Tab.open("Margaret", "http", {
      viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark",
    });
    await phone.screenshot("phone-join");
    await phone.join("lobby");
    await ada.say("Hello, Margaret. Does it fit?");
    await phone.reads("Does it fit?");
    await phone.say("It does, even at night");
    await linus.say("A long line to see how a bubble wraps when the words go on and on for longer than the screen is wide");
    await phone.reads("A long line");
    const overflow = await phone.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `the page is ${overflow} px wider than the phone`);
    await phone.screenshot("phone");
    await linus.page.emulateMedia({ colorScheme: "dark" });
    await linus.screenshot("chat-dark");
    await phone.context.close();
  },

  "nothing complained in a console": async () => assert.deepEqual(complaints, []),
};

async function chatsAgain(when) {
  for (const tab of [ada, linus]) {
    await tab.page.waitForFunction(() => document.getElementById("app").dataset.state === "open");
  }
  serverIsDown = false;
  await ada.seesMembers("Ada", "Linus");
  await linus.seesMembers("Ada", "Linus");
  await ada.say(`Ada, ${when}`);
  await linus.reads(`Ada, ${when}`);
  await linus.say(`Linus, ${when}`);
  await ada.reads(`Linus, ${when}`);
  assert.equal(await ada.page.getByText("Linus left").count(), 0, "coming back is no news to others");
}

await runTests(tests, async () => {
  await browser.close();
  if (server.process.exitCode === null) await server.signal("SIGKILL");
});
