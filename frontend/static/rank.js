// The ranking page. The server draws every slate, the first and the ones sent ahead; this script keeps what the labeler
// says about the one in view, draws it into the slate's own form fields and board, and never loses it: each change goes
// to localStorage at once and to the server as a draft, each submit waits in an outbox until the server has acknowledged
// it. Nothing in here, or in what it is sent, tells who wrote a completion.
import { desk, memory, outbox, page, queued, slug } from "./desk.js";
import "./drag.js";
import { onChoice, stopDifferences, toggleDifferences } from "./differences.js";
import { close, retire, save, saveSoon } from "./drafts.js";
import { draw, drawClock } from "./draw.js";
import { focusCard, listenToKeys } from "./keys.js";
import { nextLayout, placeGuidelines, toggleOrder, toggleTogether } from "./layout.js";
import { showLesson } from "./lesson.js";
import { forgetNews, say, tell, tellState } from "./notices.js";
import { call, isAccepted, isAway, isSignedOut, newId, openSender, tryAgain } from "./server.js";
import { openSkipDialog } from "./skip.js";
import { adopt, cardOf, contentOf, dense, draftKey, isComplete, isPlaced, letters, onField, travel } from "./slate.js";

const screen_ = document.querySelector("#screen");
const waiting = document.querySelector("#waiting");
const leaseDurationMs = 1000 * Number(page.dataset.leaseDuration);

const IDLE_AFTER_MS = 60_000; // without a key or a pointer, time is not counted as work
// Whoever holds the chord down, or hits it twice, must not submit a slate they have not seen.
const DEAF_AFTER_SHOW_MS = 600;

// ---------------------------------------------------------------- the slate in view

function show(slate) {
  passTime();
  stopDifferences();
  desk.current = slate;
  desk.shownAt = performance.now();
  waiting.hidden = true;
  placeGuidelines(slate);
  if (!slate.form.isConnected) {
    screen_.replaceChildren(slate.form);
    window.scrollTo(0, 0);
    slate.here.focus({ preventScroll: true });
    say(`Next slate: ${slate.ids.length} completions.`);
  }
  draw();
  if (slate.isDirty) saveSoon(slate, 0);
}

/** Put the next slate into view: it is here already, so this is one repaint. Then send, then fetch one more. */
async function advance() {
  const next = desk.ahead.shift();
  if (next) show(next);
  else if (desk.current) {
    desk.current = null;
    screen_.replaceChildren();
    waiting.hidden = false;
  }
  await send();
  await fetchAhead();
}

function onGone(slate) {
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
    goOn();
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
  outbox.add({ id, path: `/api/v1/leases/${slate.lease}/ranking`, lease: slate.lease, revision: slate.revision, form });
  close(slate);
  desk.numToday += 1;
  if (slate.teaches) awaitLesson(slate, id);
  else {
    memory.write(`last.${slug}`, id);
    advance();
  }
}

/** Of an onboarding slate the researchers' answer is read before the next one. */
function awaitLesson(slate, id) {
  memory.write(`last.${slug}`, null); // it is no secret any more: nothing to take back
  desk.taught = { id, slate, mine: dense(slate.content.ranks), isShown: false };
  slate.form.querySelector(".remark").textContent = "Sent. The researchers' answer is on its way.";
  send();
}

/** Another tab may have sent what we wait for, and has its answer. */
function lookForLesson() {
  if (!desk.taught || desk.taught.isShown || outbox.all().some((item) => item.id === desk.taught.id)) return;
  openLesson(desk.taught.id);
}

const openLesson = (id) => location.assign(`/projects/${slug}/onboarding/${id}`);

function learn(id, lesson) {
  if (desk.taught?.id !== id) {
    openLesson(id); // its slate is no longer here: a page of its own
    return;
  }
  const { slate, mine } = desk.taught;
  desk.taught.isShown = true;
  desk.shownAt = performance.now();
  showLesson(slate, mine, lesson);
}

function goOn() {
  if (!desk.taught.isShown) return;
  desk.taught = null;
  advance();
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

const send = openSender(outbox, (answer, item) => {
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
  if (desk.taught?.id === item.id && !desk.taught.isShown) {
    desk.taught = null; // no lesson comes
    advance();
  }
});

/** A refused ranking is not lost: it lies in the browser as a draft, and comes back with its slate. */
function onRefusal(answer, { form, revision }) {
  if (memory.read(`last.${slug}`) === form.ranking_id) memory.write(`last.${slug}`, null);
  const ids = Object.keys(form.ranks);
  if (answer.data?.code !== "already_ranked") {
    memory.write(draftKey({ ids }), { content: contentOf(form, ids), revision: revision ?? 0 });
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
    await save(desk.current);
    desk.ahead.unshift(desk.current);
    desk.current = null;
  }
  await fetchAhead(2, answer.data.lease_id);
  say("Your last slate is back, as you submitted it.");
}

async function givenBack(slate) {
  close(slate);
  say("Given back.");
  await advance();
}

// ---------------------------------------------------------------- the next slates

const LEADS_ON = ["guidelines_not_accepted", "onboarding_waits"];

let fetching = null;
/** Ask for what is ours: one slate in view and one ahead. `first`: the lease to show now, if it is among them. */
function fetchAhead(wanted = 2, first = null) {
  fetching = (fetching ?? Promise.resolve()).then(() => fetchNow(wanted, first));
  return fetching;
}

async function fetchNow(wanted, first) {
  const unacknowledged = outbox.all().map((item) => item.lease);
  const held = [...(desk.current ? [desk.current] : []), ...desk.ahead].map((slate) => slate.lease);
  if (!first && held.length >= 2) return;
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const answer = await call("POST", `/api/v1/projects/${slug}/leases/screens`, {
    wanted,
    have: [...held, ...unacknowledged],
    since: today.toISOString(),
  });
  if (!desk.current && LEADS_ON.includes(answer.data?.code)) {
    location.reload(); // there is a page for it
    return;
  }
  if (answer.status !== 200) {
    if (!desk.current || !isAway(answer)) tellState(answer, queued());
    tryAgain(fetchAhead);
    return;
  }
  if (!outbox.all().length) tellState(null);
  const fetched = new DOMParser().parseFromString(answer.data, "text/html");
  desk.numToday = Number(fetched.querySelector("[data-today]").dataset.today) + outbox.all().length;
  const slates = [...fetched.querySelectorAll("form.slate")].map((form) => adopt(document.importNode(form, true), onGone));
  for (const slate of slates) {
    if (desk.current && !desk.current.isClosed && draftKey(slate) === draftKey(desk.current)) goOnUnder(slate);
    else if (slate.lease === first) desk.ahead.unshift(slate);
    else desk.ahead.push(slate);
  }
  if (!desk.current && desk.ahead.length) show(desk.ahead.shift());
  else draw();
  if (!desk.current) {
    waiting.hidden = false;
    tryAgain(fetchAhead);
  }
}

/** The slate in view came back under a new lease: go on with it. */
function goOnUnder(slate) {
  const { content, undo, redo, here } = desk.current;
  retire(desk.current);
  Object.assign(slate, { content, undo, redo, isDirty: true, here: cardOf(slate, here.dataset.id) });
  show(slate);
  tell("This slate's time had run out while you were away. It is yours again, with your work.");
}

setInterval(renew, Math.max(5_000, leaseDurationMs / 3));
async function renew() {
  // A tab that was forgotten lets go: others get the slate, and what was done on it stays.
  if (performance.now() - desk.lastActivity > leaseDurationMs) return;
  for (const slate of [...(desk.current ? [desk.current] : []), ...desk.ahead]) {
    const answer = await call("POST", `/api/v1/leases/${slate.lease}/renewal`);
    if (answer.data?.code !== "lease_ended" || slate.isClosed) continue;
    if (slate === desk.current) {
      tell("This slate's time ran out and someone else has it now. You may still submit: your ranking is kept.");
      fetchAhead(2, slate.lease); // it may be free again by now
    } else {
      desk.ahead = desk.ahead.filter((other) => other !== slate);
      fetchAhead();
    }
  }
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
  if (document.hidden && desk.current?.isDirty) save(desk.current);
  if (document.hidden) return;
  desk.lastActivity = performance.now(); // they are back: is the slate still theirs?
  renew();
});
window.addEventListener("online", () => send().then(() => desk.current && save(desk.current)).then(() => fetchAhead()));
setInterval(() => {
  passTime();
  drawClock();
  lookForLesson();
}, 1000);

const first = screen_.querySelector("form.slate");
const sent = outbox.all().map((item) => item.lease);
if (first && !sent.includes(first.dataset.lease)) show(adopt(first, onGone));
else screen_.replaceChildren(); // submitted while the server was away: it is in the outbox
send().then(() => fetchAhead());
document.documentElement.dataset.ready = "rank"; // for tests: handlers are in place
