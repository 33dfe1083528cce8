import type { Client, Gap, Info, Room, WsError } from "@qi-realtime/ws-client";
import { connect } from "@qi-realtime/ws-client";
import type { API, ChatMessage } from "./api.gen.js";
import type { Log } from "./log.js";
import { Notices } from "./notices.js";
import { Outbox } from "./outbox.js";
import { People } from "./people.js";
import { Status } from "./status.js";

/** The number of messages of the history that a newcomer sees. */
const HISTORY = 50;
/** The number of messages that are remembered in order to show each once. */
const REMEMBERED = 2_000;

/** Who is in which room. The key is a secret: who has it is this person. */
export interface Identity {
  name: string;
  room: string;
  key: string;
}

/** A person in a room, until it is closed. */
export class Session {
  readonly #client: Client<API>;
  #room!: Room<API>;
  readonly #outbox: Outbox;
  readonly #people: People;
  readonly #status: Status;
  readonly #notices = new Notices();
  readonly #seen = new Set<string>();
  /** The ID of this person, from the first event of the connection. */
  #me = "";

  /** `refused` hears why the server does not let the person in. `again` begins a new session. */
  constructor(
    private readonly identity: Identity,
    private readonly log: Log,
    private readonly refused: (reason: string) => void,
    again: () => void,
  ) {
    const { name, room, key } = identity;
    this.#client = connect<API>("/ws?" + new URLSearchParams({ name, key }));
    this.#outbox = new Outbox((id, text, timeout) =>
      this.#client.request("chat.send", { room, id, text }, { idempotent: true, timeout }));
    this.#people = new People(name, () => this.#client.request("chat.who", { room }), (text) => this.#notices.news(text));
    this.#status = new Status(again);
    this.#listen();
    this.#join();
    this.#status.show(this.#client.state);
  }

  get unsent(): number {
    return this.#outbox.size;
  }

  send(text: string): void {
    this.#outbox.add(text);
    this.#notices.sent();
    this.log.toNewest();
  }

  /** Tells the others that this person types. It gets lost without a connection, and that is right. */
  typing(): void {
    if (this.#notices.isDue()) this.#client.notify("chat.typing", { room: this.identity.room });
  }

  close(): void {
    this.#people.close();
    this.#outbox.close();
    this.#status.close();
    this.#notices.clear();
    this.#client.close();
  }

  #listen(): void {
    const here = ({ room }: { room: string }): boolean => room === this.identity.room;
    this.#client.onState((state) => {
      this.#status.show(state);
      if (state.name === "open") void this.#people.refresh();
    });
    this.#client.on("chat.welcome", ({ user }) => (this.#me = user));
    this.#client.on("chat.presence", (presence) => here(presence) && this.#people.change(presence));
    this.#client.on("chat.typed", (typing) => here(typing) && this.#notices.typing(typing.user, typing.name));
  }

  #join(): void {
    const room = (this.#room = this.#client.room(this.identity.room, { last: HISTORY }));
    room.on("chat.message", (message, info) => this.#receive(message, info));
    room.onGap((gap) => this.#missed(gap));
    const refused = ({ code, message }: WsError): void => void (code === "closed" || this.refused(message));
    room.joined.catch(refused);
    room.onError(refused);
  }

  #receive(message: ChatMessage, { timestamp }: Info): void {
    const { id, user } = message;
    const mine = user === this.#me;
    if (mine) this.#outbox.confirm(id);
    else this.#notices.silent(user);
    if (this.#isNew(`${user} ${id}`)) this.log.message({ ...message, mine }, timestamp ?? Date.now() / 1000);
  }

  /**
   * Whether a message is shown for the first time. The room sends each message once, but a page whose message has
   * no answer before a restart of the server sends it again.
   */
  #isNew(key: string): boolean {
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    for (const oldest of this.#seen) {
      if (this.#seen.size <= REMEMBERED) break;
      this.#seen.delete(oldest);
    }
    return true;
  }

  #missed({ lost }: Gap): void {
    if (lost !== undefined) this.log.remark(lost === 1 ? "1 message was missed" : `${lost} messages were missed`);
    else this.#beginAnew();
    const user = this.#me;
    for (const { id, text } of this.#outbox.missed()) {
      this.#isNew(`${user} ${id}`);
      this.log.message({ user, name: this.identity.name, text, mine: true }, Date.now() / 1000);
    }
  }

  /** The history has begun anew, after a restart of the server. A second join brings what it has already. */
  #beginAnew(): void {
    this.log.remark("The server has restarted. Messages may be missing here.");
    void this.#room.leave();
    this.#join();
  }
}
