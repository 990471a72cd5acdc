/** What single controls hold, as a request has it. */

import { Problem } from "./api.js";

/** @param {any} control @returns {any} what goes into the request; null for nothing */
export function valueOf(control) {
  if (control.type === "radio") return null; // the task, which is there already
  if (control.type === "checkbox") return control.checked || null;
  if (control.type !== "number") return control.value || null;
  if (control.validity.badInput) throw fault(control.name, "this is no number");
  return control.value === "" ? null : Number(control.value);
}

/** @param {string} field @param {string} text */
export function numberOf(field, text) {
  if (!/^\d+$/.test(text)) throw fault(field, "this is no whole number");
  return Number(text);
}

/** @param {string} text such as `pixel-art:0.8, another` */
export const lorasOf = (text) =>
  [...text.matchAll(/([^\s,][^,]*?)(?::(-?\d*\.?\d+))?\s*(?:,|$)/g)].map(([, name, scale]) => ({
    name,
    scale: Number(scale ?? 1),
  }));

/** @param {{name: string, scale: number}[]} loras */
export const writtenLoras = (loras) =>
  loras.map(({ name, scale }) => `${name}:${scale}`).join(", ");

/** @param {string} field @param {string} message */
export const fault = (field, message) =>
  new Problem({ code: "unasked", detail: message, errors: [{ field, message }] });
