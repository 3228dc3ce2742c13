// How a slate stands on the screen: stack, columns that scroll together if wished, or a grid; whether completions are
// picked in order; the guidelines beside the prompt. The browser remembers all of it.
import { desk, memory, page, slug } from "./desk.js";
import { say } from "./notices.js";

const LAYOUTS = ["stack", "columns", "grid"];
const guidelines = document.querySelector("#guidelines")?.content.querySelector("details");

export function placeGuidelines(slate) {
  if (!guidelines) return;
  slate.form.querySelector(".guidelines-place").append(guidelines); // one node, moved along: it stays open or shut
}

if (guidelines) {
  const version = guidelines.querySelector("summary").textContent;
  // New ones are open until they are shut once; on a phone they would stand between the prompt and its completions.
  guidelines.open = memory.read(`guidelines.${slug}`) !== version && matchMedia("(min-width: 60rem)").matches;
  guidelines.addEventListener("toggle", () => memory.write(`guidelines.${slug}`, guidelines.open ? null : version));
}

export const isInOrder = () => page.dataset.order === "on";

export function drawLayout() {
  const { form } = desk.current;
  form.querySelector("[data-do=layout] b").textContent = page.dataset.layout;
  form.querySelector("[data-do=order]").setAttribute("aria-pressed", String(isInOrder()));
  const together = form.querySelector("[data-do=together]");
  together.setAttribute("aria-pressed", page.dataset.together === "on" ? "true" : "false");
  together.hidden = page.dataset.layout !== "columns" || desk.current.isPair;
}

export function nextLayout() {
  set("layout", LAYOUTS[(LAYOUTS.indexOf(page.dataset.layout) + 1) % LAYOUTS.length]);
  say(`Layout: ${page.dataset.layout}.`);
}

export function toggleTogether() {
  const isOn = page.dataset.together === "on";
  set("together", isOn ? "off" : "on");
  say(isOn ? "Columns scroll each by itself." : "Columns scroll together.");
}

export function toggleOrder() {
  const isOn = isInOrder();
  set("order", isOn ? "off" : "on");
  say(isOn ? "Picking in order is off." : "Picking in order: choose the best, then the next best.");
}

function set(name, value) {
  page.dataset[name] = value;
  memory.write(name, value);
  if (desk.current) drawLayout();
}

page.dataset.layout = LAYOUTS.includes(memory.read("layout")) ? memory.read("layout") : "stack";
page.dataset.together = memory.read("together") ?? "on";
page.dataset.order = memory.read("order") ?? "off";

const followed = new WeakMap(); // pane -> where we have put it: its scroll event is our own echo
page.addEventListener(
  "scroll",
  (event) => {
    const pane = event.target;
    if (page.dataset.layout !== "columns" || page.dataset.together !== "on" || !pane.matches?.(".completion")) return;
    if (followed.get(pane) === pane.scrollTop) return;
    for (const other of desk.current.cards) {
      if (other === pane) continue;
      other.scrollTop = pane.scrollTop;
      followed.set(other, other.scrollTop); // a short one stops at its end and does not pull the others back
    }
    followed.delete(pane);
  },
  { capture: true, passive: true },
);
