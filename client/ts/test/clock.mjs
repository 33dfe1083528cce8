// Clock controls the time and the random number of the globals that the client uses.
export class Clock {
  #real = { setTimeout, clearTimeout, now: Date.now, random: Math.random };
  #now = 1_000_000;
  #timers = new Map();
  #last = 0;

  constructor(random) {
    globalThis.setTimeout = (fn, ms = 0) => {
      this.#timers.set(++this.#last, { at: this.#now + Math.max(0, ms), fn });
      return this.#last;
    };
    globalThis.clearTimeout = (id) => void this.#timers.delete(id);
    Date.now = () => this.#now;
    Math.random = () => random;
  }

  restore() {
    Object.assign(globalThis, { setTimeout: this.#real.setTimeout, clearTimeout: this.#real.clearTimeout });
    Date.now = this.#real.now;
    Math.random = this.#real.random;
  }

  // pass moves the time and runs what is due, in the order of time.
  async pass(ms) {
    const end = this.#now + ms;
    for (;;) {
      const [id, timer] = [...this.#timers].filter(([, t]) => t.at <= end).sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (!timer) break;
      this.#timers.delete(id);
      this.#now = timer.at;
      timer.fn();
      await idle();
    }
    this.#now = end;
  }
}

// idle resolves when the promises that can run have run.
export async function idle() {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}
