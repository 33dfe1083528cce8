// A page in headless Chromium that sends faster than its handler works: the server pauses the
// connection, the page's bufferedAmount stays up meanwhile, and then everything is answered.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { EchoServers, runTests } from "./server.mjs";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const CHUNK = 16 << 10;
const CHUNKS = 512; // 8 MiB
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

// A page over HTTP may open both ws: and wss: connections.
const host = echo.servers.find((s) => s.nethttp && !s.tls);
const page = await browser.newPage({ ignoreHTTPSErrors: true });
page.setDefaultTimeout(90_000);
await page.goto(host.url.replace("ws", "http").replace("/ws", "/"));

// upload runs in the page, and resolves with what the page has seen. How much the kernel's socket
// buffers take differs: while the handler sleeps and they have taken all, the page sends more.
function upload([url, chunk, chunks, seconds]) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    const seen = { samples: [], sleptAt: 0, sent: 0, answered: 0, wrong: 0 };
    let from, timer;
    const now = () => Math.round(performance.now() - from);
    const sample = () => seen.samples.push({ ms: now(), buffered: socket.bufferedAmount, state: socket.readyState });
    const send = () => {
      for (const end = seen.sent + chunks; seen.sent < end; seen.sent++) {
        const bytes = new Uint8Array(chunk).fill(seen.sent);
        new DataView(bytes.buffer).setUint32(0, seen.sent);
        socket.send(bytes);
      }
    };
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      from = performance.now();
      socket.send(`sleep ${seconds}s`);
      send();
      sample();
      timer = setInterval(() => {
        sample();
        if (!seen.sleptAt && socket.bufferedAmount === 0 && seen.sent < 8 * chunks) send();
      }, 100);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        sample();
        seen.sleptAt = now();
        return;
      }
      const n = seen.answered++;
      const whole = data.byteLength === chunk && new Uint8Array(data, 4).every((byte) => byte === n % 256);
      if (!whole || new DataView(data).getUint32(0) !== n) seen.wrong++;
      if (seen.answered === seen.sent || seen.wrong) {
        sample();
        socket.close(1000);
      }
    };
    socket.onclose = ({ code, wasClean }) => {
      clearInterval(timer);
      resolve({ ...seen, code, wasClean, ms: now() });
    };
  });
}

const MIB = 1 << 20;

// waits uploads while the handler sleeps, and returns whether the page has seen at last that the server does not read.
async function waits(server, seconds) {
  const seen = await page.evaluate(upload, [server.url, CHUNK, CHUNKS, seconds]);
  const line = seen.samples.map(({ ms, buffered }) => `${ms} ms ${(buffered / MIB).toFixed(2)}`).join(", ");
  console.log(`      bufferedAmount in MiB: ${line}; ${seen.answered} of ${seen.sent} answered, closed with ${seen.code} after ${seen.ms} ms`);
  assert.equal(seen.code, 1000);
  assert.equal(seen.wasClean, true);
  assert.equal(seen.answered, seen.sent);
  assert.equal(seen.wrong, 0, "answers out of order or damaged");
  assert.ok(seen.sleptAt >= seconds * 1000, `the handler's answer came after ${seen.sleptAt} ms`);
  const asleep = seen.samples.filter(({ ms }) => ms <= seen.sleptAt);
  assert.ok(asleep.every(({ state }) => state === 1), "the connection stays open");
  const settled = asleep.filter(({ ms }) => ms > seen.sleptAt - 500);
  assert.equal(seen.samples.at(-1).buffered, 0);
  return settled.every(({ buffered }) => buffered > 0);
}

const tests = {};
for (const server of echo.servers.filter((s) => s.compression === "")) {
  tests[`${server.name}: the page waits with its upload`] = async () => {
    // A busy machine may still take the upload when the handler is done. Then it sleeps for longer.
    for (const seconds of [2, 4, 8]) if (await waits(server, seconds)) return;
    assert.fail("the page does not see that the server does not read");
  };
}

await runTests(tests, async () => {
  await browser.close();
  await echo.stop();
});
