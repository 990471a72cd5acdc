/** Buttons that more than one place has: to take a picture home, and to delete a generation. */

import { button, h, hear, icon } from "./dom.js";

/** @param {import("./api.js").Generation} generation @param {import("./api.js").Image} image */
export function downloading({ id, spec }, image) {
  const download = `${id}-${image.index}.${spec.output_format}`;
  return h("a.button", { href: image.url, download }, icon("download"), "Download");
}

/** @param {() => void} act @returns {HTMLButtonElement} asks once more, in its own place */
export function deleting(act) {
  let sure = false;
  const say = (/** @type {boolean} */ now) => {
    sure = now;
    made.textContent = now ? "Really delete" : "Delete";
  };
  const made = button("Delete", () => (sure ? act() : say(true)), { class: "danger" });
  hear(made, "blur", () => say(false));
  return made;
}
