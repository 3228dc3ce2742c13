// Keeps [data-live] up to date: the server says "changed", the page asks for its part anew. All state lies in the
// database, so a connection that breaks and comes back shows everything that happened meanwhile.
import { localTimes } from "./base.js";
import { morph } from "./morph.js";

const part = document.querySelector("[data-live]");
const status = document.getElementById("live-status");
const connection = document.getElementById("live-connection");
const RETRY_MS = 3000; // after an answer that did not come
const ANSWER_MS = 20_000;
const SILENCE_MS = 40_000; // the server says something every 15 s: after this the connection is dead, whatever it looks like
let running = false;
let again = false;
let later = 0;
let events;
let heardAt = 0; // by the clock and not by a timer: a laptop that sleeps stops timers and not time

async function refresh() {
  if (running) {
    again = true;
    return;
  }
  running = true;
  again = false;
  try {
    // A request that a sleeping laptop left behind would never end, and nothing would be asked for after it.
    const options = { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(ANSWER_MS) };
    const response = await fetch(`${part.dataset.live}/live`, options);
    if (response.ok && !response.redirected) await replace(await response.text());
    else if (response.status < 500) {
      location.reload(); // signed out, or no member any more: the page says so
      return; // and nothing is asked for any more: a second reload would throw away the first, which may take its time
    } else askLater();
  } catch {
    askLater();
  }
  running = false;
  if (again) refresh();
}

function askLater() {
  clearTimeout(later);
  later = setTimeout(refresh, RETRY_MS);
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

function connect() {
  events?.close();
  heardAt = Date.now();
  events = new EventSource(`${part.dataset.live}/events`);
  for (const kind of ["open", "changed", "alive"]) events.addEventListener(kind, heard);
  events.addEventListener("changed", refresh); // the first one comes at once: what happened before is asked for too
  events.addEventListener("error", lost);
}

function heard() {
  heardAt = Date.now();
  connection.hidden = true;
}

function lost() {
  connection.textContent = "The connection is gone; this page shows the last known state and goes on by itself when the server is back.";
  connection.hidden = false;
  if (events.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
  refresh(); // refused: whoever may not look any more is told so by the page
  setTimeout(connect, RETRY_MS);
}

function connectIfSilent() {
  if (Date.now() - heardAt > SILENCE_MS) connect();
}

// The laptop was opened, the network is back, the page came out of the browser's memory: look whether anything is heard.
setInterval(connectIfSilent, 5000);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  connectIfSilent();
  refresh();
});
addEventListener("online", connect);
addEventListener("pageshow", (event) => event.persisted && connect());

connect();
