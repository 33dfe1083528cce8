// The npm package ws against the chat binary, over both of its paths.

import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket from "ws";
import { ChatServer, runTests, within } from "./server.mjs";

const WAIT = 60_000;
const MIB = 1 << 20;

const server = await ChatServer.create("-rate", "0");
const paths = {
  "net/http": () => `ws://127.0.0.1:${server.page}/ws`,
  native: () => `ws://127.0.0.1:${server.native}/ws`,
};

// A connection whose messages can be awaited one by one.
class Peer {
  static async dial(url, options = {}) {
    const peer = new Peer();
    peer.ws = new WebSocket(url, { perMessageDeflate: false, ...options });
    peer.inbox = [];
    peer.waiting = [];
    peer.ws.on("message", (data, isBinary) => {
      assert.equal(isBinary, false, "the envelope travels in text frames");
      peer.inbox.push(JSON.parse(data));
      for (const check of [...peer.waiting]) check();
    });
    peer.closed = once(peer.ws, "close");
    await within(WAIT, once(peer.ws, "open"), "open");
    return peer;
  }

  // next takes the first message, past or future, that matches.
  next(what, matches) {
    const found = new Promise((resolve) => {
      const check = () => {
        const i = this.inbox.findIndex(matches);
        if (i < 0) return;
        this.waiting = this.waiting.filter((w) => w !== check);
        resolve(this.inbox.splice(i, 1)[0]);
      };
      this.waiting.push(check);
      check();
    });
    return within(WAIT, found, what);
  }

  request(event, data, id = "req_1") {
    this.ws.send(JSON.stringify({ type: "request", event, request_id: id, data }));
    return this.next(`answer to ${event}`, (m) => m.request_id === id);
  }

  say(text, id) {
    return this.request("chat.send", { room: this.room, id, text }, id);
  }

  async close() {
    this.ws.close(1000);
    const [code] = await within(WAIT, this.closed, "close");
    assert.equal(code, 1000);
  }
}

async function join(url, name, room) {
  const peer = await Peer.dial(`${url}?name=${name}`);
  peer.room = room;
  const answer = await peer.request("ws.join", { room });
  assert.equal(answer.type, "response");
  assert.equal(answer.code, 200);
  assert.equal(answer.data.room, room);
  return peer;
}

const tests = {};
for (const [path, url] of Object.entries(paths)) {
  const test = (name, run) => { tests[`${path}: ${name}`] = run; };

  test("request and response, then a message to the room", async () => {
    const peer = await join(url(), "Ada", "npm");
    const answer = await peer.say("Grüße, 世界 🌍", "req_2");
    assert.equal(answer.code, 200);
    const message = await peer.next("chat.message", (m) => m.event === "chat.message");
    assert.equal(message.type, "notify");
    assert.equal(message.data.text, "Grüße, 世界 🌍");
    assert.equal(message.data.name, "Ada");
    await peer.close();
  });

  test("errors: 400 for bad data, 404 for an unknown event", async () => {
    const peer = await Peer.dial(url());
    const bad = await peer.request("ws.join", { room: "npm" }); // without a name
    assert.equal(bad.type, "error");
    assert.equal(bad.code, 400);
    const undecodable = await peer.request("ws.join", { room: 7 }, "req_2");
    assert.equal(undecodable.code, 400);
    const unknown = await peer.request("no.such", {}, "req_3");
    assert.equal(unknown.type, "error");
    assert.equal(unknown.code, 404);
    await peer.close();
  });

  test("presence arrives unasked", async () => {
    const peer = await join(url(), "Grace", `presence ${path}`);
    const presence = await peer.next("presence", (m) => m.event === "chat.presence");
    assert.deepEqual(presence.data, { room: `presence ${path}`, version: 1, count: 1, joined: ["Grace"] });
    await peer.close();
  });

  test("a ping is answered with its payload", async () => {
    const peer = await Peer.dial(url());
    peer.ws.ping("are you there?");
    const [payload] = await within(WAIT, once(peer.ws, "pong"), "pong");
    assert.equal(payload.toString(), "are you there?");
    await peer.close();
  });

  test("a message in fragments, with a ping in between", async () => {
    const peer = await join(url(), "Edsger", `fragments ${path}`);
    const data = { room: peer.room, id: "1", text: "in pieces ✂ ✂ ✂" };
    const request = JSON.stringify({ type: "request", event: "chat.send", request_id: "req_2", data });
    const bytes = Buffer.from(request);
    const pong = once(peer.ws, "pong");
    for (let i = 0; i < bytes.length; i += 7) { // cuts through the multi-byte runes too
      peer.ws.send(bytes.subarray(i, i + 7), { binary: false, fin: i + 7 >= bytes.length });
      if (i === 70) peer.ws.ping();
    }
    await within(WAIT, pong, "pong");
    const message = await peer.next("chat.message", (m) => m.event === "chat.message");
    assert.equal(message.data.text, "in pieces ✂ ✂ ✂");
    await peer.close();
  });

  test("a message of 1 MiB closes with 1009, another connection lives", async () => {
    const [large, other] = [await Peer.dial(url()), await Peer.dial(url())];
    large.ws.on("error", () => {}); // a reset may follow the close frame while we still send
    large.ws.send("x".repeat(MIB));
    const [code] = await within(WAIT, large.closed, "close");
    assert.equal(code, 1009);
    assert.equal((await other.request("no.such", {})).code, 404);
    await other.close();
  });

  test("a page of another host is refused with 403", async () => {
    const ws = new WebSocket(url(), { origin: "http://evil.example" });
    const [error] = await within(WAIT, once(ws, "error"), "refusal");
    assert.match(error.message, /403/);
  });

  test("300 messages keep their order", async () => {
    const [from, to] = [await join(url(), "From", `order ${path}`), await join(url(), "To", `order ${path}`)];
    const received = [];
    const all = new Promise((resolve) => {
      to.ws.on("message", (data) => {
        const m = JSON.parse(data);
        if (m.event === "chat.message" && received.push(m.data.text) === 300) resolve();
      });
    });
    for (let i = 0; i < 300; i++) {
      const data = { room: from.room, id: `${i}`, text: `n${i}` };
      from.ws.send(JSON.stringify({ type: "request", event: "chat.send", request_id: `r${i}`, data }));
      if (i % 50 === 49) await from.next(`answer ${i}`, (m) => m.request_id === `r${i}`); // stay below the queue limits
    }
    await within(WAIT, all, "300 messages");
    assert.deepEqual(received, Array.from({ length: 300 }, (_, i) => `n${i}`));
    await Promise.all([from.close(), to.close()]);
  });
}

tests["both paths share rooms"] = async () => {
  const ada = await join(paths["net/http"](), "Ada", "shared");
  const linus = await join(paths.native(), "Linus", "shared");
  await ada.say("to native", "a");
  assert.equal((await linus.next("message", (m) => m.event === "chat.message")).data.text, "to native");
  await linus.say("to net/http", "b");
  await ada.next("message", (m) => m.data?.text === "to net/http");
  await Promise.all([ada.close(), linus.close()]);
};

tests["shutdown closes everyone with 1001"] = async () => {
  const peers = await Promise.all(Object.values(paths).flatMap((url) => [Peer.dial(url()), Peer.dial(url())]));
  const exit = server.signal("SIGTERM");
  for (const peer of peers) {
    const [code] = await within(WAIT, peer.closed, "close");
    assert.equal(code, 1001);
  }
  assert.equal(await exit, 0);
};

await runTests(tests, async () => {
  if (server.process.exitCode === null) await server.signal("SIGKILL");
});
