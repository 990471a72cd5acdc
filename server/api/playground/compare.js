/** Two pictures in one place, and a slider between them. */

import { h } from "/playground/dom.js";

/** @typedef {{url: string, width: number, height: number, name: string}} Shown */

/**
 * @param {Shown} left
 * @param {Shown} right
 * @returns {HTMLElement} a slider that arrow keys move too
 */
export function comparison(left, right) {
  const slider = h("input", {
    type: "range",
    min: "0",
    max: "100",
    value: "50",
    step: "1",
    "aria-label": `How much is shown of the left picture, ${left.name}; the rest is the right one, ${right.name}`,
  });
  const view = h(
    "div",
    { class: "compare" },
    picture(right, "right"),
    picture(left, "left"),
    h("span", { class: "handle", "aria-hidden": "true" }),
    slider,
    h("span", { class: "side", text: left.name }),
    h("span", { class: "side other", text: right.name }),
  );
  const move = () => view.style.setProperty("--split", `${slider.value}%`);
  slider.addEventListener("input", move);
  view.style.setProperty("--w", String(right.width));
  view.style.setProperty("--h", String(right.height));
  move();
  return view;
}

/** @param {Shown} shown @param {string} side */
const picture = (shown, side) =>
  h("img", { class: side, src: shown.url, alt: "", width: shown.width, height: shown.height });
