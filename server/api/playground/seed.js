/** The seed: drawn anew each time, unless it is kept by the lock. */

import { at, hear, icon, tool } from "./dom.js";

const LOOK = { class: "square" };

export class Seed {
  #field = at("seed");
  #lock = tool("unlocked", "Keep this seed", () => this.#turn(), LOOK);

  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    hear(this.#field, "input", () => this.keep(this.#field.value !== ""));
    this.#field.after(
      tool("dice", "Roll a seed and keep it", () => this.#roll(), LOOK),
      this.#lock,
    );
    this.keep(false);
  }

  #turn() {
    this.keep(!this.kept);
    this.changed();
  }

  #roll() {
    this.set(crypto.getRandomValues(new Uint32Array(1))[0], true);
    this.changed();
  }

  get kept() {
    return this.#lock.getAttribute("aria-pressed") === "true";
  }

  /** @returns {string | null} as it is written; null leaves it to the server */
  get wanted() {
    return this.kept && this.#field.value.trim() !== "" ? this.#field.value.trim() : null;
  }

  /** @param {boolean} kept */
  keep(kept) {
    this.#lock.setAttribute("aria-pressed", String(kept));
    this.#lock.replaceChildren(icon(kept ? "locked" : "unlocked"));
  }

  /** @param {number | string} seed @param {boolean} kept */
  set(seed, kept) {
    this.#field.value = String(seed);
    this.keep(kept);
  }

  /** @param {number} seed that was drawn with; shown until the next, unless one is kept */
  drawnWith(seed) {
    if (!this.kept) this.#field.value = String(seed);
  }
}
