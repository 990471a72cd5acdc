/** Buttons that more than one place has: to take a picture home, and to delete a generation. */

import { h, icon } from "/playground/dom.js";

/** @param {import("/playground/api.js").Generation} generation @param {import("/playground/api.js").Image} image */
export function downloading({ id, spec }, image) {
  const download = `${id}-${image.index}.${spec.output_format}`;
  return h("a", { class: "button", href: image.url, download }, icon("download"), "Download");
}

/** @param {() => void} act @returns {HTMLButtonElement} asks once more, in its own place */
export function deleting(act) {
  const button = h("button", { type: "button", class: "danger", text: "Delete" });
  button.addEventListener("click", () => {
    if (button.dataset.sure) return act();
    button.dataset.sure = "yes";
    button.textContent = "Really delete";
    button.addEventListener(
      "blur",
      () => {
        delete button.dataset.sure;
        button.textContent = "Delete";
      },
      { once: true },
    );
  });
  return button;
}
