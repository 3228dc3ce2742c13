// What a page of work says of itself: the banner (#banner) tells what happened to the work and that nothing is lost,
// the live region (#said) tells screen readers what each change did.
import { isAccepted, isAway, isSignedOut } from "./server.js";

const banner = document.querySelector("#banner");

export function say(words) {
  document.querySelector("#said").textContent = words;
}

let news = ""; // of the work

/** News of the work; it stays until the next submit. */
export function tell(words) {
  news = words;
  show("work", words);
}

export function forgetNews() {
  news = "";
  if (banner.dataset.about === "work") banner.hidden = true;
}

/** News of the server: gone when it answers again. `queued` says what waits to be sent, if anything does. */
export function tellState(answer, queued = "") {
  if (!answer || isAccepted(answer)) {
    if (banner.dataset.about === "server") banner.hidden = true;
    if (news) show("work", news); // what the server's trouble had covered
  } else if (isAway(answer)) {
    const words = "The server cannot be reached. Go on working: everything is kept in this browser and sent when it is back.";
    show("server", `${words} ${queued}`);
  } else if (isSignedOut(answer)) {
    show("server", `You are signed out. Your work is kept in this browser: sign in again and it goes on. ${queued}`);
    const link = document.createElement("a");
    link.href = `/sign-in?next=${encodeURIComponent(location.pathname)}`;
    link.textContent = "Sign in";
    banner.append(" ", link);
  } else {
    show("server", answer.data?.detail ?? "The server refused this; your work is kept in this browser.");
  }
}

function show(about, words) {
  const said = words.trim();
  if (!banner.hidden && banner.textContent === said) return; // said already: a screen reader need not repeat it
  banner.textContent = said;
  banner.dataset.about = about;
  banner.hidden = false;
}
