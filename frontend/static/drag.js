// Chips and letters dragged onto the board, by mouse or by finger; a tap on a chip, or anywhere on a completion while
// picking in order, picks the best, then the next best.
import { desk, page } from "./desk.js";
import { drawHere } from "./draw.js";
import { focusCard } from "./keys.js";
import { isInOrder } from "./layout.js";
import { cardOf, isPlaced, place, placeNext } from "./slate.js";

const DRAG_FROM_PX = 5;
let drag = null;

page.addEventListener("pointerdown", (event) => {
  desk.lastActivity = performance.now();
  const grip = event.target.closest(".chip, .grip");
  if (!grip || event.button !== 0 || !desk.current || desk.current.isPair) return;
  const id = grip.dataset.id ?? grip.closest(".completion").dataset.id;
  drag = { id, isChip: grip.matches(".chip"), x: event.clientX, y: event.clientY, ghost: null };
  grip.setPointerCapture(event.pointerId);
  if (event.pointerType === "mouse") event.preventDefault(); // no text is selected on the way
});

page.addEventListener("pointermove", (event) => {
  if (!drag) return;
  if (!drag.ghost && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG_FROM_PX) return;
  drag.ghost ??= liftGhost(desk.current.letter[drag.id]);
  drag.ghost.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -60%)`;
  const over = columnAt(event);
  for (const column of desk.current.form.querySelectorAll(".column")) column.classList.toggle("is-over", column === over);
});

page.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { id, ghost, isChip } = drag;
  const column = columnAt(event);
  endDrag();
  if (ghost) {
    if (column) place(id, Number(column.dataset.rank));
  } else if ((isChip || isInOrder()) && !isPlaced(desk.current, id)) {
    placeNext(id);
    desk.current.here = cardOf(desk.current, id);
    drawHere();
  } else {
    focusCard(cardOf(desk.current, id));
  }
});

page.addEventListener("pointercancel", endDrag);

function liftGhost(letter) {
  const ghost = document.createElement("span");
  ghost.className = "chip ghost";
  ghost.textContent = letter;
  document.body.append(ghost);
  page.classList.add("is-dragging");
  return ghost;
}

function endDrag() {
  drag?.ghost?.remove();
  drag = null;
  page.classList.remove("is-dragging");
  for (const column of page.querySelectorAll(".is-over")) column.classList.remove("is-over");
}

function columnAt(event) {
  return document.elementFromPoint(event.clientX, event.clientY)?.closest(".column") ?? null;
}

page.addEventListener("click", (event) => {
  const card = event.target.closest(".completion");
  if (!card || !isInOrder() || desk.current?.isPair || desk.current?.draft.isClosed) return;
  if (event.target.closest("a, button, input, label, select, summary, textarea, .grip")) return;
  if (!getSelection().isCollapsed) return; // words were selected, not a completion
  const { id } = card.dataset;
  if (isPlaced(desk.current, id)) place(id, 0);
  else placeNext(id);
});
