// Keeps unfinished work: each change in the browser at once, and on the server as a draft soon after. A draft names the
// revision it was made from, so a tab that was left behind cannot overwrite what another one saved.
import { desk, memory, outbox, queued } from "./desk.js";
import { draw, drawClock } from "./draw.js";
import { tell, tellState } from "./notices.js";
import { RETRY_MS, call, isAway } from "./server.js";
import { contentOf, draftKey } from "./slate.js";

const SAVE_AFTER_MS = 700; // of quiet; a draft is no keystroke log

/** Keep a change in the browser now, and on the server soon. */
export function keep(slate) {
  slate.isDirty = true;
  remember(slate);
  saveSoon(slate, SAVE_AFTER_MS);
}

function remember(slate) {
  const { content, revision, isDirty } = slate;
  memory.write(draftKey(slate), isDirty ? { content, revision } : null);
}

export function saveSoon(slate, afterMs) {
  clearTimeout(slate.timer);
  slate.timer = setTimeout(() => save(slate), afterMs);
}

export async function save(slate) {
  clearTimeout(slate.timer);
  if (slate.saving) await slate.saving; // one at a time: each save builds on the one before
  if (!slate.isDirty || slate.isClosed) return;
  slate.saving = saveOnce(slate);
  await slate.saving;
  slate.saving = null;
}

async function saveOnce(slate) {
  // What was not answered may have been stored: it is sent again as it was, and not taken for another tab's work.
  slate.unanswered ??= { revision: slate.revision, content: structuredClone(slate.content) };
  const sent = untimed(slate.unanswered.content);
  const answer = await call("PUT", `/api/v1/leases/${slate.lease}/draft`, slate.unanswered);
  if (!isAway(answer)) slate.unanswered = null;
  if (slate.isClosed) return;
  if (answer.status === 200) {
    slate.revision = answer.data.revision;
    slate.savedAt = performance.now();
    slate.isDirty = untimed(slate.content) !== sent;
    remember(slate);
    if (slate.isDirty) saveSoon(slate, SAVE_AFTER_MS);
    if (!outbox.all().length) tellState(null);
    drawClock();
  } else if (answer.data?.code === "stale_draft") {
    takeNewer(slate, answer.data.draft);
  } else if (answer.data?.code === "lease_ended") {
    close(slate);
    slate.onGone(slate);
  } else {
    tellState(answer, queued());
    if (isAway(answer)) saveSoon(slate, RETRY_MS);
  }
}

/** What was said, without the clock: a second more is no change. */
const untimed = (content) => JSON.stringify({ ...content, active_s: 0, idle_s: 0 });

/** Another tab or machine went on with this slate: show its work; ours stays one Undo away. */
function takeNewer(slate, draft) {
  slate.undo.push(JSON.stringify(slate.content));
  slate.redo = [];
  slate.content = contentOf(draft.content, slate.ids);
  slate.revision = draft.revision;
  slate.isDirty = false;
  remember(slate);
  tell("This slate was changed in another tab or on another machine; this is its newest state. Undo brings back yours.");
  if (slate === desk.current) draw();
}

/** Nothing more is saved from this one: its work goes on elsewhere. */
export function retire(slate) {
  slate.isClosed = true;
  clearTimeout(slate.timer);
}

/** Nothing more is said about the slate: it was submitted, given back, or lost to another tab. */
export function close(slate) {
  retire(slate);
  memory.write(draftKey(slate), null);
}
