// How a slate stands on the screen: stack or columns, and the guidelines beside the prompt; remembered by the browser.
import { desk, memory, page, slug } from "./desk.js";

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

export function drawLayout() {
  desk.current.form.querySelector("[data-do=layout]").textContent = page.dataset.layout === "stack" ? "Columns" : "Stack";
}

export function nextLayout() {
  setLayout(page.dataset.layout === "stack" ? "columns" : "stack");
}

function setLayout(layout) {
  page.dataset.layout = layout;
  if (desk.current) drawLayout();
  memory.write("layout", layout);
}
setLayout(memory.read("layout") ?? "stack");
