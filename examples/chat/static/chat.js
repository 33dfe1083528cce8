import { Socket } from "./socket.js";

const MAX_LINES = 500; // older ones leave the page
const GRACE = 10_000; // ms; who comes back within it only reconnected, which is no news
const SPARK_POINTS = 60;

const $ = (id) => document.getElementById(id);
const params = new URLSearchParams(location.search);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

const config = await fetch("config.json").then((r) => r.json()).catch(() => ({}));
// A page from https may open no ws:, and behind a proxy the native port may not be open at all.
const nativePort = location.protocol === "http:" ? config.native_port : "";
const me = {
  id: "",
  name: params.get("name") ?? localStorage.getItem("name") ?? "",
  room: params.get("room") ?? "lobby",
  path: params.get("path") === "native" && nativePort ? "native" : "http",
  wants: sessionStorage.getItem("joined") === "yes", // to be in the room; a reload stays in
};
let present = null; // names in the room, null before its first presence
const leaving = new Map(); // name -> timer that will say so
let retryAt = 0;
let unread = 0;
let atEnd = true; // the log is scrolled to its end, and stays there
const rates = Array(SPARK_POINTS).fill(0);

const socket = new Socket({ url, onOpen, onNotify, onState });

// --- The connection.

function url() {
  const u = new URL("/ws", location.href);
  u.protocol = u.protocol.replace("http", "ws");
  if (me.path === "native") u.port = nativePort;
  u.search = "";
  return u;
}

function onOpen() {
  if (me.wants) join();
}

function onState(s) {
  $("app").dataset.state = s.state;
  $("state").textContent = { connecting: "Connecting…", open: "Connected", waiting: "Offline" }[s.state];
  $("send").disabled = s.state !== "open";
  if (s.state === "open") $("banner").hidden = true;
  retryAt = s.retryAt ?? 0;
  if (s.state === "waiting") $("banner").hidden = false;
  showRetry();
}

function showRetry() {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  $("banner-text").textContent = seconds ? `Connection lost. Back in ${seconds} s…` : "Connection lost. Trying again…";
}

function onNotify(event, data) {
  switch (event) {
    case "chat.message": showMessage(data); break;
    case "presence": showPresence(data); break;
    case "stats": showStats(data); break;
  }
}

// --- Joining and leaving.

async function join() {
  const again = $("app").dataset.view === "chat";
  $("join").disabled = true;
  try {
    const { id } = await socket.request("chat.join", { name: me.name, room: me.room });
    me.id = id;
    remember();
    if (!again) {
      forgetPresent();
      $("log").replaceChildren();
      showView("chat");
      addLine("You joined #", element("bdi", "", me.room));
    }
  } catch (error) {
    if (error.code === 0 || error.code >= 1000) return; // Not connected, or no longer: onOpen joins.
    if (error.code === 408) return socket.giveUp();
    me.wants = false;
    showView("join");
    $("join-error").textContent = error.message;
  } finally {
    $("join").disabled = false;
  }
}

function leave() {
  me.wants = false;
  sessionStorage.removeItem("joined");
  socket.request("chat.leave").catch(() => {}); // If the connection is gone, so is the membership.
  forgetPresent();
  showView("join");
}

function remember() {
  sessionStorage.setItem("joined", "yes");
  localStorage.setItem("name", me.name);
  params.set("room", me.room);
  if (params.has("name")) params.set("name", me.name);
  history.replaceState(null, "", `?${params}`);
}

function showView(view) {
  $("app").dataset.view = view;
  $("title").textContent = view === "chat" ? `#${me.room}` : "Chat";
  $("join-error").textContent = $("send-error").textContent = "";
  setUnread(0);
  (view === "chat" ? $("text") : $(me.name ? "room" : "name")).focus();
}

// --- The conversation. Text from others reaches the page through textContent only.

function element(tag, className, text) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (text) {
    e.textContent = text;
    e.dir = "auto"; // by its first letter; a name of another direction does not turn the line around
  }
  return e;
}

function avatar(name) {
  const e = element("span", "avatar", [...name][0].toUpperCase());
  e.style.setProperty("--hue", hue(name));
  e.setAttribute("aria-hidden", "true");
  return e;
}

function hue(name) {
  let h = 0;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) % 360;
  return h;
}

function showMessage({ id, name, text }) {
  const mine = id === me.id;
  const time = clock.format(new Date());
  const key = `${id} ${time}`;
  const message = element("div", "message");
  message.dataset.key = key;
  message.classList.toggle("mine", mine);
  message.classList.toggle("follows", $("log").lastElementChild?.dataset.key === key);
  message.style.setProperty("--hue", hue(name));
  const by = element("span", "by");
  by.append(element("b", "", name), element("time", "", time));
  message.append(avatar(name), by, element("span", "text", text));
  append(message, mine);
  if (!mine && document.hidden) setUnread(unread + 1);
}

function addLine(...parts) {
  const line = element("div", "line");
  line.append(...parts);
  append(line, false);
}

function append(node, follow) {
  $("log").append(node);
  while ($("log").childElementCount > MAX_LINES) $("log").firstElementChild.remove();
  if (atEnd || follow) scrollToEnd();
  else $("newer").hidden = false;
}

function scrollToEnd() {
  $("log").scrollTop = $("log").scrollHeight;
}

function showPresence({ room, count, members: list }) {
  if (room !== me.room) return;
  const complete = count === list.length; // a big room names only some
  if (complete) tellChanges(new Set(list.map((m) => m.name)));
  else forgetPresent();
  $("count").textContent = number.format(count);
  $("members").replaceChildren(...list.map(({ id, name }) => {
    const li = element("li");
    li.append(avatar(name), element("span", "", name));
    if (id === me.id) li.append(element("span", "you", "you"));
    return li;
  }));
  if (!complete) $("members").append(element("li", "you", `and ${number.format(count - list.length)} more`));
}

function tellChanges(now) {
  for (const name of now) {
    if (leaving.has(name)) {
      clearTimeout(leaving.get(name));
      leaving.delete(name);
    } else if (present && !present.has(name)) {
      addLine(element("bdi", "", name), " joined");
    }
  }
  for (const name of present ?? []) {
    if (now.has(name) || leaving.has(name)) continue;
    leaving.set(name, setTimeout(() => {
      leaving.delete(name);
      addLine(element("bdi", "", name), " left");
    }, GRACE));
  }
  present = now;
}

function forgetPresent() {
  present = null;
  for (const timer of leaving.values()) clearTimeout(timer);
  leaving.clear();
}

function showStats({ connections, messages_per_second: rate }) {
  $("connections").textContent = number.format(connections);
  $("rate").textContent = number.format(rate);
  rates.push(rate);
  rates.shift();
  const top = Math.max(1, ...rates);
  $("spark").setAttribute("points", rates.map((r, i) => `${i},${19 - (18 * r) / top}`).join(" "));
}

function setUnread(n) {
  unread = n;
  const title = $("title").textContent;
  document.title = n ? `(${n}) ${title}` : title;
}

async function send() {
  const box = $("text");
  const text = box.value.trim();
  if (!text || $("send").disabled) return;
  box.value = "";
  $("send-error").textContent = "";
  try {
    await socket.request("chat.send", { text });
  } catch (error) {
    if (!box.value) box.value = text;
    $("send-error").textContent = `Not sent. ${error.message}.`;
  }
}

// --- What the user does.

$("join-form").onsubmit = (e) => {
  e.preventDefault();
  me.name = $("name").value.trim();
  me.room = $("room").value.trim().replace(/^#+/, "");
  me.wants = true;
  $("join-error").textContent = "";
  if ($("app").dataset.state === "open") join();
  else $("join-error").textContent = "Not connected yet. You join as soon as the server answers.";
};
$("send-form").onsubmit = (e) => {
  e.preventDefault();
  send();
};
$("text").onkeydown = (e) => {
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  send();
};
$("path").onchange = (e) => {
  me.path = e.target.value;
  params.set("path", me.path);
  history.replaceState(null, "", `?${params}`);
  socket.reconnect();
};
$("leave").onclick = leave;
$("retry").onclick = () => socket.reconnect();
$("newer").onclick = scrollToEnd;
$("log").onscroll = ({ target: log }) => {
  atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  if (atEnd) $("newer").hidden = true;
};
new ResizeObserver(() => { if (atEnd) scrollToEnd(); }).observe($("log"));
document.onvisibilitychange = () => setUnread(0);
setInterval(showRetry, 500);

$("name").value = me.name;
$("room").value = me.room;
$("join-fields").disabled = false; // until here nobody listened to the form
for (const radio of $("path").querySelectorAll("input")) {
  radio.checked = radio.value === me.path;
  radio.disabled = radio.value === "native" && !nativePort;
}
showView("join");
socket.reconnect();
