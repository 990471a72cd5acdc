/** What this browser remembers between two visits: the form, and nothing of the pictures. */

import { keep, kept } from "./storage.js";

const KEY = "darkroom.form";

/** @typedef {Record<string, string | boolean>} Kept by the id of the control */

/** @returns {Kept} */
export function remembered() {
  try {
    const found = JSON.parse(kept(KEY) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {}; // not ours: the page begins as it is
  }
}

/** @param {HTMLFormElement} form @param {Kept} also what no single control holds */
export function remember(form, also) {
  const found = { ...also };
  for (const control of controlsOf(form)) {
    found[control.id] = control.type === "checkbox" ? control.checked : control.value;
  }
  keep(KEY, JSON.stringify(found));
}

export const forgetForm = () => keep(KEY, null);

/** @param {HTMLFormElement} form @param {Kept} found */
export function restore(form, found) {
  for (const control of controlsOf(form)) {
    if (found[control.id] !== undefined) put(control, found[control.id]);
  }
}

/** @param {any} control @param {string | boolean} value passed over where it is no choice any more */
function put(control, value) {
  if (control.type === "checkbox") control.checked = value === true;
  else if (!control.options || [...control.options].some((option) => option.value === value))
    control.value = value;
}

/** @param {HTMLFormElement} form @returns {any[]} a chosen file cannot be kept */
const controlsOf = (form) =>
  [...form.elements].filter((/** @type {any} */ control) => control.id && control.type !== "file");
