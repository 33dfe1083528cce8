/** Calls fn. An error of the application's function is reported as uncaught, and does not disturb the client. */
export function run<T extends unknown[]>(fn: (...args: T) => void, ...args: T): void {
  try {
    fn(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Functions by name. */
export class Emitter {
  readonly #sets = new Map<string, Set<(...args: any[]) => void>>();

  /** Adds a function, and returns the function that removes it. */
  on(name: string, fn: (...args: any[]) => void): () => void {
    const entry = (...args: any[]): void => fn(...args); // the same function may be added twice
    let set = this.#sets.get(name);
    if (!set) this.#sets.set(name, (set = new Set()));
    set.add(entry);
    return () => void set.delete(entry);
  }

  emit(name: string, ...args: unknown[]): void {
    const set = this.#sets.get(name);
    for (const fn of [...(set ?? [])]) if (set!.has(fn)) run(fn, ...args); // fn may add and remove functions
  }
}
