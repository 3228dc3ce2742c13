// Keeps [data-live] up to date: the server says "changed", the page asks for its part anew. All state lies in the
// database, so a connection that breaks and comes back shows everything that happened meanwhile.
import { localTimes } from "./base.js";
import { morph } from "./morph.js";

const part = document.querySelector("[data-live]");
const status = document.getElementById("live-status");
const connection = document.getElementById("live-connection");
let running = false;
let again = false;

async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  try {
    const response = await fetch(`${part.dataset.live}/live`, { headers: { Accept: "text/html" } });
    if (response.ok && !response.redirected) await replace(await response.text());
    else if (response.status < 500) location.reload(); // signed out, or no member any more: the page says so
  } catch {
    // The connection's own banner tells; the next "changed" asks again.
  }
  running = false;
  if (again) {
    again = false;
    refresh();
  }
}

async function replace(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  keepDetails(fresh.content);
  // Pictures are fetched before they are shown, so that a chart never blinks.
  const shown = new Set([...part.querySelectorAll("details[open] img")].map((image) => image.getAttribute("src")));
  const waiting = [...fresh.content.querySelectorAll("details[open] img")].filter((image) => !shown.has(image.getAttribute("src")));
  await Promise.race([
    Promise.allSettled(waiting.map((image) => Object.assign(new Image(), { src: image.getAttribute("src") }).decode())),
    new Promise((resolve) => setTimeout(resolve, 2000)),
  ]);
  if (part.contains(document.activeElement) && document.activeElement.closest("form")) {
    again = true; // never take a button away from under a finger
    await new Promise((resolve) => document.activeElement.addEventListener("blur", resolve, { once: true }));
    return;
  }
  keepDetails(fresh.content); // again: while the pictures came, something may have been opened or shut
  const before = says();
  localTimes(fresh.content);
  morph(part, fresh.content);
  if (says() !== before) status.textContent = says();
}

const says = () => part.querySelector("[data-says]")?.dataset.says ?? "";

// What the person opened or shut stays so; the rest is as the server says: a stage that begins shows its charts.
const chosen = new Map();
part.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.parentElement;
  if (details?.id) chosen.set(details.id, !details.open);
});

function keepDetails(fresh) {
  for (const [id, open] of chosen) {
    const details = fresh.querySelector(`#${CSS.escape(id)}`);
    if (details) details.open = open;
  }
}

// Submits notify nobody: that would make every labeler's commit wait for the others'. Their counts are asked for.
if (part.dataset.liveEvery) {
  setInterval(() => document.visibilityState === "visible" && refresh(), 1000 * part.dataset.liveEvery);
}

let events;

function listen() {
  events?.close();
  events = new EventSource(`${part.dataset.live}/events`);
  events.addEventListener("changed", refresh); // at once too: what happened before this connection is not lost
  events.addEventListener("open", () => (connection.hidden = true));
  events.addEventListener("error", () => {
    connection.textContent = "The connection is gone; this page shows the last known state and goes on by itself when the server is back.";
    connection.hidden = false;
    if (events.readyState === EventSource.CLOSED) setTimeout(listenAgain, 3000); // a proxy answered for a server that is away
  });
}

function listenAgain() {
  refresh(); // signed out meanwhile: the page says so
  listen();
}

listen();

// A laptop that was shut wakes with a connection that nobody has told it is dead.
window.addEventListener("online", listenAgain);
let hiddenAt = 0;
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "hidden") hiddenAt = Date.now();
  else if (hiddenAt && Date.now() - hiddenAt > 60_000) listenAgain();
});
