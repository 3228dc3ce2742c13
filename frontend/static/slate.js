// One slate: its form, its completions' ids and letters, what the labeler has said so far (`content`), and how that
// changes. Each change can be undone, is drawn, kept and announced.
import { desk, memory, outbox, queued } from "./desk.js";
import { openDraft } from "./drafts.js";
import { draw, drawClock } from "./draw.js";
import { say, tell, tellState } from "./notices.js";
import { isAccepted } from "./server.js";

const STRENGTHS = ["significantly", "better", "slightly", "negligibly"];

const emptyContent = () => ({
  ranks: {},
  qualities: {},
  flags: {},
  notes: {},
  note: "",
  strength: null,
  is_safe: {},
  active_s: 0,
  idle_s: 0,
});

/**
 * What was kept, as far as this page knows it: fields of another version and completions of another slate are dropped,
 * so that no old draft can keep a slate from being ranked.
 */
export function contentOf(kept, ids) {
  const content = emptyContent();
  for (const [name, empty] of Object.entries(content)) {
    const value = kept?.[name];
    if (value === null || value === undefined) continue;
    if (typeof empty === "number" && Number.isFinite(value) && value >= 0) content[name] = value;
    else if (name === "note" && typeof value === "string") content.note = value;
    else if (name === "strength" && STRENGTHS.includes(value)) content.strength = value;
    else if (empty !== null && typeof empty === "object" && typeof value === "object") {
      for (const id of ids) if (id in value && fits(name, value[id], ids.length)) empty[id] = value[id];
    }
  }
  return content;
}

function fits(name, value, k) {
  if (name === "notes") return typeof value === "string";
  if (name === "is_safe") return typeof value === "boolean";
  if (name === "flags") return Array.isArray(value) && value.every((flag) => typeof flag === "string");
  return Number.isInteger(value) && value >= 1 && value <= (name === "ranks" ? k : 7);
}

/** A slate of its form. `onGone(slate)` hears that another tab has ended it. */
export function adopt(form, onGone) {
  form.noValidate = true; // we say ourselves what is missing
  const cards = [...form.querySelectorAll(".completion")];
  const ids = cards.map((card) => card.dataset.id);
  const slate = {
    lease: form.dataset.lease,
    form,
    cards,
    ids,
    letter: Object.fromEntries(cards.map((card) => [card.dataset.id, card.dataset.letter])),
    idOf: Object.fromEntries(cards.map((card) => [card.dataset.letter, card.dataset.id])),
    teaches: "teaches" in form.dataset,
    isPair: form.classList.contains("is-pair"),
    asksSafety: form.querySelector("[name=safety]") !== null,
    here: cards[0], // the completion that keys speak to
    undo: [],
    redo: [],
    lastChange: null,
    get content() {
      return slate.draft.content;
    },
  };
  slate.draft = openDraft({
    path: `/api/v1/leases/${slate.lease}/draft`,
    key: draftKey(slate),
    memory,
    revision: Number(form.dataset.revision),
    content: contentOf(JSON.parse(form.dataset.draft ?? "{}"), ids),
    read: (kept) => contentOf(kept, ids),
    on: {
      newer: (_, mine) => showNewer(slate, mine),
      ended: () => onGone(slate),
      state: (answer) => (isAccepted(answer) && outbox.all().length ? null : tellState(answer, queued())),
      saved: drawClock,
    },
  });
  drawChips(slate);
  if (/Mac|iPhone|iPad/.test(navigator.platform)) form.querySelector(".chord").textContent = "⌘+Enter";
  return slate;
}

/** Another tab or machine went on with this slate: show its work; ours stays one Undo away. */
function showNewer(slate, mine) {
  slate.undo.push(JSON.stringify(mine));
  slate.redo = [];
  tell("This slate was changed in another tab or on another machine; this is its newest state. Undo brings back yours.");
  if (slate === desk.current) draw();
}

function drawChips(slate) {
  for (const id of slate.ids) {
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.dataset.id = id;
    chip.textContent = slate.letter[id];
    slate.form.querySelector(".tray .chips")?.append(chip);
  }
}

// By what the slate shows and not by the lease: after an expiry the slate comes back under another one.
export const draftKey = (slate) => `draft.${[...slate.ids].sort()[0]}`;
export const isPlaced = (slate, id) => slate.content.ranks[id] !== undefined;
export const lacksSafety = (slate) => slate.asksSafety && slate.ids.some((id) => slate.content.is_safe[id] === undefined);
export const isComplete = (slate) => slate.ids.every((id) => isPlaced(slate, id)) && !lacksSafety(slate);
export const cardOf = (slate, id) => slate.cards[slate.ids.indexOf(id)];
export const letters = (slate, ids) => ids.map((id) => slate.letter[id]).join(" and ");

function progress(slate) {
  if (isComplete(slate)) return slate.isPair ? "Submit when you are ready." : "All are ranked; submit when you are ready.";
  if (slate.isPair) return isPlaced(slate, slate.ids[0]) ? "Say which are safe." : "Say which is better.";
  return `${slate.ids.filter((id) => isPlaced(slate, id)).length} of ${slate.ids.length} ranked.`;
}

/** A ranking that contradicts the ratings gets a word, not a block. */
export function contradiction(slate) {
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

/** Apply one change to what was said. `key` joins the keystrokes of one note into one step of undo. */
function change(mutate, words, key = null) {
  const slate = desk.current;
  if (!slate || slate.draft.isClosed) return;
  const before = JSON.stringify(slate.content);
  mutate(slate.content);
  if (JSON.stringify(slate.content) === before) return;
  if (key === null || key !== slate.lastChange) slate.undo.push(before);
  slate.lastChange = key;
  slate.redo = [];
  slate.draft.keep();
  draw();
  if (words) say(`${words} ${progress(slate)}`);
}

/** Undo and redo: `from` one pile of former states, onto the other. */
export function travel(from, to, words) {
  const slate = desk.current;
  if (!slate?.[from].length) return;
  slate[to].push(JSON.stringify(slate.content));
  const { active_s, idle_s } = slate.content; // time does not run backwards
  slate.draft.change({ ...JSON.parse(slate[from].pop()), active_s, idle_s });
  slate.lastChange = null;
  draw();
  say(words);
}

/** Give a rank; 0 puts the completion back among those to be ranked. */
export function place(id, rank) {
  const slate = desk.current;
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
export function placeNext(id) {
  const slate = desk.current;
  change((content) => {
    const { [id]: _, ...others } = content.ranks;
    const closed = dense(others); // a gap that was left would make the last two tie
    content.ranks = { ...closed, [id]: Math.max(0, ...Object.values(closed)) + 1 };
  }, `${slate.letter[id]} is next.`);
}

/** Ranks 1, 2, 3 … without gaps; equal ones stay equal. */
export function dense(ranks) {
  const inOrder = [...new Set(Object.values(ranks))].sort((a, b) => a - b);
  return Object.fromEntries(Object.entries(ranks).map(([id, rank]) => [id, inOrder.indexOf(rank) + 1]));
}

export function tieWithLast(id) {
  const taken = Object.entries(desk.current.content.ranks).filter(([other]) => other !== id);
  place(id, taken.length ? Math.max(...taken.map(([, rank]) => rank)) : 1);
}

/** The answers about two completions, from A to B: their fields know what they mean. */
export function verdictsOf(slate) {
  return [...slate.form.querySelectorAll("[name=verdict]")].map((field) => {
    const [rankOfA, rankOfB] = field.dataset.ranks.split(" ").map(Number);
    const [a, b] = slate.ids;
    return { field, ranks: { [a]: rankOfA, [b]: rankOfB }, strength: field.dataset.strength, words: wordsOf(field) };
  });
}

const wordsOf = (field) => field.parentElement.querySelector("b").textContent;

/** The answer that stands: its place on the line, -1 for none. */
export function verdictOf(slate) {
  const { ranks, strength } = slate.content;
  return verdictsOf(slate).findIndex(
    (verdict) => verdict.strength === strength && slate.ids.every((id) => verdict.ranks[id] === ranks[id]),
  );
}

export function judge(index) {
  const { ranks, strength, words } = verdictsOf(desk.current)[index];
  change((content) => Object.assign(content, { ranks, strength }), `${words}.`);
}

/** Which of two completions are safe: one of the fields of one choice. */
export function judgeSafety(field) {
  const areSafe = field.dataset.safe.split(" ").map((flag) => flag === "1");
  const isSafe = Object.fromEntries(desk.current.ids.map((id, index) => [id, areSafe[index]]));
  change((content) => (content.is_safe = isSafe), `Safe: ${field.value}.`);
}

export function rate(id, quality) {
  change((content) => (content.qualities[id] = quality), `Quality of ${desk.current.letter[id]}: ${quality} of 7.`);
}

// Fields are the truth's window: a click on one is a change like any other.
export function onField(event) {
  const field = event.target;
  const slate = desk.current;
  if (!slate || !slate.form.contains(field) || !field.name) return;
  const [what, letter] = field.name.split(":");
  const id = slate.idOf[letter];
  if (event.type === "input" && what.startsWith("note")) {
    const key = field.name;
    if (id) change((content) => (content.notes[id] = field.value), null, key);
    else change((content) => (content.note = field.value), null, key);
  } else if (event.type === "change") {
    if (what === "rank") place(id, Number(field.value));
    if (what === "quality") rate(id, Number(field.value));
    if (what === "verdict") judge(Number(field.value) - 1);
    if (what === "safety") judgeSafety(field);
    if (what === "flags") {
      const ticked = [...slate.form.querySelectorAll(`[name="${field.name}"]:checked`)].map((box) => box.value);
      change((content) => (content.flags[id] = ticked), `${field.checked ? "Flagged" : "No longer flagged"}: ${field.value}.`);
    }
  }
}
