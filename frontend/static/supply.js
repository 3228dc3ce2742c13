// The slates at hand: one in view and one ahead of it, asked for before they are needed and kept ours while the page is
// open; and when the mix of tasks has another one for us.
import { desk, outbox, page, queued, slug } from "./desk.js";
import { draw } from "./draw.js";
import { tell, tellState } from "./notices.js";
import { call, isAway, tryAgain } from "./server.js";
import { adopt, cardOf, draftKey } from "./slate.js";

const LEADS_ON = ["guidelines_not_accepted", "onboarding_waits"];
const waiting = document.querySelector("#waiting");
const leaseDurationMs = 1000 * Number(page.dataset.leaseDuration);

let pageOf = null; // { show, onGone }: what the page does with a slate
let fetching = null;

/** Keep what is shown ours; `show(slate)` puts one into view, `onGone(slate)` hears that another tab has ended one. */
export function openSupply(handlers) {
  pageOf = handlers;
  setInterval(renew, Math.max(5_000, leaseDurationMs / 3));
}

export const goToNextTask = () => location.assign(`/projects/${slug}/work`);

/** Ask for what is ours: one slate in view and one ahead. `first`: the lease to show now, if it is among them. */
export function fetchAhead(wanted = 2, first = null) {
  fetching = (fetching ?? Promise.resolve()).then(() => fetchNow(wanted, first));
  return fetching;
}

async function fetchNow(wanted, first) {
  const unacknowledged = outbox.all().map((item) => item.lease);
  const held = [...(desk.current ? [desk.current] : []), ...desk.ahead].map((slate) => slate.lease);
  if (!first && held.length >= 2) return;
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const numKnown = desk.numSubmitted - unacknowledged.length; // to the server, when it answers
  const answer = await call("POST", `/api/v1/projects/${slug}/leases/screens`, {
    wanted,
    have: [...held, ...unacknowledged],
    since: today.toISOString(),
  });
  if (!desk.current && LEADS_ON.includes(answer.data?.code)) {
    location.reload(); // there is a page for it
    return;
  }
  if (answer.status !== 200) {
    if (!desk.current || !isAway(answer)) tellState(answer, queued());
    tryAgain(fetchAhead);
    return;
  }
  if (!outbox.all().length) tellState(null);
  take(new DOMParser().parseFromString(answer.data, "text/html"), first, numKnown);
}

/** Put the slates that came where they belong. */
function take(fetched, first, numKnown) {
  const { today, untilAnother } = fetched.querySelector("[data-today]").dataset;
  desk.numToday = Number(today) + outbox.all().length;
  desk.untilAnother = untilAnother ? Math.max(0, Number(untilAnother) - (desk.numSubmitted - numKnown)) : null;
  for (const form of fetched.querySelectorAll("form.slate")) {
    const slate = adopt(document.importNode(form, true), pageOf.onGone);
    if (desk.current && !desk.current.draft.isClosed && draftKey(slate) === draftKey(desk.current)) goOnUnder(slate);
    else if (slate.lease === first) desk.ahead.unshift(slate);
    else desk.ahead.push(slate);
  }
  if (desk.isLeaving) return;
  if (!desk.current && desk.ahead.length) pageOf.show(desk.ahead.shift());
  else draw();
  if (desk.current) return;
  if (desk.hasShown && desk.untilAnother !== null && !outbox.all().length) {
    goToNextTask(); // no slate is left, and there is something else to do
    return;
  }
  waiting.hidden = false;
  tryAgain(fetchAhead);
}

/** The slate in view came back under a new lease: go on with it. */
function goOnUnder(slate) {
  const { draft, undo, redo, here } = desk.current;
  draft.stop();
  Object.assign(slate, { undo, redo, here: cardOf(slate, here.dataset.id) });
  slate.draft.revision = Math.max(slate.draft.revision, draft.revision);
  slate.draft.content = draft.content;
  slate.draft.keep();
  pageOf.show(slate);
  tell("This slate's time had run out while you were away. It is yours again, with your work.");
}

export async function renew() {
  // A tab that was forgotten lets go: others get the slate, and what was done on it stays.
  if (performance.now() - desk.lastActivity > leaseDurationMs) return;
  for (const slate of [...(desk.current ? [desk.current] : []), ...desk.ahead]) {
    const answer = await call("POST", `/api/v1/leases/${slate.lease}/renewal`);
    if (answer.data?.code !== "lease_ended" || slate.draft.isClosed) continue;
    if (slate === desk.current) {
      tell("This slate's time ran out and someone else has it now. You may still submit: your ranking is kept.");
      fetchAhead(2, slate.lease); // it may be free again by now
    } else {
      slate.draft.stop();
      desk.ahead = desk.ahead.filter((other) => other !== slate);
      fetchAhead();
    }
  }
}
