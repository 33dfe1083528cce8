/**
 * The reason of a request that has no answer of the server. "timeout": no answer in time. "lost": the connection was lost
 * after the request was sent, and the server may have handled it. "full": too many requests wait for a connection.
 * "closed": the client is closed.
 */
export type Failure = "timeout" | "lost" | "full" | "closed";

/** A failed request or join. `code` is the server's number, or a `Failure`. */
export class WsError<D = unknown> extends Error {
  override readonly name = "WsError";

  constructor(
    readonly code: number | Failure,
    message: string,
    /** The server's data for this error. */
    readonly data?: D,
    /** Ties the error to the lines of the server's log. */
    readonly traceId?: string,
  ) {
    super(message);
  }
}
