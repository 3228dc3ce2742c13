// What each key does. Digits, arrows and letters speak to the completion that is highlighted; `commands` are the page's.
import { desk, page } from "./desk.js";
import { drawHere } from "./draw.js";
import { isPlaced, judge, judgeSafety, place, placeNext, rate, tieWithLast, verdictOf, verdictsOf } from "./slate.js";

let commands;
/** Start to listen. */
export function listenToKeys(pageCommands) {
  commands = pageCommands;
  document.addEventListener("keydown", onKey);
}

export function focusCard(card) {
  if (!card) return;
  desk.current.here = card;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
  drawHere();
}

function moveHere(by) {
  const { cards, here } = desk.current;
  focusCard(cards[Math.max(0, Math.min(cards.length - 1, cards.indexOf(here) + by))]);
}

/** The first rank moves on to the next completion without one; a correction stays where it is. */
function placeByKey(id, act) {
  const wasPlaced = isPlaced(desk.current, id);
  act(id);
  if (wasPlaced || !isPlaced(desk.current, id)) return;
  const from = desk.current.ids.indexOf(id);
  const order = [...desk.current.cards.slice(from + 1), ...desk.current.cards.slice(0, from)];
  const next = order.find((card) => !isPlaced(desk.current, card.dataset.id));
  focusCard(next ?? desk.current.here);
}

function openDetails(selector, focused) {
  const details = desk.current.here.querySelector(selector);
  if (!details) return;
  details.open = true;
  details.querySelector(focused).focus();
}

const KEYS = {
  "?": () => commands.keys(),
  s: () => commands.skip(),
  u: () => commands.undo(),
  r: () => commands.redo(),
  v: () => commands.layout(),
  o: () => commands.order(),
  w: () => commands.differences(),
  y: () => commands.together(),
  j: () => moveHere(1),
  k: () => moveHere(-1),
  p: () => desk.current.form.querySelector(".prompt").focus(),
  q: () => desk.current.here.querySelector(".qualities input:checked, .qualities input")?.focus(),
  x: () => openDetails(".flags", "input"),
  n: () => openDetails(".note", "textarea"),
  t: () => !desk.current.isPair && placeByKey(desk.current.here.dataset.id, tieWithLast),
};

// F is a completion's letter where there are more than two.
const PAIR_KEYS = {
  f: () => desk.current.form.querySelector("[name=safety]:checked, [name=safety]")?.focus(),
};

const CARD_KEYS = {
  ArrowDown: () => moveHere(1),
  ArrowUp: () => moveHere(-1),
  Enter: () => !desk.current.isPair && placeByKey(desk.current.here.dataset.id, placeNext),
  Backspace: () => !desk.current.isPair && place(desk.current.here.dataset.id, 0),
  Delete: () => !desk.current.isPair && place(desk.current.here.dataset.id, 0),
  ArrowLeft: () => shift(-1),
  ArrowRight: () => shift(1),
};

/** One column to the left or right on the board, or on the line from A to B. */
function shift(by) {
  if (desk.current.isPair) {
    shiftVerdict(by);
    return;
  }
  const id = desk.current.here.dataset.id;
  place(id, Math.max(0, Math.min(desk.current.ids.length, (desk.current.content.ranks[id] ?? 0) + by)));
}

function shiftVerdict(by) {
  const last = verdictsOf(desk.current).length - 1;
  const index = verdictOf(desk.current);
  const start = index === -1 ? last / 2 : index; // between the two middle ones where there is no middle one
  judge(Math.max(0, Math.min(last, by < 0 ? Math.ceil(start + by) : Math.floor(start + by))));
}

function onDigit(digit, target, isShifted) {
  const id = desk.current.here.dataset.id;
  if (target.closest(".safety")) {
    const field = desk.current.form.querySelectorAll("[name=safety]")[digit - 1];
    if (field) judgeSafety(field);
    field?.focus();
  } else if (isShifted || target.closest(".qualities")) {
    if (digit >= 1 && digit <= 7 && desk.current.here.querySelector(".qualities")) {
      rate(id, digit);
      if (target.closest(".qualities")) focusCard(desk.current.here);
    }
  } else if (desk.current.isPair) {
    if (verdictsOf(desk.current)[digit - 1]) judge(digit - 1);
  } else if (digit <= desk.current.ids.length) {
    placeByKey(id, (placed) => place(placed, digit));
  }
}

function onKey(event) {
  desk.lastActivity = performance.now();
  if (!desk.current || document.querySelector("dialog[open]")) return;
  const { target } = event;
  const isChord = event.ctrlKey || event.metaKey;
  if (isChord && event.key === "Enter") {
    event.preventDefault();
    if (!event.repeat) commands.submit();
    return;
  }
  if (event.key === "Escape" && target.closest(".completion") && target !== desk.current.here) {
    const details = target.closest("details");
    if (details) details.open = false;
    focusCard(desk.current.here);
    return;
  }
  if (target.matches("textarea, select")) return; // its own keys, its own undo
  if (isChord && !event.altKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    commands[event.shiftKey ? "redo" : "undo"]();
    return;
  }
  if (isChord && event.key.toLowerCase() === "y") {
    event.preventDefault();
    commands.redo();
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
  const key = event.key.toLowerCase();
  const act = (isOnCard && CARD_KEYS[event.key]) || (desk.current.isPair && PAIR_KEYS[key]) || KEYS[key];
  if (act) {
    event.preventDefault();
    act();
    return;
  }
  const letter = event.key.length === 1 && desk.current.cards.find((card) => card.dataset.letter === event.key.toUpperCase());
  if (letter) {
    event.preventDefault();
    focusCard(letter);
  }
}

page.addEventListener("focusin", (event) => {
  const card = event.target.closest(".completion");
  if (!card || !desk.current?.form.contains(card) || card === desk.current.here) return;
  desk.current.here = card;
  drawHere();
});
