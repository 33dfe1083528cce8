// Runs the scripts of client/testdata/scripts, which both clients share: the time, the random number and the network are
// controlled. The format is in the README there.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { Clock } from "./clock.mjs";
import { Runner } from "./runner.mjs";

const folder = new URL(process.env.SCRIPTS ?? "../../testdata/scripts/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
assert.ok(files.length > 0);

for (const file of files) {
  const script = JSON.parse(readFileSync(new URL(file, folder), "utf8"));
  test(`${file}: ${script.doc}`, async () => {
    const clock = new Clock(script.options?.random ?? 1);
    try {
      const runner = new Runner(script.options ?? {}, clock);
      for (const [i, step] of script.steps.entries()) await runner.step(step, `${file}, step ${i}: ${JSON.stringify(step.do)}`);
    } finally {
      clock.restore();
    }
  });
}
