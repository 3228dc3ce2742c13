// Calls to the server that may fail for a while: nothing that was to be sent is given up before it was answered.
import { csrfToken } from "./base.js";

const TIMEOUT_MS = 20_000;
export const RETRY_MS = 3_000;

/** The answer's status (0: none came) and its JSON or text. */
export async function call(method, path, body) {
  try {
    const response = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrfToken() },
      body: JSON.stringify(body ?? {}),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const words = await response.text();
    const isJSON = words !== "" && /json/.test(response.headers.get("Content-Type") ?? "");
    return { status: response.status, data: isJSON ? JSON.parse(words) : words };
  } catch {
    return { status: 0, data: null };
  }
}

// No answer, a server that restarts, too many requests: nothing is wrong with what we sent, so it is sent again.
export const isAway = (answer) => answer.status === 0 || answer.status >= 500 || answer.status === 429;

// After a new sign-in the work goes on: it is not refused either.
export const isSignedOut = (answer) => answer.status === 401 || answer.data?.code === "stale_form";

export const isAccepted = (answer) => answer.status >= 200 && answer.status < 400;

const retries = new Map();
/** Try again in a while; a second wish for the same thing replaces the first. */
export function tryAgain(act) {
  clearTimeout(retries.get(act));
  retries.set(act, setTimeout(() => act(), RETRY_MS));
}

/**
 * A function that sends what the outbox holds, one after the other, until it is empty or the server is away; then it
 * tries again by itself. `onAnswer(answer, item)` hears every answer; the item has left the outbox if it was final.
 * `onOthersSent()` hears that what the server did not take from here has been sent by another tab since.
 */
export function openSender(outbox, onAnswer, onOthersSent) {
  let sending = null;
  let isOwed = false;
  async function sendAll() {
    let item;
    while ((item = outbox.all()[0])) {
      const answer = await call("POST", item.path, item.form);
      const isFinal = !isAway(answer) && !isSignedOut(answer);
      isOwed = !isFinal;
      if (isFinal) outbox.remove(item.id);
      onAnswer(answer, item);
      if (!isFinal) {
        tryAgain(send);
        return;
      }
    }
    if (isOwed) onOthersSent();
    isOwed = false;
  }
  function send() {
    sending ??= sendAll().finally(() => (sending = null));
    return sending;
  }
  return send;
}

/** A random UUID; crypto.randomUUID itself exists on https pages only. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
