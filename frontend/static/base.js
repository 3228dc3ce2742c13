// What every page does: times in the reader's own zone, menus that close, forms that are not sent twice.

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function localTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
    time.title = time.textContent; // UTC stays one hover away
    time.textContent = zone.format(new Date(time.dateTime));
  }
}

export function csrfToken() {
  return document.querySelector("meta[name=csrf-token]").content;
}

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) {
    event.preventDefault();
    return;
  }
  if (event.target.method === "post" && !event.defaultPrevented) {
    const buttons = event.target.querySelectorAll("button:not([type=button])");
    // After the browser has read the form: a disabled button would not be part of it.
    setTimeout(() => buttons.forEach((button) => (button.disabled = button.dataset.sent = true)));
  }
});

// A page that Back brings out of the cache must be usable again.
window.addEventListener("pageshow", () => {
  document.querySelectorAll("button[data-sent]").forEach((button) => {
    button.disabled = false;
    delete button.dataset.sent;
  });
});

// On a phone the tabs scroll: show the one we are on.
document.querySelector(".tabs [aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "center" });

localTimes();
