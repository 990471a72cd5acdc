/** What the server can draw now, and which fields matter to it. Plain values; knows no elements. */

import * as api from "./api.js";

/**
 * @typedef {{name: string, description: string, native_size: number, tasks: string[],
 *   defaults: Record<string, any>, limits: Record<string, number>}} Checkpoint
 * @typedef {{checkpoints: Checkpoint[], default: string, served: boolean, upscalers: string[],
 *   loras: string[] | null, vaes: string[] | null,
 *   samplers: {name: string, sigmas: string[], from_noise_only: boolean}[], sweepFields: string[], maxSeed: number}} Abilities
 */

export const TASKS = /** @type {Record<string, string>} */ ({
  "text-to-image": "Words",
  "image-to-image": "A picture",
  inpainting: "A part of a picture",
  "depth-to-image": "A picture's depth",
  upscale: "A small picture",
});

const SHAPES = [
  ["Square", 1, 1],
  ["Portrait 3:4", 3, 4],
  ["Portrait 9:16", 9, 16],
  ["Landscape 4:3", 4, 3],
  ["Landscape 16:9", 16, 9],
];

/** @returns {Promise<Abilities>} checkpoints that a worker serves, or all of them while none does */
export async function abilities() {
  const [can, cards, samplers] = await Promise.all([
    api.capabilities(),
    api.checkpoints(),
    api.samplers(),
  ]);
  const known = new Set(
    can.checkpoints
      .filter((/** @type {any} */ one) => one.served !== false)
      .map((/** @type {any} */ one) => one.name),
  );
  const served = cards.checkpoints.filter((/** @type {Checkpoint} */ card) => known.has(card.name));
  return {
    checkpoints: served.length ? served : cards.checkpoints,
    served: served.length > 0,
    default: can.default_checkpoint,
    loras: can.loras, // null where only the workers can see them
    vaes: can.vaes,
    upscalers: can.upscalers.filter((/** @type {string} */ name) => known.has(name)),
    samplers: samplers.samplers,
    sweepFields: can.sweep_fields,
    maxSeed: can.max_seed,
  };
}

/** @param {string} task */
export const takesPicture = (task) => task !== "text-to-image";
/** @param {string} task */
export const takesMask = (task) => task === "inpainting";
/** @param {string} task */
export const takesStrength = (task) => takesPicture(task) && task !== "upscale";

/** @param {string} task @param {Checkpoint} card @returns {number} */
export const defaultStrength = (task, card) =>
  takesMask(task) ? card.defaults.inpainting_strength : card.defaults.strength;

/**
 * Sizes of the checkpoint's own area that it can draw.
 * @param {Checkpoint} card
 * @returns {{name: string, width: number, height: number}[]}
 */
export function shapes(card) {
  const { side_multiple: multiple, min_side: least, max_side: most } = card.limits;
  const side = (/** @type {number} */ pixels) =>
    Math.min(most, Math.max(least, Math.round(pixels / multiple) * multiple));
  return SHAPES.map(([name, across, down]) => {
    const unit = card.native_size / Math.sqrt(Number(across) * Number(down));
    const [width, height] = [side(unit * Number(across)), side(unit * Number(down))];
    return { name: `${name} · ${width} × ${height}`, width, height };
  });
}
