/** One generation up close: its pictures, what it was drawn with, and what can be done with it. */

import { deleting, downloading } from "/playground/actions.js";
import { copy } from "/playground/clipboard.js";
import { comparison } from "/playground/compare.js";
import { at, h, icon, worded } from "/playground/dom.js";
import { factsOf } from "/playground/facts.js";
import { complain } from "/playground/notices.js";
import { curlOf, infotextOf, pythonOf } from "/playground/recipes.js";
import { gridOf } from "/playground/sweep.js";

/** @typedef {import("/playground/api.js").Generation} Generation */
/** @typedef {import("/playground/api.js").Image} Image */
/** @typedef {import("/playground/compare.js").Shown} Shown */

const MOST_RIVALS = 12;

export class Detail {
  #dialog = at("detail");
  #generation = /** @type {Generation} */ ({}); // until it is opened
  #index = -1;
  #view = h("div", { class: "view" });

  /**
   * @param {{gallery: () => Generation[], reuse: (generation: Generation) => void,
   *   start: (image: Image, generation: Generation) => void, remove: (generation: Generation) => Promise<void>}} on
   */
  constructor(on) {
    this.on = on;
    this.#dialog.addEventListener("click", (/** @type {Event} */ event) => {
      if (event.target === this.#dialog) this.close();
    });
    this.#dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.target instanceof HTMLInputElement) return;
      if (event.key === "ArrowLeft") this.#go(-1);
      if (event.key === "ArrowRight") this.#go(1);
    });
  }

  /** @param {Generation} generation @param {number} [index] of a picture; -1 shows a sweep's grid */
  open(generation, index = generation.grid ? -1 : 0) {
    this.#generation = generation;
    this.#index = index;
    const before = document.activeElement?.getAttribute("aria-label");
    this.#dialog.replaceChildren(
      this.#head(),
      h(
        "div",
        { class: "body" },
        h("div", { class: "shown" }, this.#view, this.#strip()),
        this.#side(),
      ),
    );
    this.#look();
    if (!this.#dialog.open) return this.#dialog.showModal();
    // What had the focus has been replaced by its like.
    const labels = [before, "Close"].map(
      (label) => `[aria-label="${CSS.escape(label ?? "")}"]:enabled`,
    );
    labels
      .map((label) => this.#dialog.querySelector(label))
      .find(Boolean)
      ?.focus();
  }

  close() {
    this.#dialog.close();
  }

  /** @returns {Image} */
  get #image() {
    return this.#index < 0
      ? /** @type {Image} */ (this.#generation.grid)
      : this.#generation.images[this.#index];
  }

  #head() {
    const step = (
      /** @type {number} */ by,
      /** @type {string} */ name,
      /** @type {string} */ label,
    ) =>
      h(
        "button",
        {
          type: "button",
          class: "quiet square",
          "aria-label": label,
          disabled: !this.#neighbour(by),
          on: { click: () => this.#go(by) },
        },
        icon(name),
      );
    return h(
      "header",
      {},
      h("h2", { id: "detail-title", text: this.#generation.spec.prompt || "No prompt" }),
      step(-1, "previous", "Newer"),
      step(1, "next", "Older"),
      h(
        "button",
        {
          type: "button",
          class: "quiet square",
          "aria-label": "Close",
          autofocus: true,
          on: { click: () => this.close() },
        },
        icon("close"),
      ),
    );
  }

  /** Show the picture, or the grid. */
  #look() {
    const { images, grid, spec } = this.#generation;
    if (this.#index < 0 && grid) {
      this.#view.replaceChildren(
        gridOf(this.#generation, (index) => this.open(this.#generation, index)),
      );
      return;
    }
    const image = images[this.#index];
    this.#view.replaceChildren(
      h("img", {
        class: "large",
        src: image.url,
        width: image.width,
        height: image.height,
        alt: spec.prompt || "The picture",
      }),
    );
    sized(this.#view, image);
  }

  #strip() {
    const { images, grid } = this.#generation;
    if (images.length < 2) return h("div", { hidden: true });
    const choices = [...(grid ? [-1] : []), ...images.keys()];
    return h(
      "div",
      { class: "strip", role: "group", "aria-label": "Pictures" },
      ...choices.map((index) =>
        h(
          "button",
          {
            type: "button",
            class: "thumb",
            "aria-label": index < 0 ? "Grid" : `Picture ${index + 1}`,
            "aria-pressed": String(index === this.#index),
            on: {
              click: () => this.open(this.#generation, index),
            },
          },
          h("img", { src: (index < 0 ? grid : images[index])?.url, alt: "", loading: "lazy" }),
        ),
      ),
    );
  }

  #side() {
    const { spec, warnings } = this.#generation;
    const image = this.#image;
    const act = (/** @type {string} */ text, /** @type {() => void} */ click, about = {}) =>
      h("button", { type: "button", text, on: { click }, ...about });
    return h(
      "aside",
      {},
      h(
        "div",
        { class: "actions" },
        act(
          "Reuse settings",
          () => {
            this.close();
            this.on.reuse(this.#generation);
          },
          { class: "primary" },
        ),
        this.#index < 0
          ? null
          : act("Draw from it", () => {
              this.close();
              this.on.start(image, this.#generation);
            }),
        this.#rivals().length ? act("Compare", () => this.#compare(), { id: "compare" }) : null,
        downloading(this.#generation, image),
      ),
      factsOf(this.#generation, image),
      ...warnings.map((warning) => h("p", { class: "warning" }, ...worded(warning.message))),
      h(
        "div",
        { class: "actions" },
        act("Copy as curl", () => copy("curl", curlOf(spec, location.origin))),
        act("Copy as Python", () => copy("Python", pythonOf(spec, location.origin))),
        spec.output_format === "png" && this.#index >= 0
          ? act("Copy infotext", () =>
              infotextOf(image.url).then((text) => copy("Infotext", text), complain),
            )
          : null,
        deleting(() => this.#remove()),
      ),
    );
  }

  async #remove() {
    const next = this.#neighbour(1) ?? this.#neighbour(-1);
    await this.on.remove(this.#generation);
    if (next) this.open(next);
    else this.close();
  }

  /** @returns {Shown[]} what this picture can be compared with: its sisters, then the gallery */
  #rivals() {
    const shown = (/** @type {Generation} */ one) =>
      one.images.map((image) => ({ ...image, name: nameOf(one, image) }));
    const others = this.on.gallery().filter((one) => one.id !== this.#generation.id);
    return [...shown(this.#generation), ...others.flatMap(shown)]
      .filter((one) => one.url !== this.#image.url)
      .slice(0, MOST_RIVALS);
  }

  #compare() {
    const rivals = this.#rivals();
    const mine = { ...this.#image, name: nameOf(this.#generation, this.#image) };
    const slot = h("div");
    const choose = (/** @type {Shown} */ rival, /** @type {HTMLElement | null} */ button) => {
      for (const one of list.children) one.setAttribute("aria-pressed", String(one === button));
      slot.replaceChildren(comparison(rival, mine));
    };
    const list = h(
      "div",
      { class: "strip", role: "group", "aria-label": "Compare with" },
      ...rivals.map((rival) => {
        const button = h(
          "button",
          {
            type: "button",
            class: "thumb",
            "aria-label": rival.name,
            on: { click: () => choose(rival, button) },
          },
          h("img", { src: rival.url, alt: "", loading: "lazy" }),
        );
        return button;
      }),
    );
    choose(rivals[0], list.firstElementChild);
    this.#view.replaceChildren(slot, list);
    sized(this.#view, mine);
    slot.querySelector("input")?.focus();
  }

  /** @param {number} by @returns {Generation | undefined} */
  #neighbour(by) {
    const all = this.on.gallery();
    return all[all.findIndex((one) => one.id === this.#generation.id) + by];
  }

  /** @param {number} by */
  #go(by) {
    const next = this.#neighbour(by);
    if (next) this.open(next);
  }
}

/** @param {HTMLElement} holder @param {{width: number, height: number}} image */
function sized(holder, image) {
  holder.style.setProperty("--w", String(image.width));
  holder.style.setProperty("--h", String(image.height));
}

/** @param {Generation} generation @param {Image} image @returns {string} */
const nameOf = (generation, image) => `seed ${image.seed} · ${generation.spec.prompt.slice(0, 60)}`;
