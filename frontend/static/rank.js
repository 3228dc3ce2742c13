// The ranking page. The server draws every slate, the first and the ones sent ahead; this script keeps what the labeler
// says about the one in view, draws it into the slate's own form fields and board, and never loses it: each change goes
// to localStorage at once and to the server as a draft, each submit waits in an outbox until the server has acknowledged
// it. Nothing in here, or in what it is sent, tells who wrote a completion.
import { desk, memory, outbox, page, queued, slug } from "./desk.js";
import "./drag.js";
import { onChoice, stopDifferences, toggleDifferences } from "./differences.js";
import { draw, drawClock } from "./draw.js";
import { focusCard, listenToKeys } from "./keys.js";
import { nextLayout, placeGuidelines, toggleOrder, toggleTogether } from "./layout.js";
import { awaitLesson, hasNoLesson, learn, lookForLesson, wasRead } from "./lesson.js";
import { forgetNews, say, tell, tellState } from "./notices.js";
import { call, isAccepted, isAway, isSignedOut, newId, openSender } from "./server.js";
import { openSkipDialog } from "./skip.js";
import { adopt, cardOf, contentOf, draftKey, isComplete, isPlaced, letters, onField, travel } from "./slate.js";
import { fetchAhead, goToNextTask, openSupply, renew } from "./supply.js";

const screen_ = document.querySelector("#screen");
const waiting = document.querySelector("#waiting");

const IDLE_AFTER_MS = 60_000; // without a key or a pointer, time is not counted as work
// Whoever holds the chord down, or hits it twice, must not submit a slate they have not seen.
const DEAF_AFTER_SHOW_MS = 600;
const PATIENCE_MS = 2_000; // with a server that does not answer, before another task

// ---------------------------------------------------------------- the slate in view

function show(slate) {
  passTime();
  stopDifferences();
  desk.current = slate;
  desk.shownAt = performance.now();
  desk.hasShown = true;
  waiting.hidden = true;
  placeGuidelines(slate);
  if (!slate.form.isConnected) {
    screen_.replaceChildren(slate.form);
    window.scrollTo(0, 0);
    slate.here.focus({ preventScroll: true });
    say(`Next slate: ${slate.ids.length} completions.`);
  }
  draw();
}

/** Put the next slate into view: it is here already, so this is one repaint. Then send, then fetch one more. */
async function advance() {
  if (desk.untilAnother === 0 && (await leave())) return;
  const next = desk.ahead.shift();
  if (next) show(next);
  else {
    desk.current = null;
    screen_.replaceChildren();
    waiting.hidden = false;
  }
  await send();
  await fetchAhead();
}

/** To another task, once the server has what was submitted; false where it does not answer soon: then ranking goes on. */
async function leave() {
  if (desk.current) desk.current.form.inert = true;
  desk.current = null;
  desk.isLeaving = true;
  say("On to another task.");
  await Promise.race([send(), new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
  desk.isLeaving &&= !outbox.all().length; // refused, it is told here
  if (desk.isLeaving) goToNextTask();
  return desk.isLeaving;
}

function onGone(slate) {
  desk.ahead = desk.ahead.filter((other) => other !== slate);
  if (slate !== desk.current) return;
  tell("This slate was submitted or given back in another tab; here is the next one.");
  advance();
}

let countedUntil = performance.now(); // of a clock that no one can set
/** Count the time since the last call to the slate in view: as work, or as idle. */
function passTime() {
  const now = performance.now();
  const passedMs = now - countedUntil;
  countedUntil = now;
  if (!desk.current) return;
  const isActive = !document.hidden && now - desk.lastActivity < IDLE_AFTER_MS;
  const activeMs = isActive ? Math.min(passedMs, IDLE_AFTER_MS) : 0; // a machine that slept counts nothing twice
  desk.current.content.active_s += activeMs / 1000;
  desk.current.content.idle_s += (passedMs - activeMs) / 1000;
}

// ---------------------------------------------------------------- submit, skip, take back

function submit() {
  const slate = desk.current;
  if (!slate || performance.now() - desk.shownAt < DEAF_AFTER_SHOW_MS) return;
  if (desk.taught) {
    if (wasRead()) advance();
    return;
  }
  if (!isComplete(slate)) {
    tellMissing(slate);
    return;
  }
  passTime();
  const id = newId();
  const form = { ranking_id: id, ...slate.content };
  if (!slate.isPair) form.strength = null;
  forgetNews();
  outbox.add({ id, path: `/api/v1/leases/${slate.lease}/ranking`, lease: slate.lease, draft: slate.draft.state(), form });
  slate.draft.close();
  desk.numToday += 1;
  desk.numSubmitted += 1;
  if (desk.untilAnother > 0) desk.untilAnother -= 1;
  if (slate.teaches) {
    awaitLesson(slate, id);
    send();
  } else {
    memory.write(`last.${slug}`, id);
    advance();
  }
}

function tellMissing(slate) {
  const missing = slate.ids.filter((id) => !isPlaced(slate, id));
  const remark = slate.form.querySelector(".remark");
  if (!missing.length) {
    remark.textContent = "Say which of the two are safe first.";
    slate.form.querySelector("[name=safety]").focus();
  } else if (slate.isPair) {
    remark.textContent = "Say which is better first.";
    focusCard(slate.here);
  } else {
    remark.textContent = `Still without a rank: ${letters(slate, missing)}.`;
    focusCard(cardOf(slate, missing[0]));
  }
  say(remark.textContent);
}

const send = openSender(outbox, onAnswer, () => tellState(null));

function onAnswer(answer, item) {
  if (isAway(answer) || isSignedOut(answer)) {
    tellState(answer, queued());
    return;
  }
  if (!isAccepted(answer)) onRefusal(answer, item);
  else {
    tellState(null);
    if (answer.data.lesson) learn(item.id, answer.data.lesson);
    else if (!answer.data.counted) {
      tell("Your last ranking came after its slate was given to others. It is kept, beside the rankings that count.");
    }
  }
  if (hasNoLesson(item.id)) advance();
}

/** A refused ranking is not lost: it lies in the browser as a draft, and comes back with its slate. */
function onRefusal(answer, { form, draft }) {
  if (memory.read(`last.${slug}`) === form.ranking_id) memory.write(`last.${slug}`, null);
  const ids = Object.keys(form.ranks);
  desk.isLeaving = false;
  if (answer.data?.code !== "already_ranked") {
    memory.write(draftKey({ ids }), { ...draft, content: contentOf(form, ids) });
  }
  tell(answer.data?.detail ?? "A ranking was refused. It is kept in this browser.");
}

async function takeBack() {
  const id = memory.read(`last.${slug}`);
  if (!id) return;
  await send();
  const answer = await call("POST", `/api/v1/rankings/${id}/retraction`, { correct: true });
  if (answer.status !== 200) {
    if (!isAway(answer)) memory.write(`last.${slug}`, null);
    tellState(answer, queued());
    draw();
    return;
  }
  memory.write(`last.${slug}`, null);
  desk.numToday -= 1;
  if (desk.current) {
    await desk.current.draft.save();
    desk.ahead.unshift(desk.current);
    desk.current = null;
  }
  await fetchAhead(2, answer.data.lease_id);
  say("Your last slate is back, as you submitted it.");
}

async function givenBack(slate) {
  slate.draft.close();
  say("Given back.");
  await advance();
}

// ---------------------------------------------------------------- and go

const keysDialog = document.querySelector("#keys-dialog");
const askSkip = openSkipDialog(givenBack);
const COMMANDS = {
  submit,
  undo: () => travel("undo", "redo", "Undone."),
  redo: () => travel("redo", "undo", "Done again."),
  skip: () => desk.taught ?? askSkip("skip"),
  cannot_rank: () => desk.taught ?? askSkip("cannot_rank"),
  take_back: takeBack,
  layout: nextLayout,
  order: () => {
    toggleOrder();
    draw();
  },
  together: toggleTogether,
  differences: toggleDifferences,
  keys: () => keysDialog.showModal(),
};

listenToKeys(COMMANDS);
page.addEventListener("change", onField);
page.addEventListener("change", onChoice);
page.addEventListener("input", onField);
page.addEventListener("submit", (event) => event.preventDefault()); // Enter in a field is no submit
page.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.matches(".submit")) {
    event.preventDefault();
    submit();
  } else if (button?.dataset.do) {
    COMMANDS[button.dataset.do]();
  }
});
document.addEventListener("pointermove", () => (desk.lastActivity = performance.now()), { passive: true });
document.addEventListener("scroll", () => (desk.lastActivity = performance.now()), { passive: true });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  desk.lastActivity = performance.now(); // they are back: is the slate still theirs?
  renew();
});
window.addEventListener("pageshow", (event) => event.persisted && desk.isLeaving && location.reload()); // Back to here
window.addEventListener("online", () => send().then(() => fetchAhead()));
setInterval(() => {
  passTime();
  drawClock();
  lookForLesson();
}, 1000);

openSupply({ show, onGone });
const first = screen_.querySelector("form.slate");
const sent = outbox.all().map((item) => item.lease);
if (first && !sent.includes(first.dataset.lease)) show(adopt(first, onGone));
else screen_.replaceChildren(); // submitted while the server was away: it is in the outbox
send().then(() => fetchAhead());
document.documentElement.dataset.ready = "rank"; // for tests: handlers are in place
