/** What concerns no single field: banners that say what to do, and words for screen readers. */

import { at, button, h, tool, worded } from "./dom.js";

/** What a person can do about an error, by its code. */
const ADVICE = /** @type {Record<string, string>} */ ({
  unreachable: "Check that `darkroom serve` is running, then try again.",
  queue_full: "Nothing was queued. Try again when some of it is drawn.",
  no_worker: "Nothing was queued. Start a worker for this checkpoint, or choose another one.",
  broker_unavailable: "Redis is away. Look into the gallery before you draw this again.",
  body_too_large: "Choose a smaller picture.",
  out_of_memory: "Choose a smaller size or fewer pictures.",
  deadline_exceeded: "It waited too long. Try again when the queue is shorter.",
  gone: "It has been deleted.",
});

/**
 * @param {string} text
 * @param {{kind?: "error" | "info", action?: [string, () => void], key?: string}} [about] a notice
 *   replaces the one before it with the same key
 * @returns {() => void} takes it away
 */
export function notice(text, { kind = "info", action, key = text } = {}) {
  const shown = h(
    "div",
    { class: `notice ${kind}`, "data-key": key, role: kind === "error" ? "alert" : null },
    h("p", {}, ...worded(text)),
  );
  const close = () => shown.remove();
  if (action) {
    const [text, act] = action;
    shown.append(
      button(text, () => {
        close();
        act();
      }),
    );
  }
  shown.append(tool("close", "Close this notice", close));
  dismiss(key);
  at("notices").append(shown);
  return close;
}

/** @param {string} key */
export function dismiss(key) {
  for (const shown of at("notices").querySelectorAll(".notice")) {
    if (shown.dataset.key === key) shown.remove();
  }
}

/**
 * @param {any} error a problem, or anything that says what is wrong
 * @param {() => void} [again] what to do once more
 */
export function complain(error, again) {
  const said = sentence(error.message);
  const advice = ADVICE[error.code ?? ""];
  const when = error.retryAfter ? ` The server expects room in ${error.retryAfter} s.` : "";
  const text = [said + when, advice].filter(Boolean).join(" ");
  notice(text, { kind: "error", key: error.code ?? said, action: again && ["Try again", again] });
}

/** @param {string} text said to who does not see the page */
export function announce(text) {
  at("announcer").textContent = text;
}

/** @param {string} text @returns {string} with a capital and an end */
export function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
