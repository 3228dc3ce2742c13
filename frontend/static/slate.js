// One slate: its form, its completions' ids and letters, what the labeler has said so far (`content`), and how that
// changes. Each change can be undone, is drawn, kept and announced.
import { desk, memory } from "./desk.js";
import { draw, wordsOf } from "./draw.js";
import { keep } from "./drafts.js";
import { say } from "./notices.js";

// Seven points on one line, as Llama 2 asked: ranks of (A, B), and how much better the better one is.
export const VERDICTS = {
  1: [1, 2, "significantly"],
  2: [1, 2, "better"],
  3: [1, 2, "slightly"],
  4: [1, 1, "negligibly"],
  5: [2, 1, "slightly"],
  6: [2, 1, "better"],
  7: [2, 1, "significantly"],
};

export const emptyContent = () => ({
  ranks: {},
  qualities: {},
  flags: {},
  notes: {},
  note: "",
  strength: null,
  active_s: 0,
});

/** A slate of its form. `onGone(slate)` hears that another tab has ended it. */
export function adopt(form, onGone) {
  form.noValidate = true; // we say ourselves what is missing
  const cards = [...form.querySelectorAll(".completion")];
  const slate = {
    lease: form.dataset.lease,
    form,
    onGone,
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
  drawChips(slate);
  if (/Mac|iPhone|iPad/.test(navigator.platform)) form.querySelector(".chord").textContent = "⌘+Enter";
  return slate;
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

export const isPlaced = (slate, id) => slate.content.ranks[id] !== undefined;
export const isComplete = (slate) => slate.ids.every((id) => isPlaced(slate, id));
export const cardOf = (slate, id) => slate.cards[slate.ids.indexOf(id)];
export const letters = (slate, ids) => ids.map((id) => slate.letter[id]).join(" and ");

function progress(slate) {
  if (isComplete(slate)) return "All are ranked; submit when you are ready.";
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

/** Undo and redo: `from` one pile of former states, onto the other. */
export function travel(from, to, words) {
  const slate = desk.current;
  if (!slate?.[from].length) return;
  slate[to].push(JSON.stringify(slate.content));
  const activeS = slate.content.active_s; // time does not run backwards
  slate.content = { ...JSON.parse(slate[from].pop()), active_s: activeS };
  slate.lastChange = null;
  keep(slate);
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
  const taken = Object.values(desk.current.content.ranks);
  place(id, Math.min(desk.current.ids.length, taken.length ? Math.max(...taken) + 1 : 1));
}

export function tieWithLast(id) {
  const taken = Object.entries(desk.current.content.ranks).filter(([other]) => other !== id);
  place(id, taken.length ? Math.max(...taken.map(([, rank]) => rank)) : 1);
}

export function judge(verdict) {
  const slate = desk.current;
  const [rankOfA, rankOfB, strength] = VERDICTS[verdict];
  const [a, b] = slate.ids;
  change(
    (content) => Object.assign(content, { ranks: { [a]: rankOfA, [b]: rankOfB }, strength }),
    `${wordsOf(slate.form, verdict)}.`,
  );
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
    if (what === "verdict") judge(field.value);
    if (what === "flags") {
      const ticked = [...slate.form.elements[field.name]].filter((box) => box.checked).map((box) => box.value);
      change((content) => (content.flags[id] = ticked), `${field.checked ? "Flagged" : "No longer flagged"}: ${field.value}.`);
    }
  }
}
