/** What this browser remembers between two visits: the form, and nothing of the pictures. */

const KEY = "darkroom.form";

/** @typedef {Record<string, string | boolean>} Kept by the id of the control */

/** @returns {Kept} */
export function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return found && typeof found === "object" ? found : {};
  } catch {
    return {}; // refused, or not ours: the page begins as it is
  }
}

/** @param {HTMLFormElement} form @param {Kept} also what no single control holds */
export function remember(form, also) {
  const kept = { ...also };
  for (const control of controlsOf(form)) {
    kept[control.id] = control.type === "checkbox" ? control.checked : control.value;
  }
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // full or refused: the form is then as it is at the next visit
  }
}

/** @param {HTMLFormElement} form @param {Kept} kept */
export function restore(form, kept) {
  for (const control of controlsOf(form)) {
    if (kept[control.id] !== undefined) put(control, kept[control.id]);
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
