/** The seed: drawn anew each time, unless it is kept by the lock. */

import { at } from "/playground/dom.js";

export class Seed {
  #field = at("seed");
  #lock = at("lock");

  /** @param {() => void} changed */
  constructor(changed) {
    this.#lock.addEventListener("click", () => {
      this.keep(!this.kept);
      changed();
    });
    this.#field.addEventListener("input", () => this.keep(this.#field.value !== ""));
    at("dice").addEventListener("click", () => {
      this.set(roll(), true);
      changed();
    });
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
    this.#lock
      .querySelector("use")
      .setAttribute("href", `/playground/icons.svg#${kept ? "locked" : "unlocked"}`);
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

const roll = () => crypto.getRandomValues(new Uint32Array(1))[0];
