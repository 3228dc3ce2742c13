// The forms of rounds: what it would take follows the settings as they are typed, and risky values are marked. Without
// this script the form's own button asks for the estimate, and the server marks the values.

const form = document.querySelector(".start-form");
const WAIT_MS = 600;
let waiting = 0;
let asked = 0;

function mark(field) {
  const risk = document.getElementById(field.getAttribute("aria-describedby"))?.querySelector(".risk");
  if (!risk) return;
  const value = field.value.trim();
  const { above, below, equals } = risk.dataset;
  const isRisky =
    (above !== undefined && Number(value) > Number(above)) ||
    (below !== undefined && value !== "" && Number(value) < Number(below)) ||
    (equals !== undefined && value === equals);
  risk.classList.toggle("is-risky", isRisky);
}

async function estimate() {
  const mine = ++asked;
  const body = new URLSearchParams(new FormData(form));
  body.set("act", "estimate");
  const response = await fetch(form.action, { method: "POST", body }).catch(() => null);
  if (!response?.ok || mine !== asked) return; // the button is still there
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("estimate");
  const shown = document.getElementById("estimate");
  if (fresh && mine === asked && !shown.contains(document.activeElement)) shown.replaceWith(fresh);
}

form.addEventListener("input", (event) => {
  mark(event.target);
  clearTimeout(waiting);
  waiting = setTimeout(estimate, WAIT_MS);
});
