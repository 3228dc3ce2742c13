// After an onboarding slate: the researchers' ranks beside the labeler's own, and their reason, on the slate itself. The
// next slate waits until that was read.
import { desk, memory, outbox, slug } from "./desk.js";
import { say } from "./notices.js";
import { dense } from "./slate.js";

const template = document.querySelector("#lesson");

/** The slate was submitted under this id: its lesson comes with the answer. */
export function awaitLesson(slate, id) {
  memory.write(`last.${slug}`, null); // it is no secret any more: nothing to take back
  desk.taught = { id, slate, mine: dense(slate.content.ranks), isShown: false };
  slate.form.querySelector(".remark").textContent = "Sent. The researchers' answer is on its way.";
}

/** Another tab may have sent what we wait for, and has its answer. */
export function lookForLesson() {
  if (!desk.taught || desk.taught.isShown || outbox.all().some((item) => item.id === desk.taught.id)) return;
  openLesson(desk.taught.id);
}

const openLesson = (id) => location.assign(`/projects/${slug}/onboarding/${id}`);

export function learn(id, lesson) {
  if (desk.taught?.id !== id) {
    openLesson(id); // its slate is no longer here: a page of its own
    return;
  }
  const { slate, mine } = desk.taught;
  desk.taught.isShown = true;
  desk.shownAt = performance.now();
  showLesson(slate, mine, lesson);
}

/** Whether a lesson stands on the screen, and with that is over. */
export function wasRead() {
  if (!desk.taught?.isShown) return false;
  desk.taught = null;
  return true;
}

/** Whether the answer about this ranking, which has come, brought none. */
export function hasNoLesson(id) {
  if (desk.taught?.id !== id || desk.taught.isShown) return false;
  desk.taught = null;
  return true;
}

/** Show the lesson on a slate that was just submitted; the button that is focused goes on. */
function showLesson(slate, mine, { ranks, reason, agreement, outcome }) {
  for (const card of slate.cards) {
    const { id } = card.dataset;
    const line = document.createElement("p");
    line.className = "lesson-ranks";
    line.textContent = `You: ${mine[id]} · Researchers: ${ranks[id]}`;
    line.classList.toggle("is-alike", mine[id] === ranks[id]);
    card.querySelector("header").append(line);
  }
  const section = template.content.firstElementChild.cloneNode(true);
  section.querySelector(".lesson-agreement").textContent = `You ordered ${Math.round(100 * agreement)} % of the pairs as they did. ${outcome}`;
  section.querySelector(".lesson-reason").textContent = reason;
  slate.form.querySelector(".dock").replaceChildren(section);
  for (const fields of slate.form.querySelectorAll("fieldset")) fields.disabled = true;
  section.querySelector("button").focus();
  say(`${section.querySelector(".lesson-agreement").textContent} ${reason}`);
}
