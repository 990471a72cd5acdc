/** The picture in the middle: what is being drawn, then what was. Decides nothing. */

import { deleting, downloading } from "./actions.js";
import { at, button, h, picture, sized, worded } from "./dom.js";
import { expired } from "./expiry.js";
import { ENDED, duration } from "./follow.js";
import { point } from "./key.js";
import { sentence } from "./notices.js";
import { gridOf } from "./sweep.js";

/** @typedef {import("./api.js").Generation} Generation */

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
  #told = h("p.told");
  #left = h("p.left");

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
      h("p.lead", { text: "Nothing on the easel yet" }),
      h("p.hint", {
        text: "Write what you want to see and press Draw, or begin with one of these.",
      }),
      h(
        "ul.examples",
        {},
        ...examples.map((prompt) =>
          h(
            "li",
            {},
            button(prompt, () => this.on.example(prompt), { class: "quiet" }),
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
    const half = new Image();
    half.alt = "";
    point(half, "src", url)
      .then(() => half.decode())
      .then(
        () => {
          if (this.#shown === shown && shot.isConnected) shot.replaceChildren(half);
        },
        () => {},
      ); // it is gone already: the next one, or the picture itself, comes soon
  }

  /** @param {Generation} generation that has ended */
  show(generation) {
    const before = this.#shown;
    this.#shown = generation.id;
    if (generation.status !== "succeeded" || expired(generation)) return this.#fail(generation);
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
      h("p.told", { text: generation.spec.prompt || "No prompt" }),
      only ? downloading(generation, only) : "",
      h("p.hint", {
        text: `Click ${images.length === 1 ? "the" : "a"} picture for its details.`,
      }),
      h("p.left", {
        text: [`seed ${generation.spec.seed}`, seconds && `${seconds.toFixed(1)} s`]
          .filter(Boolean)
          .join(" · "),
      }),
      ...generation.warnings.map((warning) =>
        h("p.warning", {}, ...worded(sentence(warning.message))),
      ),
    );
  }

  /** @param {Generation} generation */
  #begin(generation) {
    this.#shown = generation.id;
    const { num_images: count } = generation.spec;
    const cancel = button("Cancel", () => this.on.cancel(), { id: "cancel" });
    cancel.append(h("kbd", { "aria-hidden": "true", text: "Esc" }));
    this.#frame.className = `${frameOf(count)} drawing`;
    this.#frame.replaceChildren(
      ...Array.from({ length: count }, () =>
        sized(h("div.shot"), /** @type {any} */ (generation.spec)),
      ),
    );
    this.#foot.replaceChildren(this.#told, this.#left, this.#bar, cancel);
  }

  /** @param {Generation} generation @param {import("./api.js").Image} image @param {number} index */
  #picture(generation, image, index) {
    const name =
      generation.images.length > 1
        ? `Picture ${index + 1}: ${generation.spec.prompt}`
        : `Picture: ${generation.spec.prompt}`;
    const shot = button("", () => this.on.open(generation, index), {
      class: "shot",
      "aria-label": `${name}. Look closer.`,
    });
    shot.append(picture(image));
    return sized(shot, image);
  }

  /** @param {Generation} generation */
  #fail(generation) {
    this.#frame.className = "frame empty";
    const said = generation.status === "failed" ? generation.error?.message : over(generation);
    this.#frame.replaceChildren(
      h("p.lead", { text: standing(generation) }),
      said && h("p.hint", {}, ...worded(sentence(said))),
      h("p.hint", { text: generation.spec.prompt }),
      h(
        "div.ways",
        {},
        button("Reuse settings", () => this.on.reuse(generation)),
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

/** @param {Generation} generation @returns {string} */
export function waiting({ queue_position: ahead }) {
  return ahead ? `Waiting · ${ahead} ahead` : "Waiting · next in line";
}

/** @param {Generation} generation */
const over = (generation) =>
  expired(generation) &&
  `It was kept until ${new Date(/** @type {string} */ (generation.expires_at)).toLocaleString()}`;

/** @param {Generation} generation @returns {string} what a tile says where it has no picture */
export function standing(generation) {
  if (expired(generation)) return "Expired";
  if (ENDED.has(generation.status)) return ENDINGS[generation.status] ?? generation.status;
  return generation.status === "queued"
    ? waiting(generation)
    : `${Math.round(generation.progress.fraction * 100)} %`;
}
