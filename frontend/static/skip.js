// The dialog that gives a slate back, with a reason: to others (skip), or for good (cannot be ranked).
import { desk } from "./desk.js";
import { call, isAway } from "./server.js";

const dialog = document.querySelector("#skip-dialog");
const WORDS = {
  skip: ["Skip this slate", "Someone else gets it; you will not see it again."],
  cannot_rank: ["This slate cannot be ranked", "Tell what is wrong with it; you will not see it again."],
};

/** A function that asks for the reason; `onGivenBack(slate)` hears that the server has taken the slate. */
export function openSkipDialog(onGivenBack) {
  dialog.querySelector("form").addEventListener("submit", (event) => {
    if (event.submitter?.value !== "confirm") return;
    event.preventDefault();
    giveBack(onGivenBack);
  });
  return ask;
}

function ask(kind) {
  if (!desk.current) return;
  dialog.dataset.kind = kind;
  [dialog.querySelector("h2").textContent, dialog.querySelector("#skip-hint").textContent] = WORDS[kind];
  for (const group of dialog.querySelectorAll("[data-kind]")) group.hidden = group.dataset.kind !== kind;
  for (const field of dialog.querySelectorAll("input")) field.checked = false;
  dialog.querySelector("textarea").value = "";
  dialog.querySelector("#skip-problem").textContent = "";
  dialog.showModal();
}

async function giveBack(onGivenBack) {
  const chosen = dialog.querySelector("input:checked")?.value ?? "";
  const detail = dialog.querySelector("textarea").value.trim();
  const reason = [chosen, detail].filter(Boolean).join(": ");
  const problem = dialog.querySelector("#skip-problem");
  if (!reason) {
    problem.textContent = "Choose a reason, or write one.";
    return;
  }
  const slate = desk.current;
  const answer = await call("POST", `/api/v1/leases/${slate.lease}/skip`, { kind: dialog.dataset.kind, reason });
  if (answer.status !== 204 && answer.data?.code !== "lease_ended") {
    problem.textContent = isAway(answer) ? "The server cannot be reached; try again in a moment." : answer.data?.detail;
    return;
  }
  dialog.close();
  await onGivenBack(slate);
}
