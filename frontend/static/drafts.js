// Keeps unfinished work, a ranking or a text: each change in the browser at once, and on the server soon after. A save
// names the revision it was made from, so a tab that was left behind overwrites nothing. What was not answered may have
// been stored: it is sent again as it was, or the server would take it for another tab's.
import { RETRY_MS, call, isAway } from "./server.js";

const SAVE_AFTER_MS = 700; // of quiet; a draft is no keystroke log
const ENDED = ["lease_ended", "writing_ended"];

/**
 * path: where the draft is saved. key: its name in the browser's memory. revision, content: the server's draft.
 * read(content): brings what was kept or saved elsewhere into this page's form.
 * on.newer(content, mine): another tab or machine went on; on.ended(): submitted or given back elsewhere;
 * on.state(answer): the server's last answer; on.saved(): a draft was stored; on.isSent(): it was submitted and the
 * answer is awaited.
 *
 * What this browser still holds is what the draft opens with: the server says whether somebody went on meanwhile.
 */
export function openDraft({ path, key, memory, revision, content, read = (kept) => kept ?? {}, on }) {
  const kept = memory.read(key);
  const draft = {
    content: kept ? read(kept.content) : content,
    revision: kept ? Math.min(kept.revision ?? 0, revision) : revision,
    isDirty: kept !== null,
    isClosed: false,
    savedAt: revision ? performance.now() : null,
    change,
    keep,
    state,
    save,
    stop,
    close,
  };
  let timer = null;
  let saving = null;
  let unanswered = kept?.unanswered ?? null;
  const listening = new AbortController();

  /** What the browser keeps of it. */
  function state() {
    return { revision: draft.revision, content: draft.content, unanswered };
  }

  function remember() {
    memory.write(key, draft.isDirty ? state() : null);
  }

  function change(changed) {
    if (draft.isClosed || untimed(changed) === untimed(draft.content)) return;
    draft.content = changed;
    keep();
  }

  /** The content was changed: keep it in the browser now, and on the server soon. */
  function keep() {
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
    while (saving) await saving; // one at a time: each save builds on the one before
    if (!draft.isDirty || draft.isClosed || on.isSent?.()) return; // what waits in the outbox is the last word
    saving = saveOnce();
    await saving;
    saving = null;
  }

  async function saveOnce() {
    unanswered ??= { revision: draft.revision, content: structuredClone(draft.content) };
    const sent = untimed(unanswered.content);
    remember(); // with what is on its way: a reload must not take it for another tab's either
    const answer = await call("PUT", path, { revision: unanswered.revision, content: unanswered.content });
    if (!isAway(answer)) unanswered = null;
    if (draft.isClosed || on.isSent?.()) return;
    if (answer.status === 200) onSaved(answer, sent);
    else if (answer.data?.code === "stale_draft") takeNewer(answer.data.draft);
    else if (ENDED.includes(answer.data?.code)) {
      close();
      on.ended();
    } else {
      on.state(answer);
      if (isAway(answer) || untimed(draft.content) !== sent) saveAfter(RETRY_MS);
    }
  }

  function onSaved(answer, sent) {
    draft.revision = answer.data.revision;
    draft.savedAt = performance.now();
    draft.isDirty = untimed(draft.content) !== sent;
    remember();
    if (draft.isDirty) saveAfter(SAVE_AFTER_MS);
    on.state(answer);
    on.saved();
  }

  function takeNewer(newer) {
    const mine = draft.content;
    draft.content = read(newer.content);
    draft.revision = newer.revision;
    draft.isDirty = false;
    remember();
    on.newer(draft.content, mine);
  }

  /** Nothing more is kept: it was submitted, given back, or lost to another tab. */
  function close() {
    stop();
    memory.write(key, null);
  }

  /** What is kept stays, for whoever opens the draft next. */
  function stop() {
    draft.isClosed = true;
    clearTimeout(timer);
    listening.abort();
  }

  if (draft.isDirty) saveAfter(0);
  document.addEventListener("visibilitychange", () => document.hidden && save(), { signal: listening.signal });
  window.addEventListener("online", save, { signal: listening.signal });
  return draft;
}

/** What was said, without the clock: a second more is no change. */
const untimed = (content) => JSON.stringify({ ...content, active_s: 0, idle_s: 0 });
