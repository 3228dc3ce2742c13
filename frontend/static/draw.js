// Draws what the labeler has said into the slate's own form fields and board.
import { desk, memory, slug } from "./desk.js";
import { contradiction, isComplete, isPlaced, verdictOf, verdictsOf } from "./slate.js";
import { drawLayout, isInOrder } from "./layout.js";

export function draw() {
  const slate = desk.current;
  if (!slate) return;
  const { content, form } = slate;
  for (const card of slate.cards) drawCard(slate, card);
  for (const chips of form.querySelectorAll(".chips")) sortChips(chips);
  if (desk.taught) return; // its lesson stands, or will stand, where the board is
  form.querySelector(".board")?.classList.toggle("is-complete", isComplete(slate));
  if (slate.isPair) drawVerdict(slate);
  fill(form.querySelector(".slate-note textarea"), content.note);
  count(form.querySelector(".slate-note .count"), content.note.trim() ? "1" : "");
  form.querySelector(".remark").textContent = contradiction(slate);
  drawBar(slate);
  drawLayout();
  drawOrder(slate);
  drawHere();
  drawClock();
}

function drawCard(slate, card) {
  const { content, form } = slate;
  const { id, letter } = card.dataset;
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

function sortChips(chips) {
  const inOrder = [...chips.children].sort((a, b) => a.textContent.localeCompare(b.textContent));
  if (inOrder.some((chip, place) => chips.children[place] !== chip)) chips.append(...inOrder);
}

function drawVerdict(slate) {
  const { content, form } = slate;
  const index = verdictOf(slate);
  check(form, "verdict", index + 1);
  form.querySelector(".chosen").textContent = verdictsOf(slate)[index]?.words ?? "";
  const answers = slate.ids.map((id) => (content.is_safe[id] === undefined ? "?" : Number(content.is_safe[id])));
  for (const field of form.querySelectorAll("[name=safety]")) field.checked = field.dataset.safe === answers.join(" ");
}

function drawBar(slate) {
  const { form } = slate;
  const submit = form.querySelector(".submit");
  submit.setAttribute("aria-disabled", String(!isComplete(slate)));
  submit.title = isComplete(slate) ? "" : slate.isPair ? "Answer first" : "Every completion needs a rank first";
  form.querySelector("[data-do=undo]").disabled = !slate.undo.length;
  form.querySelector("[data-do=redo]").disabled = !slate.redo.length;
  form.querySelector("[data-do=take_back]").hidden = !memory.read(`last.${slug}`);
  form.querySelector(".place").textContent = `slate ${desk.numToday + 1} today`;
}

function drawOrder(slate) {
  const num = slate.ids.filter((id) => isPlaced(slate, id)).length;
  const words = num === 0 ? "Choose the best." : `Choose the next best: ${num + 1} of ${slate.ids.length}.`;
  const isShown = isInOrder() && !slate.isPair && num < slate.ids.length;
  slate.form.querySelector(".order-hint").textContent = isShown ? words : "";
}

export function drawHere() {
  for (const card of desk.current.cards) card.classList.toggle("is-here", card === desk.current.here);
}

export function drawClock() {
  const slate = desk.current;
  if (!slate || desk.taught) return;
  const seconds = Math.round(slate.content.active_s);
  slate.form.querySelector(".timer").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  slate.form.querySelector(".saved").textContent = slate.draft.isDirty ? "saving…" : savedWords(slate.draft.savedAt);
}

function savedWords(savedAt) {
  if (savedAt === null) return "";
  const ago = Math.round((performance.now() - savedAt) / 1000);
  if (ago < 5) return "saved";
  return ago < 90 ? `saved ${ago} s ago` : `saved ${Math.round(ago / 60)} min ago`;
}

function check(form, name, value) {
  for (const radio of form.querySelectorAll(`[name="${name}"]`)) radio.checked = radio.value === String(value);
}

function fill(field, words) {
  if (field && field.value !== words) field.value = words;
}

function count(place, words) {
  if (place) place.textContent = words;
}
