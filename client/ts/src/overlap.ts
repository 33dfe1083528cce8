/** The most messages in each list. */
const MAX = 1_024;

/**
 * The messages without an offset that both connections of a move may carry. Only their texts show that two are the same. All
 * are taken from the old connection, until it has answered a request that was sent after the last join on the new one.
 */
export class Overlap {
  /** Whether this request was sent. */
  drained = false;
  /** Taken from the old connection, not read from the new one. */
  readonly #seen: string[] = [];
  /** Read from the new connection, not from the old one. */
  readonly #held: { text: string; m: any }[] = [];

  /** Notes a message of the old connection. */
  old(text: string): void {
    const i = this.#held.findIndex((h) => h.text === text);
    if (i >= 0) this.#held.splice(i, 1);
    else if (this.#seen.push(text) > MAX) this.#seen.shift();
  }

  /** Whether the old connection has not brought this message of the new one. */
  isNew(text: string): boolean {
    const i = this.#seen.indexOf(text);
    if (i >= 0) this.#seen.splice(i, 1);
    return i < 0;
  }

  /** Keeps a message of the new connection. Of too many the oldest is left to the old connection. */
  hold(text: string, m: any): void {
    if (this.#held.push({ text, m }) > MAX) this.#held.shift();
  }

  /** The oldest message that is kept. */
  next(): any {
    return this.#held.shift()?.m;
  }

  /** Whether the new connection has repeated all that the old one has brought. */
  get done(): boolean {
    return !this.#seen.length;
  }
}
