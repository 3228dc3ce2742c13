// What the pages of writing and conversing share: the time at work, pieces of a page fetched anew, the name of the chord.
import { call } from "./server.js";

const IDLE_AFTER_MS = 60_000; // without a key or a pointer, time is not counted as work

/** Seconds of work since the page was opened, pauses left out; `before` were worked already. */
export function openTimer(before) {
  let seconds = before;
  let lastActivity = Date.now();
  for (const event of ["keydown", "pointermove", "scroll"]) {
    document.addEventListener(event, () => (lastActivity = Date.now()), { passive: true });
  }
  setInterval(() => {
    if (!document.hidden && Date.now() - lastActivity < IDLE_AFTER_MS) seconds += 1;
  }, 1000);
  return { now: () => seconds };
}

/** Fetches a piece of the page anew soon after the last wish; late answers to earlier wishes are dropped. */
export function openLook(place, path) {
  let timer = null;
  let asked = 0;
  return function look(content) {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++asked;
      const answer = await call("POST", path, { content });
      if (answer.status === 200 && mine === asked) place.innerHTML = answer.data;
    }, 300);
  };
}

export function nameChord(root) {
  if (!/Mac|iPhone|iPad/.test(navigator.platform)) return;
  for (const chord of root.querySelectorAll(".chord")) chord.textContent = "⌘+Enter";
}
