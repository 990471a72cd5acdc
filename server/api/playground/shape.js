/** Width and height: one of the checkpoint's shapes, the picture's own, or any other. */

import { shapes } from "./abilities.js";
import { at, fill, hear } from "./dom.js";

const CUSTOM = "custom";
const AS_PICTURE = "";
const FIRST = "0";

export class Shape {
  #choice = at("shape");
  /** @type {boolean | null} whether there is a picture whose shape can be kept */
  #pictured = null;
  /** @type {{name: string, width: number, height: number}[]} */
  #shapes = [];

  /** @param {() => void} changed */
  constructor(changed) {
    hear(this.#choice, "change", () => {
      this.#apply();
      changed();
    });
    for (const side of ["width", "height"]) at(side).addEventListener("input", () => this.name());
  }

  /**
   * @param {import("./abilities.js").Checkpoint} card
   * @param {boolean} pictured
   * @param {HTMLImageElement | null} picture
   */
  offer(card, pictured, picture) {
    this.#shapes = shapes(card);
    const named = this.#shapes.map(({ name }, place) => [String(place), name]);
    fill(this.#choice, [
      ...(pictured ? [[AS_PICTURE, "As the picture"]] : []),
      ...named,
      [CUSTOM, "Another"],
    ]);
    if (pictured !== this.#pictured) this.#choice.value = pictured ? AS_PICTURE : FIRST;
    this.#pictured = pictured;
    at("width").placeholder = picture?.naturalWidth ?? "";
    at("height").placeholder = picture?.naturalHeight ?? "";
    this.#apply();
  }

  reset() {
    this.#choice.value = this.#pictured ? AS_PICTURE : FIRST;
    this.#apply();
  }

  /** Call what is written in the fields by its name. */
  name() {
    const [width, height] = [at("width").value, at("height").value];
    const place = this.#shapes.findIndex(
      (one) => String(one.width) === width && String(one.height) === height,
    );
    const none = this.#pictured && !width && !height;
    this.#choice.value = none ? AS_PICTURE : place < 0 ? CUSTOM : String(place);
  }

  #apply() {
    if (this.#choice.value === CUSTOM) return;
    const shape =
      this.#choice.value === AS_PICTURE ? null : this.#shapes[Number(this.#choice.value)];
    at("width").value = shape?.width ?? "";
    at("height").value = shape?.height ?? "";
  }
}
