export { connect, Client } from "./client.js";
export { WsError } from "./errors.js";
export type { Failure } from "./errors.js";
export type { Room } from "./room.js";
export type {
  AnyAPI, APIShape, Closed, ConnectOptions, Data, EventName, Gap, Info, Joined, PositionStore, Position, PresenceVersion,
  Req, RequestArgs, RequestName, RequestOptions, Resp, RoomOptions, State, Target, URLSource, WebSocketConstructor,
  WebSocketLike,
} from "./types.js";
