// Checks the client against the interface that package schema generates for the server of the tests. Each line that follows
// a mark @ts-expect-error must fail.

import { connect, WsError } from "../../dist/index.js";
import type { API, Position } from "./feed.gen.js";

const c = connect<API>("wss://example.com/ws");

export async function requests(): Promise<void> {
  const head: Position = await c.request("publish", { room: "r1", n: 1 }, { idempotent: true });
  const { n } = await c.request("count", { key: "k" });
  const token: string = await c.request("token");
  const nothing: undefined = await c.request("close", { code: 4500, reason: "banned" });
  const data: unknown = await c.request("echo", { any: "data" });
  await c.request("hold");
  c.room("r1", { since: head });
  c.notify("close", { code: 1000, reason: n.toFixed() + token + String(nothing) + String(data) });
  // @ts-expect-error the server has no such request
  await c.request("publsh", { room: "r1", n: 1 });
  // @ts-expect-error n is missing
  await c.request("publish", { room: "r1" });
  // @ts-expect-error n is a number
  await c.request("publish", { room: "r1", n: "1" });
  // @ts-expect-error the data is missing
  await c.request("publish");
  // @ts-expect-error a field that the server does not know
  await c.request("publish", { room: "r1", n: 1, m: 2 });
  // @ts-expect-error the request has no data
  await c.request("token", { room: "r1" });
  // @ts-expect-error the count is a number
  const text: string = (await c.request("count", { key: "k" })).n;
  // @ts-expect-error the response has no such field
  head.id.toFixed();
  // @ts-expect-error the data of echo has an unknown type
  (await c.request("echo", 1)).toFixed();
  // @ts-expect-error there is no such option
  await c.request("token", undefined, { retries: 3 });
  // @ts-expect-error a notification needs its data, too
  c.notify("publish", { room: "r1" });
}

export function events(): void {
  const room = c.room("r1", { last: 50 });
  room.on("number", (number, { offset }) => number.toFixed() + offset?.toFixed());
  c.on("number", (number) => number.toFixed());
  // @ts-expect-error the server has no such event
  room.on("numbers", () => {});
  // @ts-expect-error the number is no text
  room.on("number", (number: string) => number);
  // @ts-expect-error a request is no event
  c.on("publish", () => {});
}

export function errors(error: unknown): boolean {
  const refused: API["errors"]["refused"] = 422;
  // @ts-expect-error the server has defined another code
  const other: API["errors"]["refused"] = 423;
  return error instanceof WsError && error.code === refused;
}
