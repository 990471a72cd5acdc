/** Two pictures in one place, and a slider between them. */

import { h, hear, picture, sized } from "./dom.js";

/** @typedef {{url: string, width: number, height: number, name: string}} Named */

/**
 * @param {Named} left
 * @param {Named} right
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
    "div.compare",
    {},
    picture(right, { class: "right" }),
    picture(left, { class: "left" }),
    h("span.handle", { "aria-hidden": "true" }),
    slider,
    h("span.side", { text: left.name }),
    h("span.side.other", { text: right.name }),
  );
  const move = () => view.style.setProperty("--split", `${slider.value}%`);
  hear(slider, "input", move);
  move();
  return sized(view, right);
}
