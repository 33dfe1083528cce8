// The page of the chat: a form for name and room, then the room that the URL names.

import { byID, random } from "./dom.js";
import { Log } from "./log.js";
import { Session } from "./session.js";

const form = byID<HTMLFormElement>("join");
const name = byID<HTMLInputElement>("name");
const room = byID<HTMLInputElement>("room");
const text = byID<HTMLTextAreaElement>("text");
const left = byID("left");
const log = new Log();
/** Characters that are left when the page begins to count them. */
const FEW = 200;

let session: Session | undefined;
let unread = 0;

/** Keeps a value under a key, where the browser permits it. */
function stored(storage: () => Storage, key: string, value?: string): string {
  try {
    if (value !== undefined) storage().setItem(key, value);
    return storage().getItem(key) ?? "";
  } catch {
    return value ?? "";
  }
}

/** The secret of this tab, so that two tabs can talk to each other. */
const key = stored(() => sessionStorage, "chat-key") || stored(() => sessionStorage, "chat-key", random(16));

/** The room that the URL names. */
function roomOfURL(): string {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim();
  } catch {
    return "";
  }
}

function enter(): void {
  session?.close();
  const identity = { name: name.value.trim(), room: roomOfURL(), key };
  log.clear();
  document.body.dataset["view"] = "chat";
  byID("title").textContent = "#" + identity.room;
  byID("error").textContent = "";
  session = new Session(identity, log, leave, enter);
  stored(() => localStorage, "chat-name", identity.name);
  read();
  text.focus();
}

/** Shows the form, with the reason if the server has refused. */
function leave(reason = ""): void {
  session?.close();
  session = undefined;
  document.body.dataset["view"] = "join";
  byID("title").textContent = "Chat";
  document.title = "Chat";
  byID("error").textContent = reason;
  room.value = roomOfURL() || room.value;
  (name.value && !reason ? room : name).focus();
}

function submit(event: Event): void {
  event.preventDefault();
  if (!name.reportValidity() || !room.reportValidity()) return;
  const hash = "#" + encodeURIComponent(room.value.trim());
  if (location.hash === hash) enter();
  else location.hash = hash; // then onhashchange enters
}

function send(event?: Event): void {
  event?.preventDefault();
  const message = text.value.trim();
  if (!session || message === "") return;
  session.send(message);
  text.value = "";
  count();
  text.focus();
}

/** Shows how many characters are left, when they are few. */
function count(): void {
  const rest = Math.max(0, text.maxLength - text.value.length);
  left.textContent = rest <= FEW ? `${rest} left` : "";
}

/** Shows the number of unread messages in the title while the page is hidden. */
function read(): void {
  unread = document.hidden ? unread : 0;
  if (session) document.title = (unread > 0 ? `(${unread}) ` : "") + "#" + roomOfURL();
}

form.onsubmit = submit;
byID<HTMLFormElement>("composer").onsubmit = send;
byID("leave").onclick = () => leave();
text.onkeydown = (event) => {
  // Enter also ends the choice of a character in Chinese, Japanese and Korean input.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
};
text.oninput = () => {
  count();
  if (text.value !== "") session?.typing();
};
document.onkeydown = (event) => {
  if (event.key !== "Escape" || event.isComposing || !session) return;
  log.toNewest();
  text.focus();
};
document.onvisibilitychange = read;
new MutationObserver((records) => {
  if (document.hidden) unread += records.reduce((sum, { addedNodes }) => sum + addedNodes.length, 0);
  read();
}).observe(byID("lines"), { childList: true });
onhashchange = () => (roomOfURL() && name.value.trim() ? enter() : leave());
onbeforeunload = (event) => {
  if (session?.unsent) event.preventDefault(); // the browser asks whether to go
};

name.value = stored(() => localStorage, "chat-name");
room.value = roomOfURL() || "lobby";
if (name.value && roomOfURL()) enter();
else leave();
