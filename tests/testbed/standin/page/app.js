"use strict";

const KEPT = 100; // items in the list
const element = (id) => document.getElementById(id);
const seen = new Set();
let retry = 500; // milliseconds

function show(item, isNew) {
  if (seen.has(item.id)) return;
  seen.add(item.id);
  const row = document.createElement("li");
  const time = new Date(item.created_at);
  for (const [kind, text] of [["number", `#${item.id}`], ["text", item.body], ["writer", item.written_by]]) {
    const cell = document.createElement("span");
    cell.className = kind;
    cell.textContent = text;
    row.append(cell);
  }
  const when = document.createElement("time");
  when.dateTime = time.toISOString();
  when.textContent = time.toLocaleTimeString([], { hour12: false });
  row.append(when);
  if (isNew) row.className = "new";
  const feed = element("feed");
  feed.prepend(row);
  while (feed.children.length > KEPT) feed.lastElementChild.remove();
  element("count").textContent = seen.size;
  element("empty").hidden = true;
}

function state(name, text) {
  element("state").dataset.state = name;
  element("state-text").textContent = text;
}

function problem(text) {
  element("problem").hidden = !text;
  element("problem").textContent = text;
}

async function load() {
  const response = await fetch("api/v1/items?limit=50");
  if (!response.ok) throw new Error(`The items could not be loaded (${response.status}).`);
  (await response.json()).reverse().forEach((item) => show(item, false));
}

function identify(message) {
  for (const key of ["version", "slot", "host"]) element(key).textContent = message[key] || "none";
  element("slot").dataset.slot = message.slot;
}

function connect() {
  const address = new URL("realtime", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === "connected") {
      retry = 500;
      identify(message);
      state("open", "live");
      load().then(() => problem(""), (error) => problem(error.message));
    }
    if (message.type === "broadcast") show(message.record, true);
  };
  socket.onclose = () => {
    state("closed", "reconnecting");
    setTimeout(connect, retry);
    retry = Math.min(retry * 2, 5000);
  };
}

element("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = element("body");
  const button = event.target.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch("api/v1/items", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ body: field.value }),
    });
    if (!response.ok) throw new Error(`The item was not stored (${response.status}).`);
    show(await response.json(), true);
    field.value = "";
    problem("");
  } catch (error) {
    problem(error.message);
  } finally {
    button.disabled = false;
    field.focus();
  }
});

connect();
