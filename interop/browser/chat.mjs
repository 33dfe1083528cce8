// The page of examples/chat in headless Chromium, behind a proxy that cuts its connections.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { chromium } from "playwright-core";
import WebSocket from "ws";
import { connect } from "../../client/ts/dist/index.js";
import { Proxy } from "../../client/ts/test/proxy.mjs";
import { ChatServer, runTests } from "./server.mjs";

const ARTIFACTS = process.env.ARTIFACTS ?? "artifacts";
const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const WAIT = 60_000; // covers the random waits of a reconnect on a busy machine
const HISTORY = 60; // messages that a room of this server keeps
const DESKTOP = { width: 1280, height: 800 };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

mkdirSync(ARTIFACTS, { recursive: true });
assert.ok(existsSync(EXECUTABLE), `no Chromium at ${EXECUTABLE}`);

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const server = await ChatServer.create("-history", String(HISTORY), "-rate", "0");
const direct = `127.0.0.1:${server.page}`;
const browser = await chromium.launch({
  executablePath: EXECUTABLE,
  timeout: 90_000,
  headless: true,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});

const complaints = []; // the errors that the pages wrote to their consoles
const networkErrors = /ERR_CONNECTION|ERR_EMPTY_RESPONSE|WebSocket connection/; // of the tests that cut

// A page of one person, with its own storage.
class Tab {
  static async open(name, { room, host = direct, ...options } = {}) {
    const tab = new Tab();
    tab.name = name;
    tab.context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light", locale: "en-GB", ...options });
    tab.page = await tab.context.newPage();
    tab.page.setDefaultTimeout(WAIT);
    tab.page.on("pageerror", (error) => complaints.push(`${name}: ${error.stack}`));
    tab.page.on("console", (message) => {
      if (message.type() === "error" && !networkErrors.test(message.text())) complaints.push(`${name}: ${message.text()}`);
    });
    tab.composer = tab.page.getByLabel("Message", { exact: true });
    await tab.page.goto(`http://${host}/`);
    if (room) await tab.join(room);
    return tab;
  }

  async join(room) {
    await this.page.getByLabel("Your name").fill(this.name);
    await this.page.getByLabel("Room").fill(room);
    await this.page.getByRole("button", { name: "Join" }).click();
    await this.page.getByRole("heading", { name: `#${room}` }).waitFor();
    await this.page.getByRole("status").getByText("Connected").waitFor();
    await this.page.waitForFunction((name) => document.getElementById("members").innerText.includes(name), this.name);
  }

  async say(text) {
    await this.composer.fill(text);
    await this.composer.press("Enter");
  }

  texts() {
    return this.page.locator("#lines .text, #lines .remark").allTextContents();
  }

  // shows waits until the lines of the room, from the last one back, are these.
  async shows(...texts) {
    const all = () => this.texts().then((lines) => JSON.stringify(lines.slice(-texts.length)));
    const want = JSON.stringify(texts);
    for (const end = Date.now() + WAIT; (await all()) !== want; await this.page.waitForTimeout(20)) {
      if (Date.now() > end) assert.fail(`${this.name} sees ${await all()}, not ${want}`);
    }
  }

  async sees(...names) {
    const want = names.join();
    await this.page.waitForFunction(
      (want) => [...document.querySelectorAll("#members .name")].map((e) => e.textContent).join() === want, want,
    );
    assert.equal(await this.page.locator("#count").textContent(), String(names.length));
  }

  status(text) {
    return this.page.getByRole("status").getByText(text).waitFor();
  }

  // notes has the page keep the texts of its notices from now on: each is shown for a few seconds only.
  notes() {
    return this.page.evaluate(() => {
      globalThis.notes = [];
      const notice = document.getElementById("notice");
      new MutationObserver((changes) => {
        for (const { addedNodes } of changes) for (const { textContent } of addedNodes) notes.push(textContent);
      }).observe(notice, { childList: true });
    });
  }

  // noted waits until the page has shown this notice.
  noted(text) {
    return this.page.waitForFunction((text) => notes.includes(text), text);
  }

  screenshot(name) {
    return this.page.screenshot({ path: `${ARTIFACTS}/${name}.png` });
  }

  // isAccessible asserts that axe-core finds no violation of WCAG 2.2 AA.
  async isAccessible(when) {
    await this.page.evaluate(axe);
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const violations = await this.page.evaluate(async (values) => {
      const { violations } = await globalThis.axe.run(document, { runOnly: { type: "tag", values } });
      return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((n) => n.html).join(" ")}`);
    }, tags);
    assert.deepEqual(violations, [], when);
  }

  async fits() {
    const over = await this.page.evaluate(() => [...document.querySelectorAll("body, .app, #log, .bubble, .top")]
      .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.className || e.tagName));
    assert.deepEqual(over, [], `too wide for ${this.name}`);
  }

  close() {
    return this.context.close();
  }
}

// member returns a person without a page, who is in the room.
async function member(name, room) {
  const client = connect(`ws://${direct}/ws?name=${name}`, { WebSocket });
  await client.room(room).joined;
  let sent = 0;
  return {
    say: (text, id = ++sent) => client.request("chat.send", { room, id: String(id), text }),
    typing: () => client.notify("chat.typing", { room }),
    close: () => client.close(),
  };
}

const range = (from, to, prefix = "message ") => Array.from({ length: to - from + 1 }, (_, i) => prefix + (from + i));

const tests = {
  "two people talk, and text is never HTML": async () => {
    const [ada, linus] = [await Tab.open("Ada"), await Tab.open("Linus")];
    await ada.isAccessible("the form");
    await ada.screenshot("chat-form");
    await ada.join("talk");
    await linus.join("talk");
    await ada.sees("Ada", "Linus");
    await linus.sees("Ada", "Linus");
    await ada.say("Hello");
    await linus.shows("Hello");
    await linus.say("<img src=x onerror=alert(1)> & <b>bold</b>");
    for (const tab of [ada, linus]) {
      await tab.shows("Hello", "<img src=x onerror=alert(1)> & <b>bold</b>");
      assert.equal(await tab.page.locator(".log img, .log .text b").count(), 0);
      assert.equal(await tab.page.locator(".mine").count(), 1, "one's own message");
    }
    const policy = (await ada.page.request.get(`http://${direct}/`)).headers()["content-security-policy"];
    assert.match(policy, /script-src 'self'/);
    await ada.page.reload();
    await ada.shows("Hello", "<img src=x onerror=alert(1)> & <b>bold</b>");
    assert.equal(await ada.page.locator(".mine").count(), 1, "still one's own after a reload");
    await Promise.all([ada.close(), linus.close()]);
  },

  "a message that was sent twice is shown once": async () => {
    const ada = await Tab.open("Ada", { room: "twice" });
    const [bot, other] = [await member("Bot", "twice"), await member("Bot", "twice")];
    for (const text of ["one", "two"]) {
      await bot.say(text, text);
      await bot.say(text, text);
      await other.say(text, text); // the same ID and name, but another person
    }
    await ada.shows("one", "one", "two", "two");
    assert.equal((await ada.texts()).length, 4);
    bot.close();
    other.close();
    await ada.close();
  },

  "too fast: the page sends the rest later": async () => {
    const slow = await ChatServer.create("-rate", "4");
    try {
      const ada = await Tab.open("Ada", { room: "fast", host: `127.0.0.1:${slow.page}` });
      for (const text of range(1, 30)) await ada.say(text);
      await ada.shows(...range(1, 30));
      assert.equal((await ada.texts()).length, 30);
      assert.equal(await ada.page.locator(".failed").count(), 0);
      await ada.close();
    } finally {
      assert.equal(await slow.signal("SIGTERM"), 0);
    }
  },

  "a newcomer reads the last 50 messages": async () => {
    const bot = await member("Bot", "history");
    for (const text of range(1, 55)) await bot.say(text);
    const ada = await Tab.open("Ada", { room: "history" });
    await ada.shows(...range(6, 55));
    assert.equal((await ada.texts()).length, 50);
    bot.close();
    await ada.close();
  },

  "presence: several tabs of one name, and those who leave": async () => {
    const ada = await Tab.open("Ada", { room: "presence" });
    const [one, two] = [await Tab.open("Bob", { room: "presence" }), await Tab.open("Bob", { room: "presence" })];
    const zoe = await Tab.open("zoe", { room: "presence" });
    await ada.sees("Ada", "Bob", "zoe");
    await one.close();
    await ada.notes();
    await zoe.page.getByRole("button", { name: "Leave" }).click();
    await ada.noted("zoe left");
    await ada.sees("Ada", "Bob");
    await two.close();
    await ada.sees("Ada");
    await zoe.join("presence");
    await ada.noted("zoe joined");
    await ada.sees("Ada", "zoe");
    await Promise.all([ada.close(), zoe.close()]);
  },

  "typing is shown, ends by itself, and moves nothing": async () => {
    const [ada, linus] = [await Tab.open("Ada", { room: "typing" }), await Tab.open("Linus", { room: "typing" })];
    const place = () => ada.composer.evaluate((e) => e.getBoundingClientRect().top);
    const before = await place();
    // It is shown for 4 s: on a busy machine a look may come too late.
    const typesUntilSeen = async (text) => {
      for (const end = Date.now() + WAIT; Date.now() < end; ) {
        await linus.composer.pressSequentially(text);
        const seen = ada.page.getByText("Linus is typing").waitFor({ timeout: 2_500 });
        if (await seen.then(() => true, () => false)) return;
      }
      assert.fail("nobody sees that Linus is typing");
    };
    await typesUntilSeen("Well");
    assert.equal(await place(), before);
    assert.equal(await linus.page.getByText("is typing").count(), 0, "it is for the others");
    await ada.page.getByText("Linus is typing").waitFor({ state: "detached" });
    await linus.say("Well, hello");
    await typesUntilSeen("An");
    await linus.say("And more");
    await ada.shows("Well, hello", "And more");
    assert.equal(await ada.page.getByText("is typing").count(), 0, "the message has come");
    await Promise.all([ada.close(), linus.close()]);
  },

  "130 people: the page shows 100 names and counts the others": async () => {
    const ada = await Tab.open("Ada", { room: "crowd" });
    const people = await Promise.all(range(101, 229, "P").map((name) => member(name, "crowd")));
    const shows = (names, count, more) => ada.page.waitForFunction((want) => JSON.stringify([
      document.querySelectorAll("#members li").length, document.getElementById("count").textContent,
      document.getElementById("more").textContent,
    ]) === want, JSON.stringify([names, String(count), more]));
    await shows(100, 130, "and 30 more");
    people.splice(0, 40).forEach((person) => person.close());
    await ada.page.waitForFunction(() => document.getElementById("count").textContent === "90");
    await ada.page.reload(); // a page that was there shows the names that it knows
    await shows(90, 90, "");
    people.forEach((person) => person.close());
    await ada.sees("Ada");
    await ada.close();
  },

  "a message stays in its place when it is sent": async () => {
    const proxy = await Proxy.start(`ws://${direct}/ws`);
    const ada = await Tab.open("Ada", { room: "place", host: new URL(proxy.url).host });
    const bot = await member("Bot", "place");
    const place = (text) => ada.page.locator(".bubble", { hasText: text }).evaluate((e) => {
      const { left, right, top, bottom } = e.getBoundingClientRect();
      return { top, bottom, right, left: e.closest("#outbox") ? undefined : left }; // "Sending…" is wider than a time
    });
    for (const text of ["after nothing", "after one's own", "after another's"]) {
      if (text === "after another's") await bot.say("hello");
      if (text === "after another's") await ada.shows("hello");
      const release = proxy.hold();
      await ada.say(text);
      await ada.page.locator("#outbox .bubble", { hasText: text }).waitFor();
      const before = await place(text);
      release();
      await ada.page.locator("#lines .bubble", { hasText: text }).waitFor();
      const after = await place(text);
      if (text !== "after nothing") assert.deepEqual({ ...after, left: undefined }, before, text);
    }
    bot.close();
    await ada.close();
    await proxy.stop();
  },

  "a cut connection: nothing is lost, nothing comes twice": async () => {
    const proxy = await Proxy.start(`ws://${direct}/ws`);
    const ada = await Tab.open("Ada", { room: "cut", host: new URL(proxy.url).host });
    const bot = await member("Bot", "cut");
    await bot.say("before");
    await ada.shows("before");
    for (const how of ["reset", "half", "drop"]) {
      proxy.refuse = true;
      proxy.cut(how);
      if (how === "half") await bot.say("half of this arrives"); // then the connection breaks
      await ada.status("Offline");
      for (const text of range(1, 10, `${how} `)) await bot.say(text);
      await ada.say(`${how}: sent without a connection`);
      await ada.say(`${how}: and another one`);
      assert.deepEqual(await ada.page.locator("#outbox .text").allTextContents(),
        [`${how}: sent without a connection`, `${how}: and another one`]);
      if (how === "reset") await ada.screenshot("chat-offline");
      proxy.refuse = false;
      await ada.page.getByRole("button", { name: "Retry" }).click({ timeout: 5_000 }).catch(() => {}); // it may be back
      await ada.shows(...(how === "half" ? ["half of this arrives"] : []), ...range(1, 10, `${how} `),
        `${how}: sent without a connection`, `${how}: and another one`);
      assert.equal(await ada.page.locator("#outbox .message").count(), 0);
      await ada.status("Connected");
    }
    const texts = await ada.texts();
    assert.equal(texts.length, 1 + 3 * 12 + 1);
    assert.equal(new Set(texts).size, texts.length);
    await ada.sees("Ada", "Bot");
    bot.close();
    await ada.close();
    await proxy.stop();
  },

  "a message whose answer is lost is sent once": async () => {
    const proxy = await Proxy.start(`ws://${direct}/ws`);
    const ada = await Tab.open("Ada", { room: "answers", host: new URL(proxy.url).host });
    const linus = await Tab.open("Linus", { room: "answers" });
    for (let i = 1; i <= 5; i++) {
      const how = i % 2 ? "half" : "silent";
      proxy.cut(how); // half of the answer, or of the message, and then a reset; or the request does not arrive
      await ada.say(`try ${i}`);
      if (how === "silent") proxy.cut("reset");
      await linus.shows(`try ${i}`);
      await ada.shows(`try ${i}`);
      assert.equal(await ada.page.locator(".failed").count(), 0);
    }
    assert.deepEqual(await linus.texts(), range(1, 5, "try "));
    assert.deepEqual(await ada.texts(), range(1, 5, "try "));
    await Promise.all([ada.close(), linus.close()]);
    await proxy.stop();
  },

  "more than the room keeps: the page says how many were missed": async () => {
    const proxy = await Proxy.start(`ws://${direct}/ws`);
    const ada = await Tab.open("Ada", { room: "gap", host: new URL(proxy.url).host });
    const bot = await member("Bot", "gap");
    await bot.say("seen");
    await ada.shows("seen");
    proxy.refuse = true;
    proxy.cut("reset");
    await ada.status("Offline");
    for (const text of range(1, HISTORY + 15)) await bot.say(text);
    proxy.refuse = false;
    await ada.shows("seen", "15 messages were missed", ...range(16, HISTORY + 15));
    await ada.page.getByText("15 messages were missed").scrollIntoViewIfNeeded();
    await ada.screenshot("chat-gap");
    bot.close();
    await ada.close();
    await proxy.stop();
  },

  "a message that fails can be tried again, or deleted": async () => {
    const proxy = await Proxy.start(`ws://${direct}/ws`);
    const ada = await Tab.open("Ada", { host: new URL(proxy.url).host });
    await ada.page.clock.install();
    await ada.join("failure");
    await ada.composer.evaluate((e) => (e.maxLength = 3000));
    await ada.say("x".repeat(2001));
    await ada.page.getByRole("alert").getByText("A message needs 1 to 2000 characters.").waitFor();
    await ada.page.getByRole("button", { name: "Delete" }).focus();
    await ada.page.keyboard.press("Enter");
    assert.equal(await ada.page.locator("#outbox .message").count(), 0);
    await ada.page.waitForFunction(() => document.activeElement.id === "text");

    proxy.refuse = true;
    proxy.cut("reset");
    await ada.status("Offline");
    await ada.say("Is anybody there?");
    await ada.page.clock.runFor(65_000);
    await ada.page.getByText("There is no connection.").waitFor();
    await ada.isAccessible("a failed message");
    await ada.screenshot("chat-failed");
    proxy.refuse = false;
    await ada.page.getByRole("button", { name: "Try again" }).focus();
    await ada.page.keyboard.press("Enter");
    await ada.page.clock.runFor(31_000);
    await ada.shows("Is anybody there?");
    await ada.close();
    await proxy.stop();
  },

  "a refused name is explained": async () => {
    const nobody = await Tab.open("\u3164");
    await nobody.page.getByLabel("Your name").fill("\u3164");
    await nobody.page.getByLabel("Room").fill("lobby");
    await nobody.page.keyboard.press("Enter");
    await nobody.page.getByRole("alert").getByText("Your name needs 1 to 24 characters.").waitFor();
    await nobody.page.waitForFunction(() => document.activeElement.id === "name");
    await nobody.screenshot("chat-form-error");
    await nobody.close();
  },

  "the keyboard does all": async () => {
    const ada = await Tab.open("Ada");
    const { keyboard } = ada.page;
    const focus = () => ada.page.evaluate(() => {
      const e = document.activeElement;
      return { id: e.id || e.ariaLabel || e.tagName.toLowerCase(), outline: getComputedStyle(e).outlineStyle };
    });
    await keyboard.type("Ada");
    await keyboard.press("Tab");
    await keyboard.press("Control+A");
    await keyboard.type("keys");
    await keyboard.press("Enter");
    await ada.page.getByRole("heading", { name: "#keys" }).waitFor();
    await ada.status("Connected");
    for (const text of range(1, 40)) await ada.say(text);
    await ada.shows(...range(1, 40));
    await keyboard.type("two");
    await keyboard.press("Shift+Enter");
    await keyboard.type("lines");
    await keyboard.press("Enter");
    await ada.shows("message 40", "two\nlines");
    const stops = [];
    for (let i = 0; i < 6; i++) {
      await keyboard.press("Tab");
      stops.push(await focus());
    }
    const ids = stops.map(({ id }) => id);
    for (const id of ["Send", "leave", "log", "text"]) assert.ok(ids.includes(id), `${id} in ${ids}`);
    for (const { id, outline } of stops) assert.ok(id === "body" || outline !== "none", `focus of ${id}`);
    await ada.page.locator("#log").focus();
    await keyboard.press("Home");
    await ada.page.waitForFunction(() => document.getElementById("log").scrollTop === 0);
    const bot = await member("Bot", "keys");
    await bot.say("news");
    await ada.page.getByRole("button", { name: "1 new message" }).waitFor();
    assert.equal(await ada.page.locator("#log").evaluate((e) => e.scrollTop), 0, "the reader's place is kept");
    await ada.screenshot("chat-new-messages");
    await keyboard.press("Escape");
    assert.equal((await focus()).id, "text");
    await ada.page.getByText("news").waitFor();
    await ada.page.waitForFunction(() => document.getElementById("newer").hidden);
    await ada.page.locator("#leave").focus();
    await keyboard.press("Enter");
    await ada.page.getByRole("heading", { name: "Join a room" }).waitFor();
    bot.close();
    await ada.close();
  },

  "2,000 messages: the page keeps 500 lines": async () => {
    const ada = await Tab.open("Ada", { room: "flood" });
    const bot = await member("Bot", "flood");
    await bot.say("the first");
    await ada.shows("the first");
    for (let from = 1; from <= 2000; from += 50) {
      await Promise.all(range(from, from + 49).map((text) => bot.say(text)));
    }
    await ada.shows(...range(1999, 2000));
    assert.ok((await ada.page.locator("#lines > *").count()) <= 500);
    await ada.page.getByText("Earlier messages are not shown").waitFor({ state: "attached" });
    const rest = await ada.page.locator("#log").evaluate((e) => e.scrollHeight - e.scrollTop - e.clientHeight);
    assert.ok(rest < 2, `the newest message is in view: ${rest}`);
    await ada.page.locator("#log").evaluate((e) => new Promise((done) => {
      e.addEventListener("scroll", done, { once: true }); // the page has heard it before
      e.scrollTop -= 900;
    }));
    const place = () => ada.page.locator(".text", { hasText: "message 1985" }).evaluate((e) => e.getBoundingClientRect().top);
    const before = await place();
    await Promise.all(range(2001, 2050).map((text) => bot.say(text)));
    await ada.page.getByRole("button", { name: "50 new messages" }).waitFor();
    assert.ok(Math.abs((await place()) - before) <= 1, "the reader's place is kept while old lines go");
    bot.close();
    await ada.close();
  },

  "looks: desktop and phone, light and dark": async () => {
    const [grace, bot] = [await member("Grace", "café"), await member("Margaret Hamilton", "café")];
    await grace.say("Has anybody seen the new release? It resumes a room from the last message that a page has read.");
    await grace.say("Reload while I am writing, and you will see.");
    await bot.say("I pulled the plug in the middle of a sentence, and the rest came a second later");
    await bot.say("مرحبا، هذا يعمل من اليمين إلى اليسار أيضا");
    const desktop = await Tab.open("Ada", { room: "café" });
    const phone = await Tab.open("Linus", { room: "café", ...PHONE, colorScheme: "dark" });
    await desktop.say("Nothing was missing here:\n  • 50 messages on the way in\n  • the gap closed after the tunnel");
    await desktop.say("Good.");
    await phone.shows("Good.");
    await phone.say(`A long word wraps: ${"pneumonoultramicroscopicsilicovolcanoconiosis".repeat(3)}`);
    await desktop.shows("Good.", `A long word wraps: ${"pneumonoultramicroscopicsilicovolcanoconiosis".repeat(3)}`);
    for (const [tab, device] of [[desktop, "desktop"], [phone, "phone"]]) {
      for (const colorScheme of ["light", "dark"]) {
        await tab.page.emulateMedia({ colorScheme });
        const typing = setInterval(grace.typing, 1_000);
        await tab.page.getByText("Grace is typing").waitFor();
        await tab.fits();
        await tab.isAccessible(`${device}, ${colorScheme}`);
        await tab.screenshot(`chat-${device}-${colorScheme}`);
        clearInterval(typing);
      }
    }
    await phone.page.emulateMedia({ reducedMotion: "reduce" });
    const moving = await phone.page.evaluate(() => [...document.querySelectorAll("*")]
      .filter((e) => getComputedStyle(e).animationName !== "none" || parseFloat(getComputedStyle(e).transitionDuration)).length);
    assert.equal(moving, 0, "nothing moves for those who do not want it");
    await phone.context.setOffline(true);
    await phone.page.evaluate(() => dispatchEvent(new Event("online"))); // it looks at once, and finds nothing
    await phone.status("Offline");
    await phone.say("On my way into the tunnel");
    await phone.screenshot("chat-phone-offline");
    await phone.context.setOffline(false);
    await desktop.shows("On my way into the tunnel");
    await phone.page.getByRole("button", { name: "Leave" }).click();
    await phone.screenshot("chat-phone-form");
    grace.close();
    bot.close();
    await Promise.all([desktop.close(), phone.close()]);
  },

  "a restart and a crash of the server: the pages are back, and say it": async () => {
    const [ada, linus] = [await Tab.open("Ada", { room: "restart" }), await Tab.open("Linus", { room: "restart" })];
    await ada.say("before");
    await linus.shows("before");
    for (const signal of ["SIGTERM", "SIGKILL"]) {
      await server.signal(signal);
      await ada.status("Offline");
      await ada.say(`sent before the server was back from ${signal}`);
      await server.start();
      await linus.shows("The server has restarted. Messages may be missing here.",
        `sent before the server was back from ${signal}`);
      await linus.say(`after ${signal}`);
      await ada.shows("The server has restarted. Messages may be missing here.",
        `sent before the server was back from ${signal}`, `after ${signal}`);
      await ada.sees("Ada", "Linus");
      await linus.sees("Ada", "Linus");
    }
    assert.equal((await ada.texts()).length, 7);
    await ada.screenshot("chat-restart");
    await Promise.all([ada.close(), linus.close()]);
  },

  "nothing complained in a console": async () => assert.deepEqual(complaints, []),
};

await runTests(tests, async () => {
  await browser.close();
  if (server.process.exitCode === null) await server.signal("SIGKILL");
});
