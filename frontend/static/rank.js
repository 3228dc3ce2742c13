// The ranking page. The server draws every slate, the first and the ones sent ahead; this script keeps what the labeler
// says about the one in view (`content`), draws it into the slate's own form fields and board, and never loses it:
// each change goes to localStorage at once and to the server as a draft, each submit waits in an outbox until the
// server has acknowledged it. Nothing in here, or in what it is sent, tells who wrote a completion.

const page = document.querySelector("#slates");
const screen_ = document.querySelector("#screen");
const waiting = document.querySelector("#waiting");
const banner = document.querySelector("#banner");
const skipDialog = document.querySelector("#skip-dialog");
const keysDialog = document.querySelector("#keys-dialog");
const { slug, account } = page.dataset;
const leaseDurationMs = 1000 * Number(page.dataset.leaseDuration);
const csrfToken = document.querySelector("meta[name=csrf-token]").content;

const SAVE_AFTER_MS = 700; // of quiet; a draft is no keystroke log
const IDLE_AFTER_MS = 60_000; // without a key or a pointer, time is not counted as work
const RETRY_MS = 3_000;
// Whoever holds the chord down, or hits it twice, must not submit a slate they have not seen.
const DEAF_AFTER_SHOW_MS = 600;
const DRAG_FROM_PX = 5;

// Seven points on one line, as Llama 2 asked: ranks of (A, B), and how much better the better one is.
const VERDICTS = {
  1: [1, 2, "significantly"],
  2: [1, 2, "better"],
  3: [1, 2, "slightly"],
  4: [1, 1, "negligibly"],
  5: [2, 1, "slightly"],
  6: [2, 1, "better"],
  7: [2, 1, "significantly"],
};

let current = null; // the slate in view
let ahead = []; // fetched, not yet shown
let numToday = Number(page.dataset.today);
let lastActivity = Date.now();
let shownAt = 0;

// ---------------------------------------------------------------- the browser's memory

const memory = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(`podium.${account}.${key}`));
    } catch {
      return null; // storage is forbidden or holds something else: the server's draft remains
    }
  },
  write(key, value) {
    try {
      if (value === null) localStorage.removeItem(`podium.${account}.${key}`);
      else localStorage.setItem(`podium.${account}.${key}`, JSON.stringify(value));
    } catch {
      // A full or forbidden storage costs the offline copy only.
    }
  },
};

let unsent = []; // the outbox where storage is forbidden
const outbox = {
  all: () => memory.read(`outbox.${slug}`) ?? unsent,
  add: (item) => outbox.set([...outbox.all(), item]),
  // By id, not by place: another tab may have sent the first one already.
  remove: (id) => outbox.set(outbox.all().filter((item) => item.form.ranking_id !== id)),
  set(items) {
    unsent = items;
    memory.write(`outbox.${slug}`, items.length ? items : null);
  },
};

// ---------------------------------------------------------------- the server

async function call(method, path, body) {
  try {
    const response = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken },
      body: JSON.stringify(body ?? {}),
      signal: AbortSignal.timeout(20_000),
    });
    const words = await response.text();
    const isJSON = words !== "" && /json/.test(response.headers.get("Content-Type") ?? "");
    return { status: response.status, data: isJSON ? JSON.parse(words) : words };
  } catch {
    return { status: 0, data: null };
  }
}

const retries = new Map();
/** Try again in a while; a second wish for the same thing replaces the first. */
function tryAgain(act) {
  clearTimeout(retries.get(act));
  retries.set(act, setTimeout(() => act(), RETRY_MS));
}

// No answer, a server that restarts, too many requests: nothing is wrong with what we sent, so it is sent again.
const isAway = (answer) => answer.status === 0 || answer.status >= 500 || answer.status === 429;

function tellState(answer) {
  const num = outbox.all().length;
  const queued = num ? ` ${num === 1 ? "One ranking waits" : `${num} rankings wait`} to be sent.` : "";
  if (!answer || (answer.status >= 200 && answer.status < 400)) {
    if (banner.dataset.about === "server") banner.hidden = true; // other news stays until the next submit
    return;
  }
  if (answer.status === 401 || answer.data?.code === "stale_form") {
    tell(`You are signed out. Your work is kept in this browser: sign in again and it goes on.${queued}`, "/sign-in");
  } else {
    tell(answer.data?.detail ?? "The server refused this; your work is kept in this browser.");
  }
  if (isAway(answer)) {
    tell(
      `The server cannot be reached. Go on working: everything is kept in this browser and sent when it is back.${queued}`,
    );
  }
  banner.dataset.about = "server";
}

function tell(words, address) {
  banner.textContent = words;
  if (address) {
    const link = document.createElement("a");
    link.href = `${address}?next=${encodeURIComponent(location.pathname)}`;
    link.textContent = "Sign in";
    banner.append(" ", link);
  }
  banner.dataset.about = "work";
  banner.hidden = false;
}

function say(words) {
  document.querySelector("#said").textContent = words;
}

// ---------------------------------------------------------------- a slate

const emptyContent = () => ({
  ranks: {},
  qualities: {},
  flags: {},
  notes: {},
  note: "",
  strength: null,
  active_s: 0,
});

/** Everything about one slate: its form, its completions' ids and letters, and what was said so far. */
function adopt(form) {
  form.noValidate = true; // we say ourselves what is missing
  const cards = [...form.querySelectorAll(".completion")];
  const slate = {
    lease: form.dataset.lease,
    form,
    cards,
    ids: cards.map((card) => card.dataset.id),
    letter: Object.fromEntries(cards.map((card) => [card.dataset.id, card.dataset.letter])),
    idOf: Object.fromEntries(cards.map((card) => [card.dataset.letter, card.dataset.id])),
    isPair: form.classList.contains("is-pair"),
    content: { ...emptyContent(), ...JSON.parse(form.dataset.draft ?? "{}") },
    revision: Number(form.dataset.revision),
    here: cards[0], // the completion that keys speak to
    undo: [],
    redo: [],
    lastChange: null,
    savedAt: form.dataset.draft ? Date.now() : null,
    isDirty: false,
    saving: null,
    timer: null,
    isClosed: false,
  };
  const kept = memory.read(`draft.${slate.lease}`);
  if (kept?.isDirty && kept.revision >= slate.revision) {
    slate.content = { ...emptyContent(), ...kept.content }; // made while the server was away
    slate.isDirty = true;
  }
  drawBoard(slate);
  if (/Mac|iPhone|iPad/.test(navigator.platform)) form.querySelector(".chord").textContent = "⌘+Enter";
  return slate;
}

const isPlaced = (slate, id) => slate.content.ranks[id] !== undefined;
const isComplete = (slate) => slate.ids.every((id) => isPlaced(slate, id));
const numPlaced = (slate) => slate.ids.filter((id) => isPlaced(slate, id)).length;
const cardOf = (slate, id) => slate.cards[slate.ids.indexOf(id)];
const letters = (slate, ids) => ids.map((id) => slate.letter[id]).join(" and ");

function show(slate) {
  current = slate;
  shownAt = Date.now();
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

function showWaiting() {
  current = null;
  screen_.replaceChildren();
  waiting.hidden = false;
  fetchAhead();
}

// ---------------------------------------------------------------- changes

/** Apply one change to what was said: it can be undone, is drawn, kept, and announced. `key` joins keystrokes of a note. */
function change(mutate, words, key = null) {
  const slate = current;
  if (!slate || slate.isClosed) return;
  const before = JSON.stringify(slate.content);
  mutate(slate.content);
  if (JSON.stringify(slate.content) === before) return;
  if (key === null || key !== slate.lastChange) slate.undo.push(before);
  slate.lastChange = key;
  slate.redo = [];
  keep(slate);
  draw();
  if (words) say(`${words} ${progress(slate)}`);
}

function progress(slate) {
  return isComplete(slate) ? "All are ranked; submit when you are ready." : `${numPlaced(slate)} of ${slate.ids.length} ranked.`;
}

function travel(from, to, words) {
  const slate = current;
  if (!slate?.[from].length) return;
  slate[to].push(JSON.stringify(slate.content));
  const activeS = slate.content.active_s; // time does not run backwards
  slate.content = { ...JSON.parse(slate[from].pop()), active_s: activeS };
  slate.lastChange = null;
  keep(slate);
  draw();
  say(words);
}

function place(id, rank) {
  const slate = current;
  const letter = slate.letter[id];
  if (!rank) {
    change((content) => delete content.ranks[id], `${letter} is back among those to be ranked.`);
    return;
  }
  const ties = slate.ids.filter((other) => other !== id && slate.content.ranks[other] === rank);
  const tied = ties.length ? `, tied with ${letters(slate, ties)}` : "";
  change((content) => (content.ranks[id] = rank), `${letter} ranked ${rank}${tied}.`);
}

/** Select in order: the best first, then the next best. */
function placeNext(id) {
  const taken = Object.values(current.content.ranks);
  place(id, Math.min(current.ids.length, taken.length ? Math.max(...taken) + 1 : 1));
}

function tieWithLast(id) {
  const taken = Object.entries(current.content.ranks).filter(([other]) => other !== id);
  place(id, taken.length ? Math.max(...taken.map(([, rank]) => rank)) : 1);
}

function judge(verdict) {
  const [rankOfA, rankOfB, strength] = VERDICTS[verdict];
  const [a, b] = current.ids;
  change(
    (content) => Object.assign(content, { ranks: { [a]: rankOfA, [b]: rankOfB }, strength }),
    `${wordsOf(current.form, verdict)}.`,
  );
}

function wordsOf(form, verdict) {
  return form.querySelector(`[name=verdict][value="${verdict}"] + span b`).textContent;
}

function rate(id, quality) {
  change((content) => (content.qualities[id] = quality), `Quality of ${current.letter[id]}: ${quality} of 7.`);
}

// Fields are the truth's window: a click on one is a change like any other.
function onField(event) {
  const field = event.target;
  if (!current || !current.form.contains(field) || !field.name) return;
  const [what, letter] = field.name.split(":");
  const id = current.idOf[letter];
  if (event.type === "input" && what.startsWith("note")) {
    const key = field.name;
    if (id) change((content) => (content.notes[id] = field.value), null, key);
    else change((content) => (content.note = field.value), null, key);
  } else if (event.type === "change") {
    if (what === "rank") place(id, Number(field.value));
    if (what === "quality") rate(id, Number(field.value));
    if (what === "verdict") judge(field.value);
    if (what === "flags") {
      const ticked = [...current.form.elements[field.name]].filter((box) => box.checked).map((box) => box.value);
      change((content) => (content.flags[id] = ticked), `${field.checked ? "Flagged" : "No longer flagged"}: ${field.value}.`);
    }
  }
}

// ---------------------------------------------------------------- drawing

function drawBoard(slate) {
  for (const id of slate.ids) {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.dataset.id = id;
    chip.textContent = slate.letter[id];
    slate.form.querySelector(".tray .chips")?.append(chip);
  }
}

function draw() {
  const slate = current;
  if (!slate) return;
  const { content, form } = slate;
  for (const card of slate.cards) {
    const id = card.dataset.id;
    const { letter } = card.dataset;
    const rank = content.ranks[id] ?? 0;
    card.classList.toggle("is-placed", rank > 0);
    check(form, `rank:${letter}`, rank);
    check(form, `quality:${letter}`, content.qualities[id] ?? 0);
    const flags = content.flags[id] ?? [];
    for (const box of card.querySelectorAll("[type=checkbox]")) box.checked = flags.includes(box.value);
    count(card.querySelector(".flags .count"), flags.length ? `${flags.length}` : "");
    fill(card.querySelector("textarea"), content.notes[id] ?? "");
    count(card.querySelector(".note .count"), content.notes[id]?.trim() ? "1" : "");
    const chip = form.querySelector(`.chip[data-id="${id}"]`);
    const chips = form.querySelector(`.column[data-rank="${rank}"] .chips`);
    if (chip && chip.parentElement !== chips) chips.append(chip);
  }
  for (const chips of form.querySelectorAll(".chips")) {
    const inOrder = [...chips.children].sort((a, b) => a.textContent.localeCompare(b.textContent));
    if (inOrder.some((chip, place_) => chips.children[place_] !== chip)) chips.append(...inOrder);
  }
  form.querySelector(".board")?.classList.toggle("is-complete", isComplete(slate));
  const verdict = Object.keys(VERDICTS).find(
    (key) =>
      content.strength === VERDICTS[key][2] &&
      slate.ids.every((id, place_) => content.ranks[id] === VERDICTS[key][place_]),
  );
  if (slate.isPair) {
    check(form, "verdict", verdict ?? 0);
    form.querySelector(".chosen").textContent = verdict ? wordsOf(form, verdict) : "";
  }
  fill(form.querySelector(".slate-note textarea"), content.note);
  count(form.querySelector(".slate-note .count"), content.note.trim() ? "1" : "");
  form.querySelector(".remark").textContent = contradiction(slate);
  const submit_ = form.querySelector(".submit");
  submit_.setAttribute("aria-disabled", String(!isComplete(slate)));
  submit_.title = isComplete(slate) ? "" : "Every completion needs a rank first";
  form.querySelector("[data-do=undo]").disabled = !slate.undo.length;
  form.querySelector("[data-do=redo]").disabled = !slate.redo.length;
  form.querySelector("[data-do=take_back]").hidden = !memory.read(`last.${slug}`);
  form.querySelector(".place").textContent = `slate ${numToday + 1} today`;
  drawLayout();
  drawHere();
  drawClock();
}

function check(form, name, value) {
  for (const radio of form.querySelectorAll(`[name="${name}"]`)) radio.checked = radio.value === String(value);
}

function fill(field, words) {
  if (field && field.value !== words) field.value = words;
}

function drawLayout() {
  current.form.querySelector("[data-do=layout]").textContent = page.dataset.layout === "stack" ? "Columns" : "Stack";
}

function count(place_, words) {
  if (place_) place_.textContent = words;
}

function drawHere() {
  for (const card of current.cards) card.classList.toggle("is-here", card === current.here);
}

function drawClock() {
  const slate = current;
  if (!slate) return;
  const seconds = Math.round(slate.content.active_s);
  slate.form.querySelector(".timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const ago = slate.savedAt === null ? null : Math.round((Date.now() - slate.savedAt) / 1000);
  slate.form.querySelector(".saved").textContent = slate.isDirty
    ? "saving…"
    : ago === null
      ? ""
      : ago < 5
        ? "saved"
        : ago < 90
          ? `saved ${ago} s ago`
          : `saved ${Math.round(ago / 60)} min ago`;
}

/** A ranking that contradicts the ratings gets a word, not a block. */
function contradiction(slate) {
  const { ranks, qualities } = slate.content;
  for (const better of slate.ids) {
    for (const worse of slate.ids) {
      if (ranks[better] < ranks[worse] && qualities[better] < qualities[worse]) {
        return `${slate.letter[better]} is ranked above ${slate.letter[worse]} but rated lower. That may be meant.`;
      }
    }
  }
  return "";
}

const guidelines = document.querySelector("#guidelines")?.content.querySelector("details");
function placeGuidelines(slate) {
  if (!guidelines) return;
  slate.form.querySelector(".guidelines-place").append(guidelines); // one node, moved along: it stays open or shut
}
if (guidelines) {
  const version = guidelines.querySelector("summary").textContent;
  // New ones are open until they are shut once; on a phone they would stand between the prompt and its completions.
  guidelines.open = memory.read(`guidelines.${slug}`) !== version && matchMedia("(min-width: 60rem)").matches;
  guidelines.addEventListener("toggle", () => memory.write(`guidelines.${slug}`, guidelines.open ? null : version));
}

function setLayout(layout) {
  page.dataset.layout = layout;
  if (current) drawLayout();
  memory.write("layout", layout);
}
setLayout(memory.read("layout") ?? "stack");

// ---------------------------------------------------------------- drafts

/** Keep a change in the browser now, and on the server soon. */
function keep(slate) {
  slate.isDirty = true;
  memory.write(`draft.${slate.lease}`, { content: slate.content, revision: slate.revision, isDirty: true });
  saveSoon(slate, SAVE_AFTER_MS);
}

function saveSoon(slate, afterMs) {
  clearTimeout(slate.timer);
  slate.timer = setTimeout(() => save(slate), afterMs);
}

async function save(slate) {
  clearTimeout(slate.timer);
  if (slate.saving) await slate.saving; // one at a time: each save builds on the one before
  if (!slate.isDirty || slate.isClosed) return;
  slate.saving = saveOnce(slate);
  await slate.saving;
  slate.saving = null;
}

async function saveOnce(slate) {
  const sent = JSON.stringify(slate.content);
  const answer = await call("PUT", `/api/v1/leases/${slate.lease}/draft`, {
    revision: slate.revision,
    content: slate.content,
  });
  if (slate.isClosed) return;
  if (answer.status === 200) {
    slate.revision = answer.data.revision;
    slate.savedAt = Date.now();
    slate.isDirty = JSON.stringify({ ...slate.content, active_s: 0 }) !== JSON.stringify({ ...JSON.parse(sent), active_s: 0 });
    memory.write(`draft.${slate.lease}`, slate.isDirty ? { content: slate.content, revision: slate.revision, isDirty: true } : null);
    if (!outbox.all().length) tellState(null);
    drawClock();
  } else if (answer.data?.code === "stale_draft") {
    takeNewer(slate, answer.data.draft);
  } else if (answer.data?.code === "lease_ended") {
    close(slate);
    if (slate === current) {
      tell("This slate was submitted or given back in another tab; here is the next one.");
      advance();
    }
  } else {
    tellState(answer);
    if (isAway(answer)) saveSoon(slate, RETRY_MS);
  }
}

/** Another tab or machine went on with this slate: show its work; ours stays one Undo away. */
function takeNewer(slate, draft) {
  slate.undo.push(JSON.stringify(slate.content));
  slate.redo = [];
  slate.content = { ...emptyContent(), ...draft.content };
  slate.revision = draft.revision;
  slate.isDirty = false;
  memory.write(`draft.${slate.lease}`, null);
  tell("This slate was changed in another tab or on another machine; this is its newest state. Undo brings back yours.");
  if (slate === current) draw();
}

function close(slate) {
  slate.isClosed = true;
  clearTimeout(slate.timer);
  memory.write(`draft.${slate.lease}`, null);
}

// ---------------------------------------------------------------- submit, skip, take back

/** A random UUID; crypto.randomUUID itself exists on https pages only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function submit() {
  const slate = current;
  if (!slate || Date.now() - shownAt < DEAF_AFTER_SHOW_MS) return;
  if (!isComplete(slate)) {
    const missing = slate.ids.filter((id) => !isPlaced(slate, id));
    say(slate.isPair ? "Say which is better first." : `Not yet: ${letters(slate, missing)} without a rank.`);
    slate.form.querySelector(".remark").textContent = slate.isPair
      ? "Say which is better first: keys 1 to 7."
      : `Still without a rank: ${missing.map((id) => slate.letter[id]).join(", ")}.`;
    focusCard(cardOf(slate, missing[0]));
    return;
  }
  const form = { ranking_id: newId(), ...slate.content };
  if (!slate.isPair) form.strength = null;
  if (banner.dataset.about === "work") banner.hidden = true;
  outbox.add({ lease: slate.lease, form });
  close(slate);
  memory.write(`last.${slug}`, form.ranking_id);
  numToday += 1;
  advance();
}

/** Put the next slate into view: it is here already, so this is one repaint. Then send, then fetch one more. */
async function advance() {
  const next = ahead.shift();
  if (next) show(next);
  else if (current) {
    current = null;
    screen_.replaceChildren();
    waiting.hidden = false;
  }
  await flush();
  await fetchAhead();
}

let flushing = null;
function flush() {
  flushing ??= flushAll().finally(() => (flushing = null));
  return flushing;
}

async function flushAll() {
  let item;
  while ((item = outbox.all()[0])) {
    const answer = await call("POST", `/api/v1/leases/${item.lease}/ranking`, item.form);
    if (isAway(answer) || answer.status === 401 || answer.data?.code === "stale_form") {
      tellState(answer);
      tryAgain(flush);
      return;
    }
    outbox.remove(item.form.ranking_id);
    if (answer.status >= 400) tell(answer.data?.detail ?? "A ranking was refused.");
    else {
      tellState(null);
      if (!answer.data.counted) {
        tell("Your last ranking came after its slate was given to others. It is kept, beside the rankings that count.");
      }
    }
  }
}

function askSkip(kind) {
  if (!current) return;
  skipDialog.dataset.kind = kind;
  skipDialog.querySelector("h2").textContent = kind === "skip" ? "Skip this slate" : "This slate cannot be ranked";
  skipDialog.querySelector("#skip-hint").textContent =
    kind === "skip" ? "Someone else gets it; you will not see it again." : "Tell what is wrong with it; you will not see it again.";
  for (const group of skipDialog.querySelectorAll("[data-kind]")) group.hidden = group.dataset.kind !== kind;
  for (const field of skipDialog.querySelectorAll("input")) field.checked = false;
  skipDialog.querySelector("textarea").value = "";
  skipDialog.querySelector("#skip-problem").textContent = "";
  skipDialog.showModal();
}

skipDialog.querySelector("form").addEventListener("submit", async (event) => {
  if (event.submitter?.value !== "confirm") return;
  event.preventDefault();
  const chosen = skipDialog.querySelector("input:checked")?.value ?? "";
  const detail = skipDialog.querySelector("textarea").value.trim();
  const reason = [chosen, detail].filter(Boolean).join(": ");
  const problem = skipDialog.querySelector("#skip-problem");
  if (!reason) {
    problem.textContent = "Choose a reason, or write one.";
    return;
  }
  const slate = current;
  const answer = await call("POST", `/api/v1/leases/${slate.lease}/skip`, { kind: skipDialog.dataset.kind, reason });
  if (answer.status !== 204 && answer.data?.code !== "lease_ended") {
    problem.textContent = isAway(answer) ? "The server cannot be reached; try again in a moment." : answer.data?.detail;
    return;
  }
  skipDialog.close();
  close(slate);
  say("Given back.");
  await advance();
});

async function takeBack() {
  const id = memory.read(`last.${slug}`);
  if (!id) return;
  await flush();
  const answer = await call("POST", `/api/v1/rankings/${id}/retraction`, { correct: true });
  if (answer.status !== 200) {
    if (!isAway(answer)) memory.write(`last.${slug}`, null);
    tellState(answer);
    draw();
    return;
  }
  memory.write(`last.${slug}`, null);
  numToday -= 1;
  if (current) {
    await save(current);
    ahead.unshift(current);
    current = null;
  }
  await fetchAhead(2, answer.data.lease_id);
  say("Your last slate is back, as you submitted it.");
}

// ---------------------------------------------------------------- the next slates

let fetching = null;
/** Ask for what is ours: one slate in view and one ahead. `first`: the lease to show now, if it is among them. */
function fetchAhead(wanted = 2, first = null) {
  fetching = (fetching ?? Promise.resolve()).then(() => fetchNow(wanted, first));
  return fetching;
}

async function fetchNow(wanted, first) {
  const unacknowledged = outbox.all().map((item) => item.lease);
  const held = [...(current ? [current] : []), ...ahead].map((slate) => slate.lease);
  if (!first && held.length >= 2) return;
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const answer = await call("POST", `/api/v1/projects/${slug}/leases/screens`, {
    wanted,
    have: [...held, ...unacknowledged],
    since: today.toISOString(),
  });
  if (answer.status !== 200) {
    if (!current || !isAway(answer)) tellState(answer);
    tryAgain(fetchAhead);
    return;
  }
  const fetched = new DOMParser().parseFromString(answer.data, "text/html");
  numToday = Number(fetched.querySelector("[data-today]").dataset.today) + outbox.all().length;
  const slates = [...fetched.querySelectorAll("form.slate")].map((form) => adopt(document.importNode(form, true)));
  for (const slate of slates) {
    if (slate.lease === first) ahead.unshift(slate);
    else ahead.push(slate);
  }
  if (!current && ahead.length) show(ahead.shift());
  else draw();
  if (!current) {
    waiting.hidden = false;
    tryAgain(fetchAhead);
  }
}

setInterval(renew, Math.max(5_000, leaseDurationMs / 3));
async function renew() {
  // A tab that was forgotten lets go: others get the slate, and what was done on it stays.
  if (Date.now() - lastActivity > leaseDurationMs) return;
  for (const slate of [...(current ? [current] : []), ...ahead]) {
    const answer = await call("POST", `/api/v1/leases/${slate.lease}/renewal`);
    if (answer.data?.code !== "lease_ended" || slate.isClosed) continue;
    if (slate === current) {
      tell("This slate's time ran out and someone else has it now. You may still submit: your ranking is kept.");
    } else {
      ahead = ahead.filter((other) => other !== slate);
      fetchAhead();
    }
  }
}

// ---------------------------------------------------------------- keys

function focusCard(card) {
  if (!card) return;
  current.here = card;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
  drawHere();
}

function moveHere(by) {
  const { cards, here } = current;
  focusCard(cards[Math.max(0, Math.min(cards.length - 1, cards.indexOf(here) + by))]);
}

/** The first rank moves on to the next completion without one; a correction stays where it is. */
function placeByKey(id, act) {
  const wasPlaced = isPlaced(current, id);
  act(id);
  if (wasPlaced || !isPlaced(current, id)) return;
  const from = current.ids.indexOf(id);
  const order = [...current.cards.slice(from + 1), ...current.cards.slice(0, from)];
  const next = order.find((card) => !isPlaced(current, card.dataset.id));
  focusCard(next ?? current.here);
}

function openDetails(selector, focused) {
  const details = current.here.querySelector(selector);
  if (!details) return;
  details.open = true;
  details.querySelector(focused).focus();
}

const COMMANDS = {
  undo: () => travel("undo", "redo", "Undone."),
  redo: () => travel("redo", "undo", "Done again."),
  skip: () => askSkip("skip"),
  cannot_rank: () => askSkip("cannot_rank"),
  take_back: takeBack,
  layout: () => setLayout(page.dataset.layout === "stack" ? "columns" : "stack"),
  keys: () => keysDialog.showModal(),
};

const KEYS = {
  "?": COMMANDS.keys,
  s: COMMANDS.skip,
  u: COMMANDS.undo,
  r: COMMANDS.redo,
  v: COMMANDS.layout,
  j: () => moveHere(1),
  k: () => moveHere(-1),
  p: () => current.form.querySelector(".prompt").focus(),
  q: () => current.here.querySelector(".qualities input:checked, .qualities input")?.focus(),
  x: () => openDetails(".flags", "input"),
  n: () => openDetails(".note", "textarea"),
  t: () => !current.isPair && placeByKey(current.here.dataset.id, tieWithLast),
};

const CARD_KEYS = {
  ArrowDown: () => moveHere(1),
  ArrowUp: () => moveHere(-1),
  Enter: () => !current.isPair && placeByKey(current.here.dataset.id, placeNext),
  Backspace: () => !current.isPair && place(current.here.dataset.id, 0),
  Delete: () => !current.isPair && place(current.here.dataset.id, 0),
  ArrowLeft: () => shift(-1),
  ArrowRight: () => shift(1),
};

/** One column to the left or right on the board, or on the line from A to B. */
function shift(by) {
  if (current.isPair) {
    const now = Number(current.form.querySelector("[name=verdict]:checked")?.value ?? 4);
    judge(Math.max(1, Math.min(7, now + by)));
    return;
  }
  const id = current.here.dataset.id;
  place(id, Math.max(0, Math.min(current.ids.length, (current.content.ranks[id] ?? 0) + by)));
}

function onDigit(digit, target, isShifted) {
  const id = current.here.dataset.id;
  if (isShifted || target.closest(".qualities")) {
    if (digit >= 1 && digit <= 7 && current.here.querySelector(".qualities")) {
      rate(id, digit);
      if (target.closest(".qualities")) focusCard(current.here);
    }
  } else if (current.isPair) {
    if (VERDICTS[digit]) judge(digit);
  } else if (digit <= current.ids.length) {
    placeByKey(id, (placed) => place(placed, digit));
  }
}

document.addEventListener("keydown", (event) => {
  lastActivity = Date.now();
  if (!current || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const isChord = event.ctrlKey || event.metaKey;
  if (isChord && event.key === "Enter") {
    event.preventDefault();
    if (!event.repeat) submit();
    return;
  }
  if (event.key === "Escape" && target.closest(".completion") && target !== current.here) {
    const details = target.closest("details");
    if (details) details.open = false;
    focusCard(current.here);
    return;
  }
  if (target.matches("textarea")) return; // its own keys, its own undo
  if (isChord && !event.altKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    COMMANDS[event.shiftKey ? "redo" : "undo"]();
    return;
  }
  if (isChord && event.key.toLowerCase() === "y") {
    event.preventDefault();
    COMMANDS.redo();
    return;
  }
  if (isChord || event.altKey) return;
  // Elsewhere on the page keys belong to what has the focus: menus, links.
  if (target !== document.body && !target.closest("#slates, #main")) return;
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1]; // by place: Shift and layouts change the character
  if (digit !== undefined) {
    event.preventDefault();
    onDigit(Number(digit), target, event.shiftKey);
    return;
  }
  const isOnCard = target === document.body || target.matches(".completion, #main");
  const act = (isOnCard && CARD_KEYS[event.key]) || KEYS[event.key.toLowerCase()];
  if (act) {
    event.preventDefault();
    act();
    return;
  }
  const letter = event.key.length === 1 && current.cards.find((card) => card.dataset.letter === event.key.toUpperCase());
  if (letter) {
    event.preventDefault();
    focusCard(letter);
  }
});

page.addEventListener("focusin", (event) => {
  const card = event.target.closest(".completion");
  if (!card || !current?.form.contains(card) || card === current.here) return;
  current.here = card;
  drawHere();
});

// ---------------------------------------------------------------- pointer

let drag = null;

page.addEventListener("pointerdown", (event) => {
  lastActivity = Date.now();
  const grip = event.target.closest(".chip, .grip");
  if (!grip || event.button !== 0 || !current || current.isPair) return;
  const id = grip.dataset.id ?? grip.closest(".completion").dataset.id;
  drag = { id, grip, isChip: grip.matches(".chip"), x: event.clientX, y: event.clientY, ghost: null };
  grip.setPointerCapture(event.pointerId);
  if (event.pointerType === "mouse") event.preventDefault(); // no text is selected on the way
});

page.addEventListener("pointermove", (event) => {
  if (!drag) return;
  if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_FROM_PX) return;
  if (!drag.ghost) {
    drag.ghost = document.createElement("span");
    drag.ghost.className = "chip ghost";
    drag.ghost.textContent = current.letter[drag.id];
    document.body.append(drag.ghost);
    page.classList.add("is-dragging");
  }
  drag.ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -60%)`;
  const over = columnAt(event);
  for (const column of current.form.querySelectorAll(".column")) column.classList.toggle("is-over", column === over);
});

page.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { id, ghost, isChip } = drag;
  const column = columnAt(event);
  endDrag();
  if (ghost) {
    if (column) place(id, Number(column.dataset.rank));
  } else if (isChip && !isPlaced(current, id)) {
    placeNext(id); // a tap picks the best, then the next best
    current.here = cardOf(current, id);
    drawHere();
  } else {
    focusCard(cardOf(current, id));
  }
});

page.addEventListener("pointercancel", endDrag);

function endDrag() {
  drag?.ghost?.remove();
  drag = null;
  page.classList.remove("is-dragging");
  for (const column of page.querySelectorAll(".is-over")) column.classList.remove("is-over");
}

function columnAt(event) {
  return document.elementFromPoint(event.clientX, event.clientY)?.closest(".column") ?? null;
}

// ---------------------------------------------------------------- and go

page.addEventListener("change", onField);
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
document.addEventListener("pointermove", () => (lastActivity = Date.now()), { passive: true });
document.addEventListener("scroll", () => (lastActivity = Date.now()), { passive: true });
document.addEventListener("visibilitychange", () => {
  if (document.hidden && current?.isDirty) save(current);
  if (!document.hidden) renew();
});
window.addEventListener("online", () => flush().then(() => current && save(current)).then(() => fetchAhead()));
setInterval(() => {
  if (current && !document.hidden && Date.now() - lastActivity < IDLE_AFTER_MS) current.content.active_s += 1;
  drawClock();
}, 1000);

const first = screen_.querySelector("form.slate");
const sent = outbox.all().map((item) => item.lease);
if (first && !sent.includes(first.dataset.lease)) show(adopt(first));
else screen_.replaceChildren(); // submitted while the server was away: it is in the outbox
flush().then(() => fetchAhead());
document.documentElement.dataset.ready = "rank"; // for tests: handlers are in place
