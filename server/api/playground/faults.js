/** Errors beside the fields that caused them. Knows where a field is shown, not what it means. */

import { h, worded } from "./dom.js";
import { sentence } from "./notices.js";

/**
 * @param {HTMLElement} form
 * @param {{field: string, message: string}[]} errors
 * @returns {{field: string, message: string}[]} those whose field is not on the page
 */
export function showFaults(form, errors) {
  clearFaults(form);
  const placed = errors.filter(({ field, message }) => {
    const holder = holderOf(form, field);
    if (holder) place(holder, sentence(bare(message, field)));
    return holder !== null;
  });
  /** @type {HTMLElement | null} */ (form.querySelector("[aria-invalid]"))?.focus();
  return errors.filter((error) => !placed.includes(error));
}

/** @param {HTMLElement} within what was wrong in there may be right now */
export function clearFaults(within) {
  for (const fault of within.querySelectorAll(".fault")) {
    for (const control of within.querySelectorAll(`[aria-describedby~="${fault.id}"]`)) {
      control.removeAttribute("aria-invalid");
      describe(control, fault.id, false);
    }
    fault.remove();
  }
}

/**
 * @param {string} message such as `width 100: must be a multiple of 8`
 * @param {string} field
 * @returns {string} without what the place beside the field says already
 */
function bare(message, field) {
  const colon = message.indexOf(": ");
  return message.startsWith(field) && colon > 0 ? message.slice(colon + 2) : message;
}

/** @param {HTMLElement} form @param {string} field a path such as `sweep.seed.0` */
function holderOf(form, field) {
  for (let path = field; path; path = path.slice(0, Math.max(0, path.lastIndexOf(".")))) {
    const holder = form.querySelector(`[data-field="${CSS.escape(path)}"]`);
    if (holder && !holder.closest("[hidden]")) return holder;
  }
  return null;
}

/** @param {Element} holder @param {string} message */
function place(holder, message) {
  const id = `fault-${holder.getAttribute("data-field")}`.replace(/\W/g, "-");
  if (holder.querySelector(`#${id}`)?.textContent === message) return; // said once is enough
  holder.append(h("p.fault", { id }, ...worded(message)));
  const folded = holder.closest("details");
  if (folded) folded.open = true;
  const control =
    holder.querySelector("input:not([aria-hidden])") ?? holder.querySelector("select, textarea");
  control?.setAttribute("aria-invalid", "true");
  if (control) describe(control, id, true);
}

/** @param {Element} control @param {string} id @param {boolean} by */
function describe(control, id, by) {
  const ids = new Set((control.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  if (by) ids.add(id);
  else ids.delete(id);
  if (ids.size) control.setAttribute("aria-describedby", [...ids].join(" "));
  else control.removeAttribute("aria-describedby");
}
