// Marks what differs between two completions of the slate in view. The marks are elements with a line under them, not
// a colour alone, and a sentence says how many words they are.
import { desk } from "./desk.js";
import { say } from "./notices.js";
import { differing, wordsOf } from "./words.js";

let marked = []; // the texts that carry marks

/** On with the two that are ranked best, or the first two; off when it is on. */
export function toggleDifferences() {
  const slate = desk.current;
  if (!slate) return;
  if (isOn(slate)) {
    stopDifferences();
    say("Differences are off.");
    return;
  }
  const rank = (id) => slate.content.ranks[id] ?? Infinity;
  const [first, second] = [...slate.ids].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b))); // stable
  const [one, other] = choices(slate);
  [one.value, other.value] = [slate.letter[first], slate.letter[second]].sort();
  draw(slate, true);
}

/** A choice of which two. */
export function onChoice(event) {
  if (event.target.closest(".compared")) draw(desk.current, true);
}

export function stopDifferences() {
  unmark();
  if (desk.current) draw(desk.current, false);
}

const isOn = (slate) => !slate.form.querySelector(".compared").hidden;
const choices = (slate) => slate.form.querySelectorAll(".compared select");

function draw(slate, isWanted) {
  unmark();
  slate.form.querySelector(".compared").hidden = !isWanted;
  slate.form.querySelector("[data-do=differences]").setAttribute("aria-pressed", String(isWanted));
  if (!isWanted) return;
  const letters = Array.from(choices(slate), (choice) => choice.value);
  const words = describe(letters, markDifferences(letters.map((letter) => textOf(slate, letter))));
  slate.form.querySelector(".compared output").textContent = words;
  say(words);
}

const textOf = (slate, letter) => slate.form.querySelector(`.completion[data-letter="${letter}"] .text`);

function describe([first, second], [numFirst, numSecond]) {
  if (first === second) return "Choose two different ones.";
  if (!numFirst && !numSecond) return `${first} and ${second} say the same, word for word.`;
  const num = (count) => (count === 1 ? "1 word" : `${count} words`);
  return `Marked: ${num(numFirst)} of ${first}, ${num(numSecond)} of ${second}.`;
}

/** Mark both texts; returns how many words each has that the other lacks. */
function markDifferences(texts) {
  const pieces = texts.map(piecesOf);
  const only = differing(...pieces.map((of) => of.map((piece) => piece.word)));
  texts.forEach((text, index) => mark(pieces[index].filter((_, place) => only[index].has(place))));
  marked = texts;
  return only.map((places) => places.size);
}

/** The words of a text with the nodes they stand in; a formula is one word. */
function piecesOf(text) {
  const pieces = [];
  const accept = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return NodeFilter.FILTER_ACCEPT;
    if (node.localName !== "math") return NodeFilter.FILTER_SKIP;
    pieces.push({ word: node.outerHTML, node });
    return NodeFilter.FILTER_REJECT;
  };
  const walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT, accept);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    for (const piece of wordsOf(node.data)) pieces.push({ ...piece, node });
  }
  return pieces;
}

function mark(pieces) {
  for (const [node, ofNode] of byNode(pieces)) {
    if (node.nodeType !== Node.TEXT_NODE) {
      wrap(node);
      continue;
    }
    for (const { start, end } of runs(ofNode, node.data).reverse()) {
      const words = node.splitText(start); // from the last one on: what stands before keeps its places
      words.splitText(end - start);
      wrap(words);
    }
  }
}

function byNode(pieces) {
  const groups = new Map();
  for (const piece of pieces) {
    if (!groups.has(piece.node)) groups.set(piece.node, []);
    groups.get(piece.node).push(piece);
  }
  return groups;
}

/** Words with only spaces between them are marked as one. */
function runs(pieces, text) {
  const found = [];
  for (const { start, end } of pieces) {
    const last = found.at(-1);
    if (last && text.slice(last.end, start).trim() === "") last.end = end;
    else found.push({ start, end });
  }
  return found;
}

function wrap(node) {
  const element = document.createElement("mark");
  node.replaceWith(element);
  element.append(node);
}

function unmark() {
  for (const text of marked) {
    for (const element of text.querySelectorAll("mark")) element.replaceWith(...element.childNodes);
    text.normalize();
  }
  marked = [];
}
