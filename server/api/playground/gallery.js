/** What this caller has drawn, newest first, as the server keeps it. */

import * as api from "/playground/api.js";
import { at, h } from "/playground/dom.js";
import { standing } from "/playground/easel.js";
import { ENDED } from "/playground/follow.js";

/** @typedef {import("/playground/api.js").Generation} Generation */

const PAGE = 24;
const NEWS_MILLISECONDS = 2000;

export class Gallery {
  /** @type {Map<string, Generation>} */
  #known = new Map();
  /** @type {Map<string, HTMLElement>} */
  #tiles = new Map();
  /** @type {string | null} */
  #next = null;

  /** @param {(generation: Generation) => void} opened */
  constructor(opened) {
    this.opened = opened;
    at("more-tiles").addEventListener("click", () => this.more());
  }

  /** @returns {Generation[]} newest first */
  get all() {
    return [...this.#known.values()].sort((one, other) => (one.id < other.id ? 1 : -1));
  }

  /** @returns {Generation[]} those with pictures */
  get pictures() {
    return this.all.filter((one) => one.images.length > 0);
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
    };
    setInterval(() => {
      if (!document.hidden && this.active.some((one) => one.id !== followed())) look();
    }, NEWS_MILLISECONDS);
    document.addEventListener("visibilitychange", () => {
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
      else if (before && !ENDED.has(before.status))
        tile.replaceChildren(this.#button(generation, tile.querySelector("button")));
    }
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
    const image = generation.grid ?? generation.images[0];
    const prompt = generation.spec.prompt || "No prompt";
    const click = () => this.opened(/** @type {Generation} */ (this.#known.get(generation.id)));
    const made = h(
      "button",
      {
        type: "button",
        class: "tile",
        title: prompt,
        "aria-label": image ? prompt : `${standing(generation)}: ${prompt}`,
        on: { click },
      },
      ...(image
        ? pictured(generation, image)
        : [
            h("span", { class: "standing", text: standing(generation) }),
            h("span", { class: "what", text: prompt }),
          ]),
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
  }
}

/** @param {Generation} generation @param {import("/playground/api.js").Image} image */
function pictured(generation, image) {
  const count = generation.images.length;
  return [
    h("img", {
      class: generation.grid ? "whole" : null,
      src: image.url,
      alt: "",
      width: image.width,
      height: image.height,
      loading: "lazy",
      decoding: "async",
    }),
    ...(count > 1
      ? [h("span", { class: "badge", text: generation.grid ? `grid of ${count}` : String(count) })]
      : []),
  ];
}
