/** Copying, where the browser lets us; where not, the text is shown to be copied by hand. */

import { at, h } from "./dom.js";
import { announce } from "./notices.js";

/** @param {string} what @param {string} text */
export async function copy(what, text) {
  try {
    await navigator.clipboard.writeText(text);
    announce(`${what} copied`);
    flash(`${what} copied`);
  } catch {
    shown(what, text); // only pages from https and from this machine may write to the clipboard
  }
}

/** @param {string} text said in the button that has the focus, for a moment */
function flash(text) {
  const button = document.activeElement;
  if (!(button instanceof HTMLButtonElement)) return;
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => {
    button.textContent = before;
  }, 1500);
}

/** @param {string} what @param {string} text */
function shown(what, text) {
  const box = h("textarea", {
    readonly: true,
    rows: "6",
    class: "copied",
    "aria-label": `${what}, to copy by hand`,
  });
  box.value = text;
  at("detail").querySelector("aside")?.append(box);
  box.select();
}
