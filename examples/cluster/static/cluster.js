// The page of the example: a chat on one node, and the state of all nodes.
const $ = (id) => document.getElementById(id);
const names = ["Ada", "Bo", "Cleo", "Dov", "Ena", "Finn", "Gus", "Hana"];
const name = names[Math.floor(Math.random() * names.length)] + Math.floor(Math.random() * 100);
let socket, node, room, requests = 0;
const waiting = new Map(); // request ID to the function that takes the response

function note(text) {
  const li = document.createElement("li");
  li.className = "note";
  li.textContent = text;
  show(li);
}

function show(li) {
  $("messages").append(li);
  while ($("messages").childElementCount > 500) $("messages").firstElementChild.remove();
  li.scrollIntoView({ block: "nearest" });
}

function request(event, data) {
  return new Promise((resolve, reject) => {
    const id = String(++requests);
    waiting.set(id, (m) => (m.code === 200 ? resolve(m.data) : reject(new Error(m.message))));
    socket.send(JSON.stringify({ type: "request", event, request_id: id, data }));
  });
}

async function join(next) {
  if (room) await request("ws.leave", { room });
  room = next;
  await request("ws.join", { room });
  note(`You are in ${room}.`);
}

function receive(m) {
  if (m.request_id) { // a response or an error
    waiting.get(m.request_id)?.(m);
    waiting.delete(m.request_id);
  } else if (m.event === "said") {
    const li = document.createElement("li");
    const origin = document.createElement("small");
    origin.textContent = ` by ${m.data.node}`;
    li.append(`${m.data.from}: ${m.data.text}`, origin);
    show(li);
  } else if (m.event === "ws.gap") {
    note("Messages may be missing here.");
  }
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.onmessage = (e) => receive(JSON.parse(e.data));
  socket.onopen = async () => {
    room = undefined;
    ({ node } = await request("hello", { name }));
    $("state").textContent = `${name}, on ${node}`;
    await join($("room").value);
  };
  socket.onclose = () => {
    node = undefined;
    waiting.clear();
    $("state").textContent = "Connecting…";
    setTimeout(connect, 500 + Math.random() * 1000);
  };
}

function button(text, path) {
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = text;
  b.onclick = () => fetch(path, { method: "POST" }).then(refresh);
  return b;
}

function row(list, term, text) {
  const dt = document.createElement("dt");
  const dd = document.createElement("dd");
  dt.textContent = term;
  dd.textContent = text || "–";
  list.append(dt, dd);
}

function nodeCard(n, i) {
  const card = document.createElement("article");
  card.className = n?.name === node ? "node here" : "node";
  const title = document.createElement("h3");
  title.append(n ? n.name : `node ${i + 1} is stopped`, button(n ? "Stop" : "Start", `nodes/${i}/${n ? "stop" : "start"}`));
  card.append(title);
  if (!n) return card;
  const list = document.createElement("dl");
  row(list, "members", Object.entries(n.rooms).map(([r, m]) => `${r}: ${m.join(", ")}`).join("; "));
  row(list, "link to NATS", n.link ? "up" : "down");
  row(list, "subscribed to", (n.topics ?? []).join(", "));
  row(list, "received", Object.entries(n.received).map(([t, c]) => `${t}: ${c}`).join("; "));
  card.append(list);
  return card;
}

async function refresh() {
  try {
    const s = await (await fetch("state")).json();
    $("nodes").replaceChildren(...s.nodes.map(nodeCard));
    $("broker").textContent = s.broker ? "NATS is running" : "NATS is stopped";
    $("switch-broker").textContent = s.broker ? "Stop" : "Start";
    $("switch-broker").onclick = () => fetch(`broker/${s.broker ? "stop" : "start"}`, { method: "POST" }).then(refresh);
  } catch {
    // The program has ended, or starts again.
  }
}

$("form").onsubmit = (e) => {
  e.preventDefault();
  const text = $("text").value;
  if (!text || !room) return;
  request("say", { room, text }).then(() => ($("text").value = ""), (err) => note(`Not sent: ${err.message}`));
};
$("room").onchange = () => join($("room").value).catch((err) => note(err.message));
connect();
refresh();
setInterval(refresh, 500);
