// The npm package ws against every kind of echo server.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import WebSocket from "ws";
import { EchoServers, runTests, within } from "./server.mjs";

const WAIT = 60_000;
const MIB = 1 << 20;
const echo = await EchoServers.start();

const messages = [
  "hello", "", Buffer.alloc(0), "Grüße, 世界 🌍", Buffer.from([0, 255, 254, 128]),
  randomBytes(125), randomBytes(126), randomBytes(65535), randomBytes(65536),
  "the same words, ".repeat(MIB / 16), randomBytes(MIB),
  ...Array.from({ length: 50 }, (_, n) => JSON.stringify({ type: "tick", n })),
];

// What a client may ask for.
const offers = {
  plain: false,
  default: true,
  "no context takeover": { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 },
  "small windows": { serverMaxWindowBits: 10, clientMaxWindowBits: 10, threshold: 0 },
};

async function dial(server, { query = "", protocols = [], ...options } = {}) {
  const ws = new WebSocket(server.url + query, protocols, { perMessageDeflate: false, ca: echo.certificate, ...options });
  ws.on("upgrade", (response) => { ws.response = response; });
  ws.closed = once(ws, "close");
  ws.closed.catch(() => {});
  await within(WAIT, once(ws, "open"), "open");
  return ws;
}

async function receive(ws) {
  const [data, isBinary] = await within(WAIT, once(ws, "message"), "message");
  return isBinary ? data : data.toString();
}

async function closed(ws) {
  const [code, reason] = await within(WAIT, ws.closed, "close");
  return { code, reason: reason.toString() };
}

const tests = {};
for (const server of echo.servers) {
  const test = (name, run) => { tests[`${server.name}: ${name}`] = run; };

  for (const [offer, perMessageDeflate] of Object.entries(offers)) {
    test(`echo, ${offer}`, async () => {
      const ws = await dial(server, { perMessageDeflate });
      const negotiated = ws.extensions.includes("permessage-deflate");
      assert.equal(negotiated, server.compression !== "" && perMessageDeflate !== false, ws.extensions);
      for (const message of messages) {
        const answer = receive(ws);
        ws.send(message);
        assert.ok(Buffer.from(await answer).equals(Buffer.from(message)), `${message.length} bytes`);
        assert.equal(typeof await answer, typeof message);
      }
      ws.close();
      await closed(ws);
    });

    test(`fragments with a ping in between, ${offer}`, async () => {
      const ws = await dial(server, { perMessageDeflate });
      const [answer, pong] = [receive(ws), once(ws, "pong")];
      ws.send("in ", { fin: false });
      ws.ping("are you there?");
      ws.send("pieces ✂", { fin: true });
      assert.equal(await answer, "in pieces ✂");
      assert.equal((await within(WAIT, pong, "pong"))[0].toString(), "are you there?");
      ws.close();
      await closed(ws);
    });

    test(`too large, ${offer}`, async () => {
      const ws = await dial(server, { perMessageDeflate });
      ws.on("error", () => {}); // a reset may follow the close frame while we still send
      ws.send("x".repeat(4 * MIB + 1));
      assert.equal((await closed(ws)).code, 1009);
    });
  }

  test("the client closes", async () => {
    for (const [code, reason] of [[1000, ""], [1001, "leaving"], [3000, "registered"], [4000, "grüß"], [4999, "r".repeat(123)]]) {
      const ws = await dial(server);
      ws.close(code, reason);
      const end = await closed(ws);
      assert.deepEqual(end, { code, reason });
    }
  });

  test("the server closes", async () => {
    for (const [code, reason] of [[1000, ""], [1001, "restart"], [1008, "no"], [1013, "later"], [4001, "grüß"], [4999, "r".repeat(123)]]) {
      const ws = await dial(server, { perMessageDeflate: true });
      ws.send(`close ${code} ${reason}`);
      assert.deepEqual(await closed(ws), { code, reason });
    }
  });

  test("subprotocol", async () => {
    for (const [protocols, want] of [[[], ""], [["echo.v1"], "echo.v1"], [["echo.v1", "echo.v2"], "echo.v2"]]) {
      const ws = await dial(server, { protocols });
      assert.equal(ws.protocol, want);
      const answer = receive(ws);
      ws.send("subprotocol");
      assert.equal(await answer, want);
      ws.close();
      await closed(ws);
    }
    await assert.rejects(dial(server, { protocols: ["other"] }), /no subprotocol/, "the library insists, as browsers do");
  });

  test("response headers and refusals", async () => {
    const ws = await dial(server);
    assert.deepEqual(ws.response.headers["set-cookie"], ["first=1; Path=/", "second=2"]);
    ws.close();
    await closed(ws);
    await assert.rejects(dial(server, { origin: "https://evil.example" }), /403/);
    await assert.rejects(dial(server, { query: "?deny" }), /401/);
  });
}

await runTests(tests, () => echo.stop());
