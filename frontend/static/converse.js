// The page of a conversation: keeps what is composed and chosen, shows replies as they are finished, and sends each turn
// and each choice once. The server draws the conversation; without this script its forms are sent as they stand.
import { openDraft } from "./drafts.js";
import { openMemory, openOutbox } from "./memory.js";
import { forgetNews, say, tell, tellState } from "./notices.js";
import { isAccepted, isAway, isSignedOut, openSender } from "./server.js";
import { nameChord, openTimer } from "./writing.js";

const place = document.querySelector("#conversation");
const problem = document.querySelector("#problem");
const { writing, slug, account } = place.dataset;
const root = `/projects/${slug}/conversations/${writing}`;
const memory = openMemory(account);
const outbox = openOutbox(memory, `conversation.${slug}`);
const LOOK_EVERY_MS = 10_000; // while replies are awaited and nobody calls

let draft = null;
let timer = openTimer(0);
let events = null;

const shown = () => place.querySelector(".conversation");
const state = () => shown().dataset.state;
const queued = () => (outbox.all().length ? "What you said waits to be sent." : "");

// ---------------------------------------------------------------- what is written and chosen so far

const fields = (name) => [...place.querySelectorAll(`[name="${name}"]`)];
const words = (name) => fields(name)[0]?.value ?? "";

function ranks() {
  const chosen = place.querySelectorAll("[name^='rank:']:checked");
  return Object.fromEntries([...chosen].map((radio) => [radio.name.slice("rank:".length), Number(radio.value)]));
}

const chosen = () => place.querySelector("[name=chosen]:checked")?.value ?? null;

function read() {
  const content = { prompt: words("text"), answer: words("edited"), ranks: ranks(), active_s: timer.now() };
  if (chosen()) content.chosen = chosen();
  if (words("strength")) content.strength = words("strength");
  return content;
}

function fill(content) {
  for (const [name, text] of [["text", content.prompt], ["edited", content.answer], ["strength", content.strength]]) {
    for (const field of fields(name)) field.value = text ?? "";
  }
  for (const radio of place.querySelectorAll("[type=radio]")) {
    const rank = content.ranks?.[radio.name.slice("rank:".length)];
    radio.checked = radio.name === "chosen" ? radio.value === content.chosen : radio.value === String(rank);
  }
}

function tellSaved(said) {
  const saved = place.querySelector(".saved"); // while replies are awaited there is none
  if (saved) saved.textContent = said;
}

function keep() {
  draft?.stop();
  draft = openDraft({
    path: `/api/v1/writings/${writing}/draft`,
    key: `writing.${writing}`,
    revision: Number(shown().dataset.revision),
    content: JSON.parse(shown().dataset.draft),
    memory,
    on: {
      newer: () => {
        tell("This conversation went on in another tab or on another machine; you see its newest state.");
        refresh();
      },
      ended: () => location.assign(`/projects/${slug}/work`),
      state: (answer) => tellState(answer, queued()),
      saved: () => tellSaved("Saved"),
      isSent: () => outbox.all().length > 0,
    },
  });
  if (draft.isDirty) fill(draft.content);
}

// ---------------------------------------------------------------- the server

async function refresh() {
  const answer = await fetch(`${root}/live`).catch(() => null);
  if (!answer?.ok || answer.redirected) return;
  const before = { state: state(), turn: shown().dataset.turn, arrived: arrived() };
  const html = await answer.text();
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  place.replaceChildren(fresh.content);
  draw();
  if (state() === "ready" && before.state !== "ready") say("All replies are there; choose one.");
  else if (arrived() !== before.arrived) say(`${arrived()} replies are there.`);
  if (before.state !== state() && state() === "composing") words("text") || fields("text")[0]?.focus();
}

const arrived = () => place.querySelectorAll(".reply:not(.is-waiting)").length;

/** Bring handlers and the draft to what the server has drawn. */
function draw() {
  if (shown().dataset.ended === "true") {
    location.assign(`/projects/${slug}/work`);
    return;
  }
  nameChord(place);
  keep();
  listen();
  for (const form of place.querySelectorAll("form")) form.inert = outbox.all().length > 0;
}

function listen() {
  if (state() === "waiting" && !events) {
    events = new EventSource(`${root}/events`);
    events.addEventListener("changed", () => state() === "waiting" && refresh());
  } else if (state() !== "waiting" && events) {
    events.close();
    events = null;
  }
}

const send = openSender(outbox, onAnswer, () => {
  tellState(null);
  refresh(); // another tab has sent it: this one shows what became of it
});

async function onAnswer(answer, item) {
  tellState(answer, queued());
  if (isAway(answer) || isSignedOut(answer)) return;
  if (!isAccepted(answer)) {
    problem.textContent = answer.data?.detail ?? "This was refused; what you wrote is kept.";
    problem.hidden = false;
    for (const form of place.querySelectorAll("form")) form.inert = false;
    if (["turn_is_open", "turn_is_closed", "already_ranked"].includes(answer.data?.code)) refresh();
    return;
  }
  draft.close();
  if (item.isEnd) location.assign(`/projects/${slug}/work`);
  else await refresh();
  timer = openTimer(0);
}

function submit(form) {
  const { action, path } = wish(form);
  problem.hidden = true;
  forgetNews();
  outbox.add({ id: form.elements.id.value, path, form: action, isEnd: form.dataset.do === "end" });
  for (const other of place.querySelectorAll("form")) other.inert = true;
  send();
}

/** What the form asks of the API. */
function wish(form) {
  const id = form.elements.id.value;
  const turn = `/api/v1/turns/${shown().dataset.turn}`;
  switch (form.dataset.do) {
    case "ask":
      return {
        path: `/api/v1/projects/${slug}/conversations/${writing}/turns`,
        action: { turn_id: id, text: words("text") },
      };
    case "choose":
      return {
        path: `${turn}/choice`,
        action: {
          ranking_id: id,
          chosen: chosen(),
          ranks: ranks(),
          strength: words("strength") || null,
          edited: words("edited"),
          active_s: timer.now(),
        },
      };
    case "withdraw":
      return { path: `${turn}/withdrawal`, action: {} };
    default:
      return { path: `/api/v1/conversations/${writing}/end`, action: {} };
  }
}

// ---------------------------------------------------------------- and go

place.addEventListener("input", (event) => {
  // The first rank 1 is what one goes on with, until one says otherwise.
  if (event.target.name?.startsWith("rank:") && event.target.value === "1" && !chosen()) {
    place.querySelector(`[name=chosen][value="${event.target.name.slice("rank:".length)}"]`).checked = true;
  }
  tellSaved("");
  draft.change(read());
});
place.addEventListener("click", (event) => {
  if (event.target.closest("[data-act=edit]") && chosen()) {
    const reply = place.querySelector(`[name=chosen][value="${chosen()}"]`).closest(".reply");
    fields("edited")[0].value = reply.querySelector("[data-text]").dataset.text;
    draft.change(read());
    fields("edited")[0].focus();
  }
});
place.addEventListener("submit", (event) => {
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.target.dataset.do === "choose" && !chosen()) {
    problem.textContent = "Choose the reply to go on with first.";
    problem.hidden = false;
    return;
  }
  submit(event.target);
});
place.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key !== "Enter" || event.repeat) return;
  event.preventDefault();
  event.target.closest("form")?.requestSubmit();
});
window.addEventListener("online", send);
setInterval(() => state() === "waiting" && !document.hidden && refresh(), LOOK_EVERY_MS);
draw();
send();
document.documentElement.dataset.ready = "converse"; // for tests: handlers are in place
