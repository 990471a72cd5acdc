/** The picture in the middle: what is being drawn, then what was. Decides nothing. */

import { deleting, downloading } from "/playground/actions.js";
import { at, h, worded } from "/playground/dom.js";
import { ENDED, duration } from "/playground/follow.js";
import { point } from "/playground/key.js";
import { sentence } from "/playground/notices.js";
import { gridOf } from "/playground/sweep.js";

/** @typedef {import("/playground/api.js").Generation} Generation */

const EXAMPLES = /** @type {Record<string, string[]>} */ ({
  demo: [
    "a red circle on a blue background",
    "a yellow star on a purple background",
    "a green triangle on a white background",
  ],
  "": [
    "an old lighthouse in the fog, film photograph",
    "a bowl of lemons on a linen cloth, soft window light",
    "a quiet harbour at dawn, long exposure",
  ],
});
const ENDINGS = /** @type {Record<string, string>} */ ({
  canceled: "Canceled",
  expired: "It was not drawn in time",
  failed: "It could not be drawn",
});

export class Easel {
  #frame = at("frame");
  #foot = at("easel-foot");
  /** @type {string | null} */
  #shown = null;
  #bar = h("progress", { max: "1", value: "0", "aria-label": "Progress" });
  #told = h("p", { class: "told" });
  #left = h("p", { class: "left" });

  /**
   * @param {{cancel: () => void, open: (generation: Generation, index: number) => void,
   *   example: (prompt: string) => void, reuse: (generation: Generation) => void,
   *   remove: (generation: Generation) => void}} on
   */
  constructor(on) {
    this.on = on;
  }

  /** @param {string} checkpoint whose examples are offered */
  empty(checkpoint) {
    this.#shown = null;
    const examples = EXAMPLES[checkpoint] ?? EXAMPLES[""];
    this.#frame.className = "frame empty";
    this.#frame.replaceChildren(
      h("p", { class: "lead", text: "Nothing on the easel yet" }),
      h("p", {
        class: "hint",
        text: "Write what you want to see and press Draw, or begin with one of these.",
      }),
      h(
        "ul",
        { class: "examples" },
        ...examples.map((prompt) =>
          h(
            "li",
            {},
            h("button", {
              type: "button",
              class: "quiet",
              text: prompt,
              on: { click: () => this.on.example(prompt) },
            }),
          ),
        ),
      ),
    );
    this.#foot.replaceChildren();
  }

  /** @param {Generation} generation that has not ended */
  follow(generation) {
    if (this.#shown !== generation.id) this.#begin(generation);
    const { fraction, steps_done: done, steps_total: total } = generation.progress;
    if (fraction) this.#bar.value = fraction;
    else this.#bar.removeAttribute("value");
    this.#told.textContent =
      generation.status === "queued"
        ? waiting(generation)
        : total
          ? `Drawing · step ${done} of ${total}`
          : "Beginning to draw";
    this.#left.textContent = generation.eta_seconds
      ? `about ${duration(generation.eta_seconds)} left`
      : "";
  }

  /** Until the next `follow`: what is known of it is old. */
  lost() {
    this.#told.textContent = "Connection lost, trying again";
    this.#left.textContent = "";
  }

  /** @param {number} index @param {string} url of a picture that is half done */
  preview(index, url) {
    const shot = this.#frame.querySelectorAll(".shot")[index];
    if (!shot || !this.#shown) return;
    const shown = this.#shown;
    const picture = new Image();
    picture.alt = "";
    point(picture, "src", url)
      .then(() => picture.decode())
      .then(
        () => {
          if (this.#shown === shown && shot.isConnected) shot.replaceChildren(picture);
        },
        () => {},
      ); // it is gone already: the next one, or the picture itself, comes soon
  }

  /** @param {Generation} generation that has ended */
  show(generation) {
    const before = this.#shown;
    this.#shown = generation.id;
    if (generation.status !== "succeeded") return this.#fail(generation);
    if (generation.grid) {
      this.#frame.className = "frame swept";
      this.#frame.replaceChildren(gridOf(generation, (index) => this.on.open(generation, index)));
    } else {
      this.#frame.className = frameOf(generation.images.length);
      if (before === generation.id) this.#frame.classList.add("developed");
      this.#frame.replaceChildren(
        ...generation.images.map((image, index) => this.#picture(generation, image, index)),
      );
    }
    const seconds = generation.metrics?.total_seconds;
    const { images, grid } = generation;
    const only = grid ?? (images.length === 1 ? images[0] : null);
    this.#foot.replaceChildren(
      h("p", { class: "told", text: generation.spec.prompt || "No prompt" }),
      only ? downloading(generation, only) : "",
      h("p", {
        class: "hint",
        text: `Click ${images.length === 1 ? "the" : "a"} picture for its details.`,
      }),
      h("p", {
        class: "left",
        text: [`seed ${generation.spec.seed}`, seconds && `${seconds.toFixed(1)} s`]
          .filter(Boolean)
          .join(" · "),
      }),
      ...generation.warnings.map((warning) =>
        h("p", { class: "warning" }, ...worded(sentence(warning.message))),
      ),
    );
  }

  /** @param {Generation} generation */
  #begin(generation) {
    this.#shown = generation.id;
    const { width, height, num_images: count } = generation.spec;
    const cancel = h(
      "button",
      { type: "button", id: "cancel", on: { click: () => this.on.cancel() } },
      "Cancel",
      h("kbd", { "aria-hidden": "true", text: "Esc" }),
    );
    this.#frame.className = `${frameOf(count)} drawing`;
    this.#frame.replaceChildren(
      ...Array.from({ length: count }, () => sized(h("div", { class: "shot" }), width, height)),
    );
    this.#foot.replaceChildren(this.#told, this.#left, this.#bar, cancel);
  }

  /** @param {Generation} generation @param {import("/playground/api.js").Image} image @param {number} index */
  #picture(generation, image, index) {
    const name =
      generation.images.length > 1
        ? `Picture ${index + 1}: ${generation.spec.prompt}`
        : `Picture: ${generation.spec.prompt}`;
    const shot = h(
      "button",
      {
        type: "button",
        class: "shot",
        "aria-label": `${name}. Look closer.`,
        on: { click: () => this.on.open(generation, index) },
      },
      h("img", { src: image.url, alt: "", width: image.width, height: image.height }),
    );
    return sized(shot, image.width, image.height);
  }

  /** @param {Generation} generation */
  #fail(generation) {
    this.#frame.className = "frame empty";
    const said =
      generation.error && generation.status === "failed" ? sentence(generation.error.message) : "";
    this.#frame.replaceChildren(
      h("p", { class: "lead", text: ENDINGS[generation.status] ?? generation.status }),
      said && h("p", { class: "hint" }, ...worded(said)),
      h("p", { class: "hint", text: generation.spec.prompt }),
      h(
        "div",
        { class: "ways" },
        h("button", {
          type: "button",
          text: "Reuse settings",
          on: { click: () => this.on.reuse(generation) },
        }),
        deleting(() => this.on.remove(generation)),
      ),
    );
    this.#foot.replaceChildren();
  }

  /** @param {string} id @returns {boolean} */
  shows(id) {
    return this.#shown === id;
  }
}

/** @param {number} count @returns {string} */
const frameOf = (count) => `frame ${count === 1 ? "one" : count <= 4 ? "few" : "many"}`;

/** @param {HTMLElement} shot @param {number} width @param {number} height */
function sized(shot, width, height) {
  shot.style.setProperty("--w", String(width));
  shot.style.setProperty("--h", String(height));
  return shot;
}

/** @param {Generation} generation @returns {string} */
export function waiting({ queue_position: ahead }) {
  return ahead ? `Waiting · ${ahead} ahead` : "Waiting · next in line";
}

/** @param {Generation} generation @returns {string} what a tile says where it has no picture */
export function standing(generation) {
  if (ENDED.has(generation.status)) return ENDINGS[generation.status] ?? generation.status;
  return generation.status === "queued"
    ? waiting(generation)
    : `${Math.round(generation.progress.fraction * 100)} %`;
}
