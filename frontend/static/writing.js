// Keeps a text that is being written: with every change in the browser, soon after on the server. A draft names the
// revision it was made from, so a tab that was left behind cannot overwrite what another one saved.
import { RETRY_MS, call, isAway } from "./server.js";

const SAVE_AFTER_MS = 700; // of quiet; a draft is no keystroke log
const IDLE_AFTER_MS = 60_000; // without a key or a pointer, time is not counted as work

/**
 * id: of the piece of writing. revision, content: the server's draft. Where this browser holds a later one that never
 * reached the server, `content` of the result is that.
 * on.newer(content, mine): another tab or machine went on; on.ended(): submitted or given back elsewhere;
 * on.state(answer): the server's last answer; on.saved(): a draft was stored; on.isSent(): it was submitted and the
 * answer is awaited.
 */
export function openDraft({ id, revision, content, memory, on }) {
  const key = `writing.${id}`;
  const kept = memory.read(key);
  const isLater = kept !== null && kept.revision >= revision;
  const draft = { content: isLater ? kept.content : content, change, save, stop, close, isDirty: isLater };
  let timer = null;
  let saving = null;
  let unanswered = null; // may have been stored: sent again as it was, or the server would take it for another tab's
  let isClosed = false;
  const listening = new AbortController();

  function remember() {
    memory.write(key, draft.isDirty ? { revision, content: draft.content } : null);
  }

  function change(changed) {
    if (isClosed || JSON.stringify(changed) === JSON.stringify(draft.content)) return;
    draft.content = changed;
    draft.isDirty = true;
    remember();
    saveAfter(SAVE_AFTER_MS);
  }

  function saveAfter(ms) {
    clearTimeout(timer);
    timer = setTimeout(save, ms);
  }

  async function save() {
    clearTimeout(timer);
    if (saving) await saving; // one at a time: each save builds on the one before
    if (!draft.isDirty || isClosed || on.isSent()) return; // what waits in the outbox is the last word
    saving = saveOnce();
    await saving;
    saving = null;
  }

  async function saveOnce() {
    unanswered ??= { revision, content: draft.content };
    const sent = JSON.stringify(unanswered.content);
    const answer = await call("PUT", `/api/v1/writings/${id}/draft`, unanswered);
    if (!isAway(answer)) unanswered = null;
    if (isClosed || on.isSent()) return;
    if (answer.status === 200) {
      revision = answer.data.revision;
      draft.isDirty = JSON.stringify(draft.content) !== sent;
      remember();
      on.saved();
      if (draft.isDirty) saveAfter(SAVE_AFTER_MS);
    } else if (answer.data?.code === "stale_draft") {
      const mine = draft.content;
      revision = answer.data.draft.revision;
      draft.content = answer.data.draft.content;
      draft.isDirty = false;
      remember();
      on.newer(draft.content, mine);
      return;
    } else if (answer.data?.code === "writing_ended") {
      on.ended();
      return;
    } else if (isAway(answer)) {
      saveAfter(RETRY_MS);
    }
    on.state(answer);
  }

  /** Nothing more is kept: it was submitted, or given back. */
  function close() {
    stop();
    memory.write(key, null);
  }

  /** What is kept stays, for whoever opens the draft next. */
  function stop() {
    isClosed = true;
    clearTimeout(timer);
    listening.abort();
  }

  if (draft.isDirty) saveAfter(0);
  document.addEventListener("visibilitychange", () => document.hidden && save(), { signal: listening.signal });
  window.addEventListener("online", save, { signal: listening.signal });
  return draft;
}

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
