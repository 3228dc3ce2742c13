// After an onboarding slate: the researchers' ranks beside the labeler's own, and their reason, on the slate itself.
import { say } from "./notices.js";

const template = document.querySelector("#lesson");

/** Show the lesson on a slate that was just submitted; the button that is focused goes on. */
export function showLesson(slate, mine, { ranks, reason, agreement, outcome }) {
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
