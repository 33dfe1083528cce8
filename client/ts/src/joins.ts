import type { WsError } from "./errors.js";
import type { Link } from "./link.js";
import { backoff, retryIn } from "./policy.js";
import type { Room } from "./room.js";

/** Joins that are sent before one is answered: fewer than a server's rate limit tolerates. */
const MOST = 8;
/** The least milliseconds before a refused join is sent again. */
const PAUSE = 1_000;

/** The rooms to be in, in the order of their joins, and the joins on the newest connection. */
export class Joins {
  readonly rooms = new Map<string, Room<any>>();
  readonly #newest: () => Link | undefined;

  constructor(newest: () => Link | undefined) {
    this.#newest = newest;
  }

  /** Sends the joins that are due. */
  send(): void {
    const link = this.#newest();
    if (!link || link.paused) return;
    for (const room of this.rooms.values()) {
      if (link.joins >= (link.refused ? 1 : MOST)) return;
      const { target, source } = room;
      if (target !== link && (!target?.opened || target === source)) room.join(link); // else it waits on the old connection
    }
  }

  /** A join has its answer: it is done, or refused and must be sent again later. */
  answered(room: Room<any>, link: Link, again: WsError | undefined): void {
    if (again) {
      this.rooms.delete(room.id); // it comes after all others
      this.rooms.set(room.id, room);
      this.#pause(link, retryIn(again.data));
    } else if (room.source === link) link.refusals = 0;
    this.send();
  }

  /** Lets the joins on link wait. Later ones are sent one after the other. */
  #pause(link: Link, wait: number | undefined): void {
    if (link.paused) return;
    link.paused = link.refused = true;
    link.after("join", wait ?? PAUSE + backoff(link.refusals), () => {
      link.paused = false;
      this.send();
    });
    link.refusals++;
  }

  /** Whether all rooms have been joined on link. */
  doneOn(link: Link): boolean {
    return [...this.rooms.values()].every((room) => room.source === link);
  }
}
