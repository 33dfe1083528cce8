import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// startServers runs interop/feedserver: the binary that FEED_BINARY names, else one that is built now.
export async function startServers() {
  const folder = mkdtempSync(join(tmpdir(), "feed-"));
  let binary = process.env.FEED_BINARY;
  if (!binary) {
    binary = join(folder, "feed");
    const cwd = new URL("../../../interop/", import.meta.url);
    execFileSync("go", ["build", "-o", binary, "./feedserver"], { cwd, env: { ...process.env, GOWORK: "off" }, stdio: "inherit" });
  }
  const server = spawn(binary, { stdio: ["pipe", "pipe", "inherit"] });
  const exited = once(server, "exit");
  const [line] = await once(createInterface(server.stdout), "line");
  const stop = async () => {
    server.stdin.end();
    const [code] = await exited;
    rmSync(folder, { recursive: true });
    if (code !== 0) throw new Error(`the server exited with ${code}`);
  };
  return { ...JSON.parse(line), stop };
}

// until resolves when the condition holds, and fails after a minute.
export async function until(condition, what) {
  for (const end = Date.now() + 60_000; !condition(); ) {
    if (Date.now() > end) throw new Error(`not within a minute: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// reaches resolves when the client is in this state.
export function reaches(client, name) {
  return new Promise((resolve) => {
    if (client.state.name === name) return resolve(client.state);
    const end = client.onState((state) => {
      if (state.name !== name) return;
      end();
      resolve(state);
    });
  });
}
