/** The most messages in each list. */
const MAX = 1_024;

/**
 * The messages without an offset that both connections of a move may carry. Only their texts show that two are the same. All
 * are taken from the old connection, until it has answered a ws.sync that was sent after the last join on the new one.
 */
export class Overlap {
  /**
   * 0 until the new connection has answered a ws.sync: what it carries before that was published before, so the old one brings
   * it, or has brought it before the move. 2 when the old one was asked, after the last join.
   */
  phase = 0;
  /** Taken from the old connection, not read from the new one. */
  readonly #seen: string[] = [];
  /** Read from the new connection, not from the old one. */
  readonly #held: string[] = [];

  /** Notes a message of the old connection. */
  old(text: string): void {
    if (!take(this.#held, text)) add(this.#seen, text);
  }

  /** Whether the old connection has not brought this message of the new one. */
  isNew(text: string): boolean {
    return !take(this.#seen, text);
  }

  /** Keeps a message of the new connection. Of too many the oldest is left to the old connection. */
  hold(text: string): void {
    add(this.#held, text);
  }

  /** The oldest message that is kept. */
  next(): string | undefined {
    return this.#held.shift();
  }

  /** Whether the new connection has repeated all that the old one has brought. */
  get done(): boolean {
    return !this.#seen.length;
  }
}

function add(list: string[], text: string): void {
  if (list.push(text) > MAX) list.shift();
}

/** Removes text, and returns whether it was there. */
function take(list: string[], text: string): boolean {
  const i = list.indexOf(text);
  return i >= 0 && !!list.splice(i, 1);
}
