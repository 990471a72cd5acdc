/** Elements made from data. Text is always text: nothing here reads HTML. */

import { point } from "/playground/key.js";

/**
 * @param {string} tag
 * @param {Record<string, any>} [about] attributes; `class`, `text`, `hidden` and `on` (listeners) as
 *   one would expect; what is null, undefined or false is left out
 * @param {...(Node | string | null | false)} children
 * @returns {any} the element
 */
export function h(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    } else if (name === "text") made.textContent = value;
    else if (name === "src" || name === "href") point(made, name, value).catch(() => {});
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== false));
  return made;
}

/** @param {string} text @returns {(string | HTMLElement)[]} with what stands in backticks as code */
export const worded = (text) =>
  text.split("`").map((part, place) => (place % 2 ? h("code", { text: part }) : part));

/**
 * @param {string} name a symbol of icons.svg
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = drawn("svg", { class: "icon", "aria-hidden": "true" });
  svg.append(drawn("use", { href: `/playground/icons.svg#${name}` }));
  return /** @type {SVGSVGElement} */ (svg);
}

/**
 * @param {string} tag of SVG
 * @param {Record<string, string | number>} about attributes
 * @returns {SVGElement}
 */
export function drawn(tag, about) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(about)) made.setAttribute(name, String(value));
  return made;
}

/**
 * @param {string} id
 * @returns {any} the element of the page; it is there
 */
export function at(id) {
  return document.getElementById(id);
}

/**
 * @param {HTMLSelectElement} select
 * @param {Iterable<[string, string]>} options values and what they are called
 */
export function fill(select, options) {
  const before = select.value;
  const made = [...options].map(([value, text]) => h("option", { value, text }));
  select.replaceChildren(...made);
  if (made.some((option) => option.value === before)) select.value = before;
}

/**
 * @template {(...sent: any[]) => void} F
 * @param {F} act
 * @param {number} milliseconds how long nothing more may come before it is done
 * @returns {F}
 */
export function settled(act, milliseconds) {
  let timer = 0;
  return /** @type {F} */ (
    (...sent) => {
      clearTimeout(timer);
      timer = setTimeout(() => act(...sent), milliseconds);
    }
  );
}
