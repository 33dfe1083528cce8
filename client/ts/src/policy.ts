/** Milliseconds after which an open connection resets the backoff. */
export const STABLE = 10_000;
/** The most milliseconds in which a message must follow a probe. */
export const PROBE_ANSWER = 10_000;
/** Milliseconds in which the old connection ends after a move. The server's own limit is 5 s by default. */
export const MOVE = 5_000;

/** The decision after the end of a connection. `wait` is the time in milliseconds that the server asks for. */
export interface Verdict {
  stop: boolean;
  wait: number | undefined;
}

const STOP = [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4409];
const DAY = 86_400_000;

/** The time in milliseconds that the server asks for with `{"retry_ms":n}`. */
export function retryIn(data: any): number | undefined {
  const ms: unknown = data?.retry_ms;
  return typeof ms === "number" ? Math.min(Math.max(ms, 0), DAY) : undefined;
}

/** Decides from the close code and the close reason. */
export function verdict(code: number, reason: string): Verdict {
  let wait: number | undefined;
  try {
    wait = retryIn(JSON.parse(reason));
  } catch {
    // The reason is for people, or empty.
  }
  if (code === 1013) wait ??= 5_000 + Math.random() * 25_000;
  return { stop: STOP.includes(code) || (code >= 4500 && code < 5000), wait };
}

/** The wait before a new attempt: a random part of 0.5 s, doubled for each failure up to 30 s. */
export function backoff(failures: number): number {
  return Math.random() * Math.min(30_000, 500 * 2 ** failures);
}
