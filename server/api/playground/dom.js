/** Elements made from data. Text is always text: nothing here reads HTML. */

import { point } from "./key.js";

/**
 * @param {string} tag with its classes, such as `p.hint`
 * @param {Record<string, any>} [about] attributes, and `text`; what is null, undefined or false is
 *   left out
 * @param {...(Node | string | null | false | undefined)} children likewise
 * @returns {any} the element
 */
export function h(tag, about = {}, ...children) {
  const [kind, ...classes] = tag.split(".");
  const made = document.createElement(kind);
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name === "src" || name === "href") point(made, name, value).catch(() => {});
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(.../** @type {any[]} */ (children.filter((child) => child || child === "")));
  return made;
}

/**
 * @param {EventTarget} target
 * @param {string} kind of event
 * @param {(event: any) => void} heard
 */
export function hear(target, kind, heard) {
  target.addEventListener(kind, heard);
}

/**
 * @param {string} text
 * @param {() => void} click
 * @param {Record<string, any>} [about] more attributes
 * @returns {HTMLButtonElement}
 */
export function button(text, click, about) {
  const made = h("button", { type: "button", text, ...about });
  hear(made, "click", click);
  return made;
}

/**
 * @param {string} name of an icon
 * @param {string} label
 * @param {() => void} click
 * @param {Record<string, any>} [about] more attributes
 * @returns {HTMLButtonElement} that shows no words
 */
export function tool(name, label, click, about) {
  const made = button("", click, { class: "quiet square", "aria-label": label, ...about });
  made.append(icon(name));
  return made;
}

/** @param {{url: string, width: number, height: number}} image @param {Record<string, any>} [about] more attributes */
export const picture = ({ url, width, height }, about) =>
  h("img", { src: url, alt: "", width, height, ...about });

/** @param {HTMLElement} holder @param {{width: number, height: number}} image whose shape it takes */
export function sized(holder, { width, height }) {
  holder.style.setProperty("--w", String(width));
  holder.style.setProperty("--h", String(height));
  return holder;
}

/** @param {string} text @returns {(string | HTMLElement)[]} with what stands in backticks as code */
export const worded = (text) =>
  text.split("`").map((part, place) => (place % 2 ? h("code", { text: part }) : part));

/**
 * @param {string} name its id in icons.svg
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = drawn("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" });
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
 * @param {(string | string[])[]} options values, or pairs of a value and what it is called
 */
export function fill(select, options) {
  const before = select.value;
  const made = options.map((option) => {
    const [value, text = value] = [option].flat();
    return h("option", { value, text });
  });
  select.replaceChildren(...made);
  if (made.some((option) => option.value === before)) select.value = before;
}
