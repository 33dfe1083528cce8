// Starts and stops the chat binary that CHAT_BINARY names, for the tests beside this file.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class ChatServer {
  // create starts a server; more are flags, such as "-rate", "0".
  static async create(...more) {
    const server = new ChatServer();
    server.more = more;
    server.page = await freePort();
    server.native = await freePort();
    await server.start();
    return server;
  }

  async start() {
    const binary = process.env.CHAT_BINARY;
    if (!binary) throw new Error("CHAT_BINARY names no binary: go build -o chat ./examples/chat");
    const args = ["-addr", `127.0.0.1:${this.page}`, "-native", `tcp://127.0.0.1:${this.native}`, ...this.more];
    this.process = spawn(binary, args, { stdio: ["ignore", "inherit", "inherit"] });
    this.exited = once(this.process, "exit");
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(50)) {
      if (this.process.exitCode !== null) throw new Error(`chat exited with ${this.process.exitCode}`);
      const pages = [`http://127.0.0.1:${this.page}/`, `http://127.0.0.1:${this.native}/healthz`];
      const answers = await Promise.all(pages.map((url) => fetch(url).then((r) => r.ok).catch(() => false)));
      if (answers.every(Boolean)) return;
    }
    throw new Error("chat did not start within a minute");
  }

  // signal sends SIGTERM or SIGKILL and resolves with the exit code, null after SIGKILL.
  async signal(name) {
    this.process.kill(name);
    const [code] = await within(60_000, this.exited, `exit after ${name}`);
    return code;
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Runs each named test in turn, prints its outcome, and ends the process: 0 if all passed.
export async function runTests(tests, cleanUp) {
  let failed = 0;
  for (const [name, test] of Object.entries(tests)) {
    const from = Date.now();
    try {
      await within(180_000, test(), name);
      console.log(`ok    ${name} (${Date.now() - from} ms)`);
    } catch (error) {
      failed++;
      console.log(`FAIL  ${name}\n${error.stack ?? error}`);
    }
  }
  await cleanUp();
  console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
}

// EchoServers runs the binary of interop/clients/echo that ECHO_BINARY names: one echo server of each kind.
export class EchoServers {
  static async start(...args) {
    const binary = process.env.ECHO_BINARY;
    if (!binary) throw new Error("ECHO_BINARY names no binary: (cd clients && go build -o echo.bin ./echo)");
    const echo = new EchoServers();
    echo.process = spawn(binary, args, { stdio: ["pipe", "pipe", "inherit"] });
    echo.exited = once(echo.process, "exit");
    const lines = createInterface(echo.process.stdout);
    const [line] = await within(60_000, once(lines, "line"), "list of servers");
    Object.assign(echo, JSON.parse(line)); // servers, certificate
    return echo;
  }

  // stop resolves once the servers have ended, in order.
  async stop() {
    this.process.stdin.end();
    const [code] = await within(60_000, this.exited, "end of the echo servers");
    if (code !== 0) throw new Error(`the echo servers exited with ${code}`);
  }
}
