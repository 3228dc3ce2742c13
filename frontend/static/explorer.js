// Choosing labels: what the choice holds follows each change, and so does the address. Without this script the form's
// own button shows the same.

import { localTimes } from "./base.js";

const form = document.getElementById("filter");
const holds = document.getElementById("holds");
const said = document.getElementById("holds-said");
const WAIT_MS = 250;
const KEPT = ["name", "licence"]; // what was typed there outlives a new count
let waiting = 0;
let asking = null;

// The choice as an address has it: nothing that is empty, and no group of boxes that stands as it does by default.
function query() {
  const given = new URLSearchParams();
  const byDefault = new Set();
  for (const group of form.querySelectorAll("fieldset[data-default]")) {
    const boxes = [...group.querySelectorAll("input")];
    const wanted = group.dataset.default.split(",");
    if (!boxes.some((box) => box.checked)) boxes.forEach((box) => (box.checked = wanted.includes(box.value)));
    if (boxes.every((box) => box.checked === wanted.includes(box.value))) byDefault.add(boxes[0].name);
  }
  for (const [name, value] of new FormData(form)) {
    if (value !== "" && !byDefault.has(name)) given.append(name, value);
  }
  return given;
}

async function count() {
  asking?.abort();
  asking = new AbortController();
  const chosen = query();
  holds.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(`${form.dataset.counts}?${chosen}`, { signal: asking.signal });
    if (response.redirected || (!response.ok && response.status !== 422)) return location.assign(`${location.pathname}?${chosen}#choose`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const typed = KEPT.map((id) => document.getElementById(id)?.value);
    holds.replaceChildren(...page.body.childNodes);
    KEPT.forEach((id, place) => {
      const field = document.getElementById(id);
      if (field && typed[place] !== undefined) field.value = typed[place];
    });
    localTimes(holds);
    said.textContent = holds.querySelector("[data-said]")?.dataset.said ?? "";
    history.replaceState(null, "", `${location.pathname}${chosen.size ? `?${chosen}` : ""}`);
    holds.removeAttribute("aria-busy");
  } catch (error) {
    if (error.name !== "AbortError") holds.removeAttribute("aria-busy"); // the form's button is still there
  }
}

form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(count, WAIT_MS);
});
