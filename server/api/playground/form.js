/**
 * The form: what can be asked of the chosen checkpoint, and the request that it makes.
 * A control with a name is a field of the request; what is hidden or empty is left to the card.
 */

import { TASKS, defaultStrength, takesMask, takesPicture, takesStrength } from "./abilities.js";
import { fault, lorasOf, numberOf, valueOf, writtenLoras } from "./controls.js";
import { at, fill, h, hear } from "./dom.js";
import { clearFaults, showFaults } from "./faults.js";
import { Seed } from "./seed.js";
import { remember, remembered, restore } from "./settings.js";
import { Shape } from "./shape.js";
import { Source } from "./source.js";
import { Sweep } from "./sweep.js";

/** @typedef {import("./abilities.js").Abilities} Abilities */
/** @typedef {import("./abilities.js").Checkpoint} Checkpoint */

const CARDS_OWN = ["num_inference_steps", "guidance_scale", "sampler", "strength", "noise_level"];

export class Form {
  element = at("ask");
  seed = new Seed(() => this.#changed());
  shape = new Shape(() => this.#changed());
  sweep = new Sweep(() => this.#changed());
  source = new Source(
    () => this.#pictureChosen(),
    (message) => showFaults(this.element, [{ field: "image", message }]),
  );
  /** @type {Record<string, any>} what the card would have for the fields it has a say in */
  #own = {};

  /** @param {Abilities} abilities @param {() => void} changed */
  constructor(abilities, changed) {
    this.abilities = abilities;
    this.heard = changed;
    const kept = remembered(); // before anything here is remembered in its place
    this.offer(abilities);
    this.#restore(kept);
    hear(this.element, "input", (event) => this.#input(event.target));
    hear(at("checkpoint"), "change", () => this.#choose());
    hear(at("tasks"), "change", () => this.#adapt());
    hear(at("defaults"), "click", () => this.reset());
  }

  /** @returns {Checkpoint} */
  get card() {
    const { checkpoints } = this.abilities;
    return checkpoints.find((card) => card.name === at("checkpoint").value) ?? checkpoints[0];
  }

  get task() {
    return at("tasks").querySelector(":checked")?.value ?? this.card.tasks[0];
  }

  /**
   * @returns {Promise<{request: Record<string, any>, files: Record<string, Blob>}>}
   * @throws {import("./api.js").Problem} where a control holds what is not even a number
   */
  async ask() {
    const request = /** @type {Record<string, any>} */ ({
      task: this.task,
      checkpoint: this.card.name,
    });
    for (const control of this.element.elements) {
      const asked = control.name && !control.disabled && !control.closest("[hidden]");
      const value = asked ? valueOf(control) : null;
      if (value !== null) request[control.name] = value;
    }
    request.prompt = at("prompt").value;
    if (this.seed.wanted !== null && !at("seed").disabled)
      request.seed = numberOf("seed", this.seed.wanted);
    if (request.loras) request.loras = lorasOf(request.loras);
    const sweep = this.sweep.asked;
    if (sweep) request.sweep = sweep;
    if (request.upscaler) request.upscaler = { checkpoint: request.upscaler };
    return { request, files: await this.#files() };
  }

  /** @returns {Promise<Record<string, Blob>>} */
  async #files() {
    const files = /** @type {Record<string, Blob>} */ ({});
    if (!takesPicture(this.task)) return files;
    const { file, mask } = this.source;
    if (!file) throw fault("image", "choose the picture to start from");
    files.image = file;
    if (!takesMask(this.task) || !mask) return files;
    if (mask.empty) throw fault("mask_image", "paint over what is to be drawn again");
    return { ...files, mask_image: await mask.blob() };
  }

  /** @param {{field: string, message: string}[]} errors @returns {{field: string, message: string}[]} */
  blame(errors) {
    return showFaults(this.element, errors);
  }

  /** @param {Record<string, any>} spec of a generation, to draw it again */
  use(spec) {
    if (this.abilities.checkpoints.some((card) => card.name === spec.checkpoint))
      at("checkpoint").value = spec.checkpoint;
    this.#choose(spec.task);
    for (const control of this.element.elements) {
      const { name } = control;
      if (!(name in spec) || name === "checkpoint" || name === "task") continue;
      if (control.type === "checkbox") control.checked = spec[name];
      else control.value = spec[name] ?? "";
    }
    at("num_images").value = spec.sweep ? 1 : spec.num_images;
    at("upscaler").value = spec.upscaler?.checkpoint ?? "";
    at("loras").value = writtenLoras(spec.loras);
    this.seed.set(spec.seed, true);
    this.sweep.use(spec.sweep?.axes ?? []);
    this.shape.name();
    this.#adapt();
  }

  /** @param {string} task one of the checkpoint's, or nothing happens */
  start(task) {
    const choice = at("tasks").querySelector(`[value="${task}"]`);
    if (choice) choice.checked = true;
    this.#adapt();
  }

  reset() {
    for (const control of this.element.querySelectorAll(".options [name]")) {
      if (control.type === "checkbox") control.checked = false;
      else if (control.type !== "radio" && control.name !== "checkpoint") control.value = "";
    }
    at("num_images").value = 1;
    this.#own = {};
    this.seed.keep(false);
    this.sweep.use([]);
    this.shape.reset();
    this.#adapt();
  }

  /** @param {Abilities} abilities what can be chosen from now on */
  offer(abilities) {
    this.abilities = abilities;
    const { checkpoints, loras, upscalers, vaes } = abilities;
    const first = checkpoints.find((card) => card.name === abilities.default) ?? checkpoints[0];
    const chosen = at("checkpoint").value || first.name;
    fill(
      at("checkpoint"),
      checkpoints.map((card) => card.name),
    );
    at("checkpoint").value = checkpoints.some((card) => card.name === chosen) ? chosen : first.name;
    this.#choose();
    fill(at("upscaler"), [["", "No"], ...upscalers]);
    fill(at("lora-names"), loras ?? []);
    at("loras-part").hidden = loras?.length === 0;
    fill(at("vae"), [["", "The checkpoint's own"], ...(vaes ?? [])]);
    at("vae-part").hidden = !vaes?.length;
  }

  /** @param {import("./settings.js").Kept} kept */
  #restore(kept) {
    restore(this.element, kept);
    this.#choose(String(kept.task ?? this.task));
    restore(this.element, kept); // what the checkpoint and the task have to choose from is there now
    this.seed.keep(kept.kept === true);
    at("vary").open = this.sweep.active;
    this.#adapt();
  }

  /** @param {any} control that has something new in it */
  #input(control) {
    const pair = control.dataset.of
      ? at(control.dataset.of)
      : this.element.querySelector(`[data-of="${control.id}"]`);
    if (pair) pair.value = control.value;
    const holder = control.closest("[data-field]");
    if (holder) clearFaults(holder);
    if (control.id === "sampler") this.#offerSigmas();
    this.#changed();
  }

  /** @param {string} [task] kept where the checkpoint offers it */
  #choose(task = this.task) {
    const { card } = this;
    at("checkpoint-about").textContent = card.description;
    const chosen = card.tasks.includes(task) ? task : card.tasks[0];
    at("tasks").replaceChildren(
      ...card.tasks.map((one) =>
        h(
          "label.segment",
          {},
          h("input", { type: "radio", name: "task", value: one, checked: one === chosen }),
          h("span", { text: TASKS[one] ?? one }),
        ),
      ),
    );
    this.#adapt();
  }

  /** Show what the task and the card know, with the card's own values where nothing was changed. */
  #adapt() {
    const { card, task } = this;
    this.#offerSamplers();
    this.#takeOwn({ ...card.defaults, strength: defaultStrength(task, card) });
    at("source-part").hidden = !takesPicture(task);
    at("mask-part").hidden = at("crop-part").hidden = !takesMask(task);
    at("strength-part").hidden = !takesStrength(task);
    at("size-part").hidden = task === "upscale";
    at("noise-part").hidden = task !== "upscale";
    this.sweep.offer(
      this.abilities.sweepFields.filter((name) => name !== "strength" || takesStrength(task)),
    );
    this.source.masked(takesMask(task));
    this.#bound();
    this.shape.offer(card, takesPicture(task), this.source.picture);
    this.#offerSigmas();
    this.#changed();
  }

  /** @param {Record<string, any>} own */
  #takeOwn(own) {
    for (const name of CARDS_OWN) {
      const [control, before] = [at(name), this.#own[name]];
      if (before === undefined || ["", String(before)].includes(control.value))
        control.value = own[name];
      const range = this.element.querySelector(`[data-of="${name}"]`);
      if (range) range.value = control.value;
    }
    at("negative_prompt").placeholder = own.negative_prompt || "What it should not show";
    this.#own = own;
  }

  #bound() {
    const { limits } = this.card;
    for (const side of ["width", "height"]) {
      Object.assign(at(side), {
        min: limits.min_side,
        max: limits.max_side,
        step: limits.side_multiple,
      });
    }
    at("num_images").max = limits.max_images;
    at("num_inference_steps").max = limits.max_steps;
    at("clip_skip").max = limits.max_clip_skip;
    this.element.querySelector('[data-of="num_inference_steps"]').max = Math.min(
      100,
      limits.max_steps,
    );
  }

  #offerSamplers() {
    const own = this.card.defaults.sampler;
    const pictured = takesPicture(this.task);
    const names = this.abilities.samplers
      .filter((sampler) => !(pictured && sampler.from_noise_only))
      .map(({ name }) => [name, name === own ? `${name} (default)` : name]);
    fill(at("sampler"), names);
  }

  #offerSigmas() {
    const sampler = this.abilities.samplers.find(({ name }) => name === at("sampler").value);
    const names = sampler?.sigmas ?? ["default"];
    fill(at("sigmas"), [["", "As the checkpoint has it"], ...names]);
  }

  #pictureChosen() {
    if (this.source.file && !takesPicture(this.task)) this.start("image-to-image");
    for (const field of ["image", "mask_image"]) {
      clearFaults(this.element.querySelector(`[data-field="${field}"]`));
    }
    this.#adapt();
  }

  /** A sweep says how many pictures there are, and what of each it varies; nothing follows it. */
  #leaveToSweep() {
    const { active, fields } = this.sweep;
    at("count-part").hidden = active;
    at("upscaler-part").hidden =
      !this.abilities.upscalers.length || this.task === "upscale" || active;
    for (const name of this.abilities.sweepFields) {
      for (const control of this.element.querySelectorAll(`#${name}, [data-of="${name}"]`))
        control.disabled = fields.includes(name);
    }
  }

  #changed() {
    this.#leaveToSweep();
    remember(this.element, { task: this.task, kept: this.seed.kept });
    this.heard();
  }
}
