/** Puts the playground together: form, easel, gallery, detail, and what happens between them. */

import { abilities, takesPicture } from "./abilities.js";
import * as api from "./api.js";
import { Detail } from "./detail.js";
import { at, hear } from "./dom.js";
import { Easel } from "./easel.js";
import { expired } from "./expiry.js";
import { ENDED, follow } from "./follow.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { call } from "./key.js";
import { announce, complain, dismiss, notice } from "./notices.js";
import { TokenCount } from "./tokens.js";

/** @typedef {import("./api.js").Generation} Generation */

const AGAIN_MILLISECONDS = 3000;
const PREVIEWS = 5;
/** What the form has no place for, or not always; it is told of when settings are reused. */
const SELDOM = ["hires", "refiner", "loras", "vae", "eta", "guidance_rescale", "depth_map"];

class Playground {
  /** @type {Generation | null} the one on the easel while it is drawn */
  #followed = null;
  #leave = () => {};
  #sending = false;

  /** @param {import("./abilities.js").Abilities} can */
  constructor(can) {
    this.gallery = new Gallery({
      opened: (generation) => this.#opened(generation),
      expired: (generation) => this.#expired(generation),
    });
    this.easel = new Easel({
      cancel: () => this.cancel(),
      open: (generation, index) => this.detail.open(generation, index),
      example: (prompt) => this.#write(prompt),
      reuse: (generation) => this.#reuse(generation),
      remove: async (generation) => {
        await this.#remove(generation);
        at("draw").focus();
      },
    });
    this.detail = new Detail({
      gallery: () => this.gallery.pictures,
      reuse: (generation) => this.#reuse(generation),
      start: (image, generation) => this.#start(image, generation),
      remove: (generation) => this.#remove(generation),
    });
    this.counts = ["prompt", "negative_prompt"].map(
      (id) => new TokenCount(at(id), at(`${id}-count`), () => this.#reading()),
    );
    this.form = new Form(can, () => this.#formChanged());
    this.easel.empty(this.form.card.name);
    hear(this.form.element, "submit", (event) => {
      event.preventDefault();
      this.draw();
    });
    hear(window, "keydown", (event) => this.#key(event));
  }

  async begin() {
    this.#count();
    this.gallery.watch(() => this.#followed?.id ?? null);
    try {
      await this.gallery.load();
    } catch (error) {
      return complain(error, () => this.begin());
    }
    const [newest] = this.gallery.active;
    if (newest && !this.#followed) this.#follow(newest);
  }

  async draw() {
    if (this.#sending) return;
    this.#sending = true;
    at("draw").setAttribute("aria-busy", "true");
    try {
      const { request, files } = await this.form.ask();
      const generation = await api.submit({ ...request, previews: PREVIEWS }, files);
      at("notices").replaceChildren();
      this.form.seed.drawnWith(generation.spec.seed);
      this.form.blame([]);
      this.#follow(generation);
      at("easel").scrollIntoView({ block: "nearest" });
    } catch (error) {
      this.#refused(error);
    } finally {
      this.#sending = false;
      at("draw").removeAttribute("aria-busy");
    }
  }

  async cancel() {
    const generation = this.#followed;
    if (!generation) return;
    announce("Canceling");
    try {
      const found = await api.cancel(generation.id);
      if (ENDED.has(found.status)) this.#ended(found);
    } catch (error) {
      complain(error);
    }
  }

  /** @param {unknown} error */
  #refused(error) {
    if (!(error instanceof api.Problem)) throw error;
    const unplaced = this.form.blame(error.errors);
    if (!error.errors.length) complain(error, () => this.draw());
    for (const { field, message } of unplaced) notice(message, { kind: "error", key: field });
    announce(error.errors.length ? "Not drawn: something in the form is wrong" : "Not drawn");
  }

  /** @param {Generation} generation */
  #follow(generation) {
    this.#leave();
    this.gallery.put(generation);
    if (ENDED.has(generation.status)) return this.#ended(generation);
    this.#followed = generation;
    this.easel.follow(generation);
    announce(generation.queue_position ? `Queued, ${generation.queue_position} ahead` : "Queued");
    this.#leave = follow(generation, {
      changed: (now) => this.#changed(now),
      preview: (index, url) => this.easel.preview(index, url),
      lost: () => this.#lost(),
      ended: (last) => (last ? this.#ended(last) : this.#gone(generation.id)),
    });
  }

  #reached = true;
  #lost() {
    this.easel.lost();
    if (this.#reached) announce("Connection lost, trying again");
    this.#reached = false;
  }

  /** @param {Generation} generation */
  #changed(generation) {
    this.#reached = true;
    const before = this.#followed;
    this.#followed = generation;
    this.easel.follow(generation);
    this.gallery.put(generation);
    if (before && before.status !== generation.status && generation.status === "running")
      announce("Drawing");
    const passed = (/** @type {Generation} */ one) => Math.floor(one.progress.fraction * 4);
    if (before && passed(generation) > passed(before))
      announce(`${passed(generation) * 25} percent`);
  }

  /** @param {Generation} generation */
  #ended(generation) {
    this.#leave();
    this.#followed = null;
    this.gallery.put(generation);
    this.easel.show(generation);
    announce(generation.status === "succeeded" ? "Finished" : `It was ${generation.status}`);
  }

  /** @param {string} id */
  #gone(id) {
    this.#followed = null;
    this.gallery.drop(id);
    this.easel.empty(this.form.card.name);
  }

  /** @param {Generation} generation */
  #opened(generation) {
    if (generation.images.length && !expired(generation)) return this.detail.open(generation);
    if (ENDED.has(generation.status)) this.easel.show(generation);
    else this.#follow(generation);
    at("easel").scrollIntoView({ block: "nearest" });
  }

  /** @param {Generation} generation */
  #expired(generation) {
    if (this.easel.shows(generation.id)) this.easel.show(generation);
    if (!this.detail.shows(generation.id)) return announce("A picture has expired");
    this.detail.close();
    notice("The picture that was open has expired.");
  }

  /** @param {Generation} generation */
  #reuse(generation) {
    const { spec } = generation;
    dismiss("lost");
    dismiss("source");
    this.form.use(spec);
    this.#count();
    const lost = SELDOM.filter((name) => {
      const asked = Array.isArray(spec[name]) ? spec[name].length : spec[name];
      return asked && (!at(name)?.value || at(name).closest("[hidden]"));
    });
    if (lost.length) {
      notice(`The form has no place for ${lost.join(", ")}; copy the request to keep it.`, {
        key: "lost",
      });
    }
    if (generation.spec.image && !this.form.source.file) {
      notice("The picture it began with is not sent back by the server; choose it again.", {
        key: "source",
      });
    }
    at("prompt").focus();
  }

  /** @param {import("./api.js").Image} image @param {Generation} generation */
  async #start(image, generation) {
    try {
      const answer = await call(image.url);
      if (!answer.ok) throw new api.Problem(await answer.json(), answer.status);
      dismiss("lost");
      this.form.use({ ...generation.spec, sweep: null });
      this.form.seed.keep(false);
      await this.form.source.set(await answer.blob());
      this.form.start(this.form.task === "inpainting" ? "inpainting" : "image-to-image");
      this.#count();
      at("source-part").scrollIntoView({ block: "nearest" });
    } catch (error) {
      complain(error);
    }
  }

  /** @param {Generation} generation */
  async #remove(generation) {
    try {
      if (!expired(generation)) await api.remove(generation.id);
    } catch (error) {
      if (!(error instanceof api.Problem) || error.code !== "gone") return complain(error);
    }
    this.gallery.drop(generation.id);
    if (this.easel.shows(generation.id)) this.easel.empty(this.form.card.name);
    announce("Deleted");
  }

  /** @param {string} prompt */
  #write(prompt) {
    at("prompt").value = prompt;
    at("prompt").dispatchEvent(new Event("input", { bubbles: true }));
    at("prompt").focus();
  }

  #reading() {
    return {
      checkpoint: this.form.card.name,
      prompt_syntax: at("prompt_syntax").value || undefined,
      long_prompts: at("long_prompts").value || undefined,
    };
  }

  #read = "";
  /** What a prompt becomes depends on more than its words. */
  #formChanged() {
    if (!this.form) return;
    if (this.form.source.file || !takesPicture(this.form.task)) dismiss("source");
    const reading = JSON.stringify(this.#reading());
    if (reading !== this.#read) this.#count();
    this.#read = reading;
  }

  #count() {
    this.counts.forEach((count) => count.now());
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (at("detail").open || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.draw();
    } else if (event.key === "Escape" && this.#followed) {
      event.preventDefault();
      this.cancel();
    }
  }
}

/** Until the server answers, and says so if no worker does. */
async function begin() {
  const can = await abilities().catch((error) => {
    complain(error);
    setTimeout(begin, AGAIN_MILLISECONDS);
  });
  if (!can) return;
  dismiss("unreachable");
  const playground = new Playground(can);
  await playground.begin();
  if (!can.served) playground.form.offer(await workers());
}

/** @returns {Promise<import("./abilities.js").Abilities>} once a worker is ready */
async function workers() {
  const close = notice(
    "No worker is ready yet. What you draw is refused until one is; this page notices by itself.",
    { key: "workers" },
  );
  for (;;) {
    await new Promise((done) => setTimeout(done, AGAIN_MILLISECONDS));
    const can = await abilities().catch(() => null);
    if (!can?.served) continue;
    close();
    return can;
  }
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) at("draw-keys").textContent = "⌘ ↵";
begin();
