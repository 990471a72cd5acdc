/** Varying one or two fields: how it is asked for, and the grid that comes of it. */

import { fault } from "./controls.js";
import { at, button, fill, h, picture } from "./dom.js";

const NAMES = /** @type {Record<string, string>} */ ({
  guidance_scale: "Guidance",
  num_inference_steps: "Steps",
  strength: "Strength",
  sampler: "Sampler",
  seed: "Seed",
});
const LINES = ["rows", "columns"];

export class Sweep {
  /** @param {() => void} changed */
  constructor(changed) {
    for (const line of LINES) {
      at(`vary-${line}`).addEventListener("change", () => {
        this.#label();
        changed();
      });
    }
  }

  /** @param {string[]} fields what can be varied */
  offer(fields) {
    for (const line of LINES) {
      fill(at(`vary-${line}`), [
        ["", "Nothing"],
        ...fields.map((field) => [field, NAMES[field] ?? field]),
      ]);
    }
    const [rows, columns] = LINES.map((line) => at(`vary-${line}`));
    if (rows.value === columns.value) columns.value = "";
    this.#label();
  }

  /** @returns {string[]} what is varied */
  get fields() {
    return LINES.map((line) => at(`vary-${line}`).value).filter(Boolean);
  }

  get active() {
    return this.fields.length > 0;
  }

  /**
   * @returns {Record<string, (number | string)[]> | null} as the request has it
   * @throws {import("./api.js").Problem} where a field is given no value
   */
  get asked() {
    const asked = /** @type {Record<string, (number | string)[]>} */ ({});
    for (const line of LINES) {
      const field = at(`vary-${line}`).value;
      if (!field) continue;
      asked[field] = valuesOf(at(`vary-${line}-values`).value);
      if (!asked[field].length) throw fault(`sweep.${field}`, "give at least one value");
    }
    return this.active ? asked : null;
  }

  /** @param {{field: string, values: any[]}[]} axes of a spec */
  use(axes) {
    LINES.forEach((line, place) => {
      at(`vary-${line}`).value = axes[place]?.field ?? "";
      at(`vary-${line}-values`).value = axes[place]?.values.join(", ") ?? "";
    });
    at("vary").open = this.active;
    this.#label();
  }

  /** A field is varied by one line; errors come with its name, so the line answers to that. */
  #label() {
    LINES.forEach((line, place) => {
      const field = at(`vary-${line}`).value;
      at(`vary-${line}`).closest(".sweep-line").dataset.field = field
        ? `sweep.${field}`
        : place
          ? "sweep.columns"
          : "sweep";
      const other = at(`vary-${LINES[1 - place]}`).value;
      for (const option of at(`vary-${line}`).options)
        option.disabled = option.value !== "" && option.value === other;
    });
  }
}

/** @param {string} text @returns {(number | string)[]} what is no number is left to the server */
function valuesOf(text) {
  const parts = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
  return parts.map((part) => (Number.isFinite(Number(part)) ? Number(part) : part));
}

/**
 * @param {import("./api.js").Generation} generation of a sweep
 * @param {(index: number) => void} opened
 * @returns {HTMLElement} its pictures where their values cross
 */
export function gridOf(generation, opened) {
  const axes = generation.spec.sweep.axes;
  const [rows, columns] = axes.length === 2 ? axes : [null, axes[0]];
  const width = columns.values.length;
  const cell = (/** @type {number} */ index) => {
    const image = generation.images[index];
    const said = Object.entries(image.varied)
      .map(([field, value]) => `${NAMES[field]} ${value}`)
      .join(", ");
    const opens = button("", () => opened(index), { class: "picture", "aria-label": said });
    opens.append(picture(image, { loading: "lazy" }));
    return h("td", {}, opens);
  };
  const line = (/** @type {number} */ row) =>
    columns.values.map((/** @type {any} */ _, /** @type {number} */ i) => cell(row * width + i));
  const head = (/** @type {any} */ value, scope = "col") => h("th", { scope, text: String(value) });
  const heading = rows ? `${NAMES[rows.field]} ↓ ${NAMES[columns.field]} →` : NAMES[columns.field];
  return h(
    "div.grid",
    { tabindex: "0", role: "region", "aria-label": "Grid" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head(heading),
          ...columns.values.map((/** @type {any} */ value) => head(value)),
        ),
      ),
      h(
        "tbody",
        {},
        ...(rows?.values ?? [""]).map((/** @type {any} */ value, /** @type {number} */ row) =>
          h("tr", {}, head(value, "row"), ...line(row)),
        ),
      ),
    ),
  );
}
