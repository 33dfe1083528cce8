import { get, post } from "./api.js";
import { element, facts, setText } from "./dom.js";
import { age, bytes, integer, milliseconds } from "./format.js";
import { link, number, Table, text } from "./table.js";

const $ = (id) => document.getElementById(id);
const EXAMPLES = { id: "ID of a client", user: "Name or number of a user", address: "192.0.2.1 or 192.0.2.1:5000" };

let shown = null; // the article and the client in it
let mayClose = false;

export function allowClose(allowed) {
  mayClose = allowed;
  if (shown) shown.button.hidden = !allowed;
}

// openClient looks a client up that a table shows, and moves the focus there.
export async function openClient({ id }) {
  $("find-by").value = "id";
  $("find-for").value = id;
  await search();
  const heading = $("found").querySelector("h3");
  heading?.scrollIntoView({ block: "center" });
  heading?.focus({ preventScroll: true });
}

export function start() {
  $("find-by").addEventListener("change", () => ($("find-for").placeholder = EXAMPLES[$("find-by").value]));
  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  $("close-cancel").addEventListener("click", () => $("close").close());
  $("close-form").addEventListener("submit", (event) => {
    event.preventDefault();
    closeClient();
  });
}

async function search() {
  const by = $("find-by").value;
  const what = $("find-for").value.trim();
  setText($("find-result"), "Searching…");
  let answer;
  try {
    answer = await get("client", { [by]: what });
  } catch (error) {
    showClients([]);
    setText($("find-result"), `Error: ${error.message}`);
    return;
  }
  const { clients, truncated } = answer;
  showClients(clients);
  const number = truncated ? "More than 100 clients" : clients.length === 1 ? "1 client" : `${clients.length} clients`;
  setText($("find-result"), clients.length ? number : "No connected client matches.");
}

function showClients(clients) {
  shown = null;
  const found = $("found");
  if (clients.length === 1) {
    show(clients[0]);
    return;
  }
  found.replaceChildren();
  if (clients.length === 0) return;
  const table = element("table");
  table.setAttribute("aria-labelledby", "find-title");
  found.append(element("div", { className: "table" }, table));
  clientTable(table, "").update(clients);
}

// clientTable makes a table of clients.
export function clientTable(table, empty, note) {
  return new Table(table, {
    key: (c) => c.id, empty, note,
    columns: [
      { label: "Client", name: true, cell: link((c) => c.id, openClient) },
      { label: "User", cell: text((c) => c.user || "–") },
      { label: "Address", cell: text((c) => c.address || "–") },
      { label: "Queued", cell: number((c) => c.queued_bytes, bytes, (c) => c.blocked) },
      { label: "Round trip", cell: number((c) => c.round_trip_ms, (ms) => (ms ? milliseconds(ms) : "–")) },
    ],
  });
}

function show(client) {
  const heading = element("h3", { textContent: client.id, tabIndex: -1 });
  const button = element("button", { type: "button", className: "quiet-danger", textContent: "Close…", hidden: !mayClose });
  button.addEventListener("click", () => askToClose(client.id));
  const list = element("dl", { className: "facts" });
  const rooms = element("div", { className: "rooms-of" });
  const metadata = element("div", { className: "rooms-of" });
  const article = element("article", {}, element("div", { className: "heading" }, heading, button), list, rooms, metadata);
  $("found").replaceChildren(article);
  shown = { id: client.id, heading, button, list, rooms, metadata };
  fill(client);
}

function fill(c) {
  const compression = c.compression ? `permessage-deflate${c.context_takeover ? ", context takeover" : ""}` : "none";
  facts(shown.list, [
    { label: "User", value: c.user || "–" },
    { label: "Address", value: c.address || "–" },
    { label: "Connected", value: `${age(Date.now() - c.connected_at)} ago`, title: new Date(c.connected_at).toString() },
    { label: "Round trip", value: c.round_trip_ms ? milliseconds(c.round_trip_ms) : "not measured yet" },
    { label: "Queued", value: bytes(c.queued_bytes), unit: ` in ${integer(c.queued_messages)} messages`, alarm: c.blocked },
    { label: "Socket", value: c.closing ? "closing" : c.blocked ? "full" : "takes bytes", alarm: c.blocked },
    { label: "Waiting for a handler", value: integer(c.unhandled) },
    { label: "Event loop", value: integer(c.loop) },
    { label: "Path", value: c.path || "HandleUpgrade" },
    { label: "TLS", value: c.tls ? "yes" : "no" },
    { label: "Subprotocol", value: c.subprotocol || "none" },
    { label: "Compression", value: compression },
  ]);
  const ids = c.room_ids.join("\n");
  if (shown.ids !== ids) {
    shown.ids = ids;
    const more = c.rooms > c.room_ids.length ? `, the first ${c.room_ids.length} of them:` : "";
    shown.rooms.replaceChildren(
      element("b", { textContent: `Rooms: ${integer(c.rooms)}${more}` }),
      element("ul", { className: "chips", ...(c.room_ids.length > 20 && { tabIndex: 0, ariaLabel: "Rooms" }) },
        ...c.room_ids.map((id) => element("li", { textContent: id }))),
    );
  }
  if (c.metadata !== undefined) {
    const value = JSON.stringify(c.metadata, null, 2);
    if (shown.value !== value) {
      shown.value = value;
      shown.metadata.replaceChildren(element("b", { textContent: "Metadata" }), element("pre", { textContent: value, tabIndex: 0 }));
    }
  }
}

// refresh shows the present figures of the client that is shown.
export async function refresh() {
  if (!shown) return;
  const { id } = shown;
  const { clients } = await get("client", { id });
  if (shown?.id !== id) return;
  if (clients.length) {
    fill(clients[0]);
  } else {
    shown.button.hidden = true;
    setText($("find-result"), "This client has disconnected. These are its last figures.");
  }
}

function askToClose(id) {
  setText($("close-id"), id);
  setText($("close-error"), "");
  $("close").showModal();
  $("close-cancel").focus();
}

async function closeClient() {
  try {
    await post("close", {
      id: $("close-id").textContent, code: Number($("close-code").value), reason: $("close-reason").value,
    });
    $("close").close();
    shown?.heading.focus(); // the button will be gone
    setText($("find-result"), "The close frame is on its way.");
  } catch (error) {
    setText($("close-error"), error.message);
  }
}
