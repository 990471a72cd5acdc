/** Small plots: a line of what was, with its newest value in words. Knows numbers, and SVG. */

import { drawn, h } from "./dom.js";

const [WIDTH, HEIGHT, PAD] = [240, 56, 3];

export class Plot {
  /** @type {(number | null)[]} */
  #values = [];

  /**
   * @param {string} name
   * @param {{length: number, write: (value: number) => string, least?: number}} about how many values
   *   are kept, how one is written, and the least that the top of the plot stands for
   */
  constructor(name, { length, write, least = 1 }) {
    this.length = length;
    this.write = write;
    this.least = least;
    this.area = drawn("path", { class: "area" });
    this.line = drawn("path", { class: "line" });
    const svg = drawn("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    svg.append(this.area, this.line);
    this.now = h("strong", { text: "–" });
    this.top = h("span.hint");
    this.view = h(
      "figure.plot",
      {},
      h("figcaption", {}, h("span", { text: name }), this.now),
      svg,
      this.top,
    );
  }

  /** @param {number | null} value null where there is none to be told */
  add(value) {
    this.#values = [...this.#values, value].slice(-this.length);
    const known = /** @type {number[]} */ (this.#values.filter((value) => value !== null));
    const most = Math.max(this.least, ...known);
    this.now.textContent = value === null ? "–" : this.write(value);
    this.top.textContent = known.length ? `up to ${this.write(most)}` : "";
    const [line, area] = paths(this.#values, this.length, most);
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
  }
}

/**
 * The newest value is at the right edge; where there is none, the line has a gap.
 * @param {(number | null)[]} values
 * @param {number} length
 * @param {number} most
 * @returns {[string, string]} the line, and what lies under it
 */
function paths(values, length, most) {
  const x = (/** @type {number} */ place) =>
    WIDTH - ((values.length - 1 - place) * WIDTH) / Math.max(1, length - 1);
  const y = (/** @type {number} */ value) => HEIGHT - PAD - (value / most) * (HEIGHT - 2 * PAD);
  const runs = /** @type {string[][]} */ ([]);
  values.forEach((value, place) => {
    if (value === null) return;
    const point = `${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
    if (place && values[place - 1] !== null) runs.at(-1)?.push(point);
    else runs.push([point]);
  });
  const foot = (/** @type {string} */ point) => `${point.split(" ")[0]} ${HEIGHT}`;
  const line = runs.map((run) => `M${run.join("L")}${run.length === 1 ? "h.01" : ""}`).join("");
  const area = runs
    .map((run) => `M${foot(run[0])}L${run.join("L")}L${foot(/** @type {string} */ (run.at(-1)))}Z`)
    .join("");
  return [line, area];
}
