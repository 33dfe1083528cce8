// Hooks for @qi-realtime/ws-client. Copy this file into your application and change it as you like.

import { useCallback, useEffect, useState, useSyncExternalStore } from "react";
import type { APIShape, Client, Data, EventName, Gap, State } from "@qi-realtime/ws-client";

/** One line of a room: a message, or a gap in its place. */
export type Line<M> = { key: string; message: M } | { key: string; gap: Gap };

/** Returns the state of the connection. */
export function useConnection(client: Client<any>): State {
  const subscribe = useCallback((changed: () => void) => client.onState(changed), [client]);
  return useSyncExternalStore(subscribe, () => client.state);
}

/**
 * Joins a room while the component is shown, and returns its lines: the newest messages of the history, at most `last`, and
 * those that have come since. After a reconnect the missed messages are appended, and a gap if some are lost. Only one
 * component may use a room, because it leaves the room when it goes; others get the lines from it.
 */
export function useRoom<A extends APIShape, E extends EventName<A>>(
  client: Client<A>, id: string, event: E, last = 50,
): Line<Data<A, E>>[] {
  const [lines, setLines] = useState<Line<Data<A, E>>[]>([]);
  useEffect(() => {
    let count = 0;
    const add = (line: { message: Data<A, E> } | { gap: Gap }): void => {
      const key = String(++count);
      setLines((before) => [...before, { ...line, key }]);
    };
    const room = client.room(id, { last });
    room.on(event, (message) => add({ message }));
    room.onGap((gap) => add({ gap }));
    return () => {
      void room.leave();
      setLines([]);
    };
  }, [client, id, event, last]);
  return lines;
}
