// What the modules of the ranking page share: the project, the slates at hand, and where unacknowledged work is kept.
import { openMemory, openOutbox } from "./memory.js";

export const page = document.querySelector("#slates");
export const { slug, account } = page.dataset;
export const memory = openMemory(account);
export const outbox = openOutbox(memory, `outbox.${slug}`);

export const desk = {
  current: null, // the slate in view
  ahead: [], // fetched, not yet shown
  numToday: Number(page.dataset.today),
  numSubmitted: 0, // on this page
  untilAnother: Number(page.dataset.untilAnother) || null, // rankings until another task is due; null: never
  lastActivity: performance.now(),
  shownAt: 0,
  hasShown: false, // a slate, at any time
  isLeaving: false, // for another task, as soon as what was submitted is stored
  taught: null, // an onboarding slate that was submitted: the next one waits until its lesson was read
};

/** What waits to be sent, in words; nothing if nothing does. */
export function queued() {
  const num = outbox.all().length;
  if (!num) return "";
  return num === 1 ? "One ranking waits to be sent." : `${num} rankings wait to be sent.`;
}
