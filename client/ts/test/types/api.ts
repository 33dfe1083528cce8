// Checks the types of the client at compile time. Each line after @ts-expect-error must fail.

import { connect, WsError } from "../../dist/index.js";

interface Send { text: string }
interface Sent { id: number }
interface API {
  requests: {
    "chat.send": { req: Send; resp: Sent };
    "chat.members": { req: undefined; resp: string[] };
    "chat.clear": { req: null; resp: null };
  };
  events: { "chat.message": { text: string; from: string } };
  errors: { tooFast: 4290 };
}

const c = connect<API>("wss://example.com/ws");

export async function requests(): Promise<void> {
  const { id }: Sent = await c.request("chat.send", { text: "hi" }, { timeout: 5_000, idempotent: true });
  const members: string[] = await c.request("chat.members");
  await c.request("chat.members", undefined, { signal: AbortSignal.timeout(1_000) });
  await c.request("chat.clear");
  // @ts-expect-error the text is missing
  await c.request("chat.send", {});
  // @ts-expect-error the data is missing
  await c.request("chat.send");
  // @ts-expect-error there is no such request
  await c.request("chat.sing", {});
  // @ts-expect-error the ID is a number
  const text: string = id;
}

export function events(): void {
  const room = c.room("lobby", { last: 50 });
  room.on("chat.message", ({ text, from }, { offset }) => console.log(text.length, from, offset?.toFixed()));
  // @ts-expect-error there is no such event
  room.on("chat.massage", () => {});
  c.on("chat.message", ({ from }) => from.length);
  room.onGap(({ after, next, lost }) => lost?.toFixed() ?? next - after);
  void room.joined.then(({ head, replaying }) => head?.offset.toFixed() ?? replaying);
}

export async function without(): Promise<void> {
  const any = connect(() => ({ url: "/ws", protocols: ["rooms.v2"] }), { storage: sessionStorage });
  any.on("chat.message", (data) => data.text);
  const answer = await any.request("chat.send", { text: "hi" });
  console.log(answer.id);
}

export function states(): string {
  switch (c.state.name) {
    case "waiting": return new Date(c.state.retryAt).toISOString();
    case "closed": return c.state.reason.code.toFixed();
    default: return c.state.name;
  }
}

export function errors(error: unknown): string {
  if (!(error instanceof WsError)) throw error;
  return error.code === "lost" || error.code === "timeout" ? "try again" : error.message;
}
