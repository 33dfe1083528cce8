// Measures the time from a cut of the connection to the last missed message, while a publisher publishes 50 messages a
// second. For SECONDS (default 1) after the cut the proxy refuses new connections. CLIENTS clients, one cut each.

import { WebSocket } from "ws";
import { connect } from "../dist/index.js";
import { Log } from "./log.mjs";
import { Proxy } from "./proxy.mjs";
import { startServers, until } from "./servers.mjs";

const SECONDS = Number(process.env.SECONDS ?? 1);
const CLIENTS = Number(process.env.CLIENTS ?? 100);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const servers = await startServers();
const publisher = connect(servers.main, { WebSocket, timeout: 0 });

async function measure(room) {
  const proxy = await Proxy.start(servers.main);
  const since = await publisher.request("publish", { room, n: 1 });
  const client = connect(proxy.url, { WebSocket });
  const r = client.room(room, { since });
  const log = new Log(r, since);
  await r.joined;
  let head = since;
  let publishing = true;
  const published = (async () => {
    for (; publishing; await sleep(20)) head = await publisher.request("publish", { room, n: 1 });
  })();
  await sleep(200);
  const cut = performance.now();
  proxy.refuse = true;
  proxy.cut("reset");
  await sleep(SECONDS * 1_000);
  proxy.refuse = false;
  const open = await new Promise((resolve) => {
    if (client.state.name === "open") resolve(performance.now());
    client.onState(({ name }) => name === "open" && resolve(performance.now()));
  });
  const goal = head.offset; // it was published before the connection was open
  let caughtUp = open;
  if (r.position.offset < goal) {
    caughtUp = await new Promise((resolve) => {
      r.on("number", (_, { offset }) => offset >= goal && resolve(performance.now()));
    });
  }
  publishing = false;
  await published;
  await until(() => r.position.offset === head.offset, "the end");
  log.check(head, room);
  client.close();
  await proxy.stop();
  return { total: caughtUp - cut, replay: caughtUp - open, gaps: log.gaps };
}

const rounds = [];
const rooms = Array.from({ length: CLIENTS }, (_, i) => `long-${i}`);
const worker = async () => {
  for (let room; (room = rooms.pop()); ) rounds.push(await measure(room));
};
await Promise.all(Array.from({ length: 10 }, worker));
publisher.close();
await servers.stop();

const percentile = (key, p) => rounds.map((r) => r[key]).sort((a, b) => a - b)[Math.ceil(p * rounds.length) - 1].toFixed(0);
console.log(`${rounds.length} cuts of ${SECONDS} s, ${rounds.reduce((n, r) => n + r.gaps, 0)} gaps`);
console.log(`from the cut to caught up: p50 ${percentile("total", 0.5)} ms, p99 ${percentile("total", 0.99)} ms`);
console.log(`from the new connection to caught up: p50 ${percentile("replay", 0.5)} ms, p99 ${percentile("replay", 0.99)} ms`);
