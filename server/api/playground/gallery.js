/** What this caller has drawn, newest first, as the server keeps it. */

import * as api from "./api.js";
import { at, button, h, hear, picture } from "./dom.js";
import { standing } from "./easel.js";
import { expired, left } from "./expiry.js";
import { ENDED } from "./follow.js";

/** @typedef {import("./api.js").Generation} Generation */

const PAGE = 24;
const NEWS_MILLISECONDS = 2000;
const LONGEST_MILLISECONDS = 2 ** 31 - 1; // that a timer takes

export class Gallery {
  /** @type {Map<string, Generation>} */
  #known = new Map();
  /** @type {Map<string, HTMLElement>} */
  #tiles = new Map();
  /** @type {string | null} */
  #next = null;

  #expiring = 0;

  /** @param {{opened: (generation: Generation) => void, expired: (generation: Generation) => void}} on */
  constructor(on) {
    this.on = on;
    hear(at("more-tiles"), "click", () => this.more());
  }

  /** @returns {Generation[]} newest first */
  get all() {
    return [...this.#known.values()].sort((one, other) => (one.id < other.id ? 1 : -1));
  }

  /** @returns {Generation[]} those with pictures that are still kept */
  get pictures() {
    return this.all.filter((one) => one.images.length > 0 && !expired(one));
  }

  /** @returns {Generation[]} those that have not ended */
  get active() {
    return this.all.filter((one) => !ENDED.has(one.status));
  }

  async load() {
    const page = await api.list({ limit: PAGE });
    this.#take(page.generations);
    this.#next = page.next;
    this.#shown();
  }

  async more() {
    const before = this.#tiles.size;
    const page = await api.list({ limit: PAGE, cursor: this.#next });
    this.#take(page.generations);
    this.#next = page.next;
    this.#shown();
    at("tiles").children[before]?.querySelector("button")?.focus();
  }

  /** @param {() => string | null} followed the one that somebody else keeps up to date */
  watch(followed) {
    const look = async () => {
      const page = await api.list({ limit: PAGE }).catch(() => null);
      this.#take((page?.generations ?? []).filter((one) => one.id !== followed()));
      this.#shown();
    };
    setInterval(() => {
      if (!document.hidden && this.active.some((one) => one.id !== followed())) look();
    }, NEWS_MILLISECONDS);
    hear(document, "visibilitychange", () => {
      if (!document.hidden) look(); // what was drawn meanwhile, from here or elsewhere
    });
  }

  /** @param {Generation} generation as it is now */
  put(generation) {
    this.#take([generation]);
    this.#shown();
  }

  /** @param {string} id */
  drop(id) {
    this.#known.delete(id);
    this.#tiles.get(id)?.remove();
    this.#tiles.delete(id);
    this.#shown();
  }

  /** @param {Generation[]} generations */
  #take(generations) {
    for (const generation of generations) {
      const before = this.#known.get(generation.id);
      this.#known.set(generation.id, generation);
      const tile = this.#tiles.get(generation.id);
      if (!tile) this.#insert(generation);
      else if (before && !ENDED.has(before.status)) this.#redraw(generation, tile);
    }
  }

  /** @param {Generation} generation @param {HTMLElement} tile */
  #redraw(generation, tile) {
    tile.replaceChildren(this.#button(generation, tile.querySelector("button")));
  }

  /** Show what is kept no more as such, and be back when the next one is not. */
  #expire() {
    clearTimeout(this.#expiring);
    const waits = [LONGEST_MILLISECONDS];
    for (const [id, tile] of this.#tiles) {
      const generation = /** @type {Generation} */ (this.#known.get(id));
      if (!expired(generation)) waits.push(left(generation));
      else if (!tile.querySelector(".expired")) {
        this.#redraw(generation, tile);
        this.on.expired(generation);
      }
    }
    this.#expiring = setTimeout(() => this.#expire(), Math.min(...waits));
  }

  /** @param {Generation} generation */
  #insert(generation) {
    const tile = h("li", {}, this.#button(generation, null));
    const older = this.all.find((one) => one.id < generation.id && this.#tiles.has(one.id));
    at("tiles").insertBefore(
      tile,
      older ? /** @type {HTMLElement} */ (this.#tiles.get(older.id)) : null,
    );
    this.#tiles.set(generation.id, tile);
  }

  /** @param {Generation} generation @param {HTMLElement | null} before whose focus must not be lost */
  #button(generation, before) {
    const gone = expired(generation);
    const image = gone ? null : (generation.grid ?? generation.images[0]);
    const prompt = generation.spec.prompt || "No prompt";
    const click = () => this.on.opened(/** @type {Generation} */ (this.#known.get(generation.id)));
    const made = button("", click, {
      class: gone ? "tile expired" : "tile",
      title: prompt,
      "aria-label": image ? prompt : `${standing(generation)}: ${prompt}`,
    });
    made.append(
      ...(image
        ? pictured(generation, image)
        : [h("span.standing", { text: standing(generation) }), h("span.what", { text: prompt })]),
    );
    if (!ENDED.has(generation.status))
      made.append(
        h("progress", {
          max: "1",
          value: String(generation.progress.fraction),
          "aria-hidden": "true",
        }),
      );
    if (before && before === document.activeElement) queueMicrotask(() => made.focus());
    return made;
  }

  #shown() {
    at("gallery-empty").hidden = this.#known.size > 0;
    at("more-tiles").hidden = this.#next === null;
    this.#expire();
  }
}

/** @param {Generation} generation @param {import("./api.js").Image} image */
function pictured(generation, image) {
  const count = generation.images.length;
  return [
    picture(image, {
      class: generation.grid ? "whole" : null,
      loading: "lazy",
      decoding: "async",
    }),
    ...(count > 1
      ? [h("span.badge", { text: generation.grid ? `grid of ${count}` : String(count) })]
      : []),
  ];
}
