/** One generation up close: its pictures, what it was drawn with, and what can be done with it. */

import { deleting, downloading } from "./actions.js";
import { copy } from "./clipboard.js";
import { comparison } from "./compare.js";
import { at, button, h, hear, picture, sized, tool, worded } from "./dom.js";
import { factsOf } from "./facts.js";
import { complain } from "./notices.js";
import { curlOf, infotextOf, pythonOf } from "./recipes.js";
import { gridOf } from "./sweep.js";

/** @typedef {import("./api.js").Generation} Generation */
/** @typedef {import("./api.js").Image} Image */
/** @typedef {import("./compare.js").Named} Named */

const MOST_RIVALS = 12;

export class Detail {
  #dialog = at("detail");
  #generation = /** @type {Generation} */ ({}); // until it is opened
  #index = -1;
  #view = h("div.view");

  /**
   * @param {{gallery: () => Generation[], reuse: (generation: Generation) => void,
   *   start: (image: Image, generation: Generation) => void, remove: (generation: Generation) => Promise<void>}} on
   */
  constructor(on) {
    this.on = on;
    hear(this.#dialog, "click", (event) => {
      if (event.target === this.#dialog) this.close();
    });
    hear(this.#dialog, "keydown", (event) => {
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
      h("div.body", {}, h("div.shown", {}, this.#view, this.#strip()), this.#side()),
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

  /** @param {string} id @returns {boolean} */
  shows(id) {
    return this.#dialog.open && this.#generation.id === id;
  }

  /** @returns {Image} */
  get #image() {
    return this.#index < 0
      ? /** @type {Image} */ (this.#generation.grid)
      : this.#generation.images[this.#index];
  }

  #head() {
    const step = (/** @type {number} */ by) => ({ disabled: !this.#neighbour(by) });
    return h(
      "header",
      {},
      h("h2", { id: "detail-title", text: this.#generation.spec.prompt || "No prompt" }),
      tool("previous", "Newer", () => this.#go(-1), step(-1)),
      tool("next", "Older", () => this.#go(1), step(1)),
      tool("close", "Close", () => this.close(), { autofocus: true }),
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
      picture(image, { class: "large", alt: spec.prompt || "The picture" }),
    );
    sized(this.#view, image);
  }

  #strip() {
    const { images, grid } = this.#generation;
    if (images.length < 2) return h("div", { hidden: true });
    const choices = [...(grid ? [-1] : []), ...images.keys()];
    return strip(
      "Pictures",
      ...choices.map((index) =>
        thumb(
          index < 0 ? "Grid" : `Picture ${index + 1}`,
          /** @type {Image} */ (index < 0 ? grid : images[index]),
          index === this.#index,
          () => this.open(this.#generation, index),
        ),
      ),
    );
  }

  #side() {
    const { spec, warnings } = this.#generation;
    const image = this.#image;
    return h(
      "aside",
      {},
      h(
        "div.actions",
        {},
        button(
          "Reuse settings",
          () => {
            this.close();
            this.on.reuse(this.#generation);
          },
          { class: "primary" },
        ),
        this.#index < 0
          ? null
          : button("Draw from it", () => {
              this.close();
              this.on.start(image, this.#generation);
            }),
        this.#rivals().length ? button("Compare", () => this.#compare(), { id: "compare" }) : null,
        downloading(this.#generation, image),
      ),
      factsOf(this.#generation, image),
      ...warnings.map((warning) => h("p.warning", {}, ...worded(warning.message))),
      h(
        "div.actions",
        {},
        button("Copy as curl", () => copy("curl", curlOf(spec, location.origin))),
        button("Copy as Python", () => copy("Python", pythonOf(spec, location.origin))),
        spec.output_format === "png" && this.#index >= 0
          ? button("Copy infotext", () =>
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

  /** @returns {Named[]} what this picture can be compared with: its sisters, then the gallery */
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
    const choose = (/** @type {number} */ place) => {
      for (const one of list.children)
        one.setAttribute("aria-pressed", String(one === list.children[place]));
      slot.replaceChildren(comparison(rivals[place], mine));
    };
    const list = strip(
      "Compare with",
      ...rivals.map((rival, place) => thumb(rival.name, rival, !place, () => choose(place))),
    );
    choose(0);
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

/** @param {string} label @param {...HTMLElement} thumbs */
const strip = (label, ...thumbs) =>
  h("div.strip", { role: "group", "aria-label": label }, ...thumbs);

/** @param {string} label @param {{url: string}} image @param {boolean} pressed @param {() => void} click */
function thumb(label, { url }, pressed, click) {
  const about = { class: "thumb", "aria-label": label, "aria-pressed": String(pressed) };
  const made = button("", click, about);
  made.append(h("img", { src: url, alt: "", loading: "lazy" }));
  return made;
}

/** @param {Generation} generation @param {Image} image @returns {string} */
const nameOf = (generation, image) => `seed ${image.seed} · ${generation.spec.prompt.slice(0, 60)}`;
