// The page of writing a demonstration: keeps what is written, counts and previews it, asks for a suggestion, submits it
// once. Without this script the form is sent as it stands.
import { openDraft } from "./drafts.js";
import { openMemory, openOutbox } from "./memory.js";
import { tell, tellState, say } from "./notices.js";
import { call, isAccepted, isAway, isSignedOut, openSender } from "./server.js";
import { nameChord, openLook, openTimer } from "./writing.js";

const form = document.querySelector("#writing");
const problem = document.querySelector("#problem");
const banner = document.querySelector("#banner");

if (form) start();

function start() {
  const { writing, task, slug, account } = form.dataset;
  const next = `/projects/${slug}/work`;
  const api = `/api/v1/writings/${writing}`;
  const memory = openMemory(account);
  const outbox = openOutbox(memory, `written.${slug}`);
  const server = JSON.parse(form.dataset.draft);
  // After a refused submit without a script, the form holds more than the server's draft does.
  const isRefused = !problem.hidden;
  const timer = openTimer(server.active_s ?? 0);
  const look = openLook(document.querySelector("#look"), `${api}/look`);
  const saved = document.querySelector("#saved");
  const draft = openDraft({
    path: `${api}/draft`,
    key: `writing.${writing}`,
    revision: Number(form.dataset.revision),
    content: server,
    memory,
    on: {
      newer: takeNewer,
      ended,
      state: (answer) => tellState(answer, queued()),
      saved: () => (saved.textContent = "Saved"),
      isSent,
    },
  });

  // ---------------------------------------------------------------- the fields

  const field = (name) => form.querySelector(`[name="${name}"]`);
  const all = (name) => [...form.querySelectorAll(`#parts [name="${name}"]`)];

  function read() {
    const content = { active_s: timer.now() };
    for (const name of ["prompt", "answer", "instruction", "use_case", "suggestion_id"]) {
      if (field(name)?.value) content[name] = field(name).value;
    }
    if (task === "few_shot") {
      const responses = all("response");
      content.pairs = all("query").map((query, place) => ({ query: query.value, response: responses[place].value }));
    }
    if (task === "both_sides") content.turns = all("turn").map((turn) => turn.value);
    return content;
  }

  function fill(content) {
    for (const name of ["prompt", "answer", "instruction", "use_case", "suggestion_id"]) {
      if (field(name)) field(name).value = content[name] ?? "";
    }
    const pairs = content.pairs ?? [];
    const turns = content.turns ?? [];
    while (all("query").length + all("turn").length < pairs.length + turns.length) addParts();
    all("query").forEach((query, place) => (query.value = pairs[place]?.query ?? ""));
    all("response").forEach((response, place) => (response.value = pairs[place]?.response ?? ""));
    all("turn").forEach((turn, place) => (turn.value = turns[place] ?? ""));
    tellUse();
    look(content);
  }

  function addParts() {
    const parts = document.querySelector("#parts");
    const added = document.querySelector("#part").content.cloneNode(true);
    parts.append(added);
    parts.querySelectorAll(".number").forEach((number, place) => (number.textContent = place + 1));
  }

  function tellUse() {
    const hint = document.querySelector("#suggestion-used");
    if (hint) hint.hidden = !field("suggestion_id").value;
  }

  function changed() {
    const content = read();
    saved.textContent = "";
    draft.change(content);
    look(content);
  }

  function takeNewer(content, mine) {
    fill(content);
    tell("This was changed in another tab or on another machine; you see its newest state.");
    const back = document.createElement("button");
    back.type = "button";
    back.className = "small";
    back.textContent = "Bring back what I wrote here";
    back.addEventListener("click", () => {
      fill(mine);
      draft.change(mine);
      banner.hidden = true;
    });
    banner.append(" ", back);
  }

  function ended() {
    draft.close();
    location.assign(next);
  }

  // ---------------------------------------------------------------- submitting

  const queued = () => (outbox.all().length ? "What you submitted waits to be sent." : "");
  function isSent() {
    return outbox.all().some((item) => item.writing === writing);
  }

  const send = openSender(outbox, onAnswer, () => {
    tellState(null);
    if (form.inert) ended(); // what became of it, the next page shows
  });

  function onAnswer(answer, item) {
    if (isAway(answer) || isSignedOut(answer)) {
      tellState(answer, queued());
      return;
    }
    tellState(null);
    if (item.writing !== writing) return;
    if (isAccepted(answer) || answer.data?.code === "writing_ended") ended();
    else refuse(answer.data?.detail ?? "This was refused; what you wrote is kept.");
  }

  function submit() {
    if (isSent()) return;
    problem.hidden = true;
    draft.change(read());
    const id = field("submission_id").value;
    outbox.add({ id, writing, path: `${api}/demonstration`, form: { submission_id: id, content: read() } });
    wait();
    send();
  }

  function wait() {
    form.inert = true;
    say("Submitted.");
  }

  function refuse(words) {
    form.inert = false;
    problem.textContent = words;
    problem.hidden = false;
    problem.scrollIntoView({ block: "nearest" });
  }

  async function skip() {
    const answer = await call("POST", `${api}/skip`, { reason: field("reason").value });
    if (isAccepted(answer) || answer.data?.code === "writing_ended") ended();
    else refuse(isAway(answer) ? "The server cannot be reached; try again in a moment." : answer.data?.detail);
  }

  // ---------------------------------------------------------------- suggestions

  const card = document.querySelector("#suggestion");
  let suggestion = null;

  async function suggest() {
    card.hidden = false;
    suggestion = null;
    drawSuggestion("The policy is writing…", "");
    const answer = await call("POST", `${api}/suggestions`, { content: read() });
    if (answer.status !== 202) {
      drawSuggestion(isAway(answer) ? "The server cannot be reached." : answer.data?.detail, "");
      return;
    }
    poll(answer.data.id);
  }

  async function poll(id) {
    const answer = await fetch(`${api}/suggestions/${id}`).catch(() => null);
    const state = answer?.ok ? await answer.json() : { text: null, problem: null };
    if (state.problem) drawSuggestion(state.problem, "");
    else if (state.text !== null) {
      suggestion = { id, text: state.text };
      drawSuggestion("A suggestion of the policy. It may be wrong; change what you do not mean.", state.text);
    } else setTimeout(() => poll(id), 500);
  }

  function drawSuggestion(words, text) {
    card.querySelector("[role=status]").textContent = words;
    card.querySelector(".suggested").textContent = text;
    card.querySelector("[data-do=use]").hidden = !text.trim();
  }

  function useSuggestion() {
    const place = placeOfAnswer();
    place.value = place.value.trim() ? `${place.value}\n${suggestion.text}` : suggestion.text;
    field("suggestion_id").value = suggestion.id;
    card.hidden = true;
    tellUse();
    changed();
    place.focus();
  }

  /** Where the answer to the prompt so far belongs. */
  function placeOfAnswer() {
    if (field("answer")) return field("answer");
    const asked = all(task === "few_shot" ? "query" : "turn");
    const last = asked.findLastIndex((part, place) => part.value.trim() && (task === "few_shot" || place % 2 === 0));
    return task === "few_shot" ? all("response")[Math.max(0, last)] : (asked[Math.max(0, last) + 1] ?? asked.at(-1));
  }

  // ---------------------------------------------------------------- and go

  const DO = { more: addParts, suggest, use: useSuggestion };
  form.addEventListener("input", changed);
  form.addEventListener("click", (event) => DO[event.target.closest("[data-do]")?.dataset.do]?.());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopImmediatePropagation(); // base.js would take the buttons away
    if (event.submitter?.value === "skip") skip();
    else submit();
  });
  form.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.key !== "Enter" || event.repeat) return;
    event.preventDefault();
    submit();
  });
  window.addEventListener("online", send);
  nameChord(form);
  if (isRefused) draft.change(read());
  else if (draft.isDirty) fill(draft.content);
  if (isSent()) wait();
  send();
}
document.documentElement.dataset.ready = "write"; // for tests: handlers are in place
