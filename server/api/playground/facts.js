/** What a picture was drawn with, in words. */

import { h } from "./dom.js";

/** @typedef {import("./api.js").Generation} Generation */
/** @typedef {import("./api.js").Image} Image */

/** @param {Generation} generation @param {Image} image @returns {HTMLElement} */
export function factsOf({ spec, metrics, created_at: created }, image) {
  const rows = /** @type {[string, any][]} */ ([
    ["Left out", spec.negative_prompt],
    ["Checkpoint", spec.checkpoint],
    ["Size", `${image.width} × ${image.height}`],
    ["Steps", image.varied.num_inference_steps ?? spec.num_inference_steps],
    ["Guidance", image.varied.guidance_scale ?? spec.guidance_scale],
    ["Sampler", image.varied.sampler ?? spec.sampler],
    ["Seed", image.seed],
    ["Strength", image.varied.strength ?? spec.strength],
    ["Upscaled by", spec.upscaler?.checkpoint],
    ["Drawn", new Date(created).toLocaleString()],
    [
      "Took",
      metrics &&
        `${metrics.total_seconds.toFixed(1)} s, ${metrics.queue_seconds.toFixed(1)} s of it waiting`,
    ],
    ["Checked", image.nsfw === null ? null : image.nsfw ? "flagged as unsafe" : "not flagged"],
  ]);
  const told = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    {},
    ...told.flatMap(([name, value]) => [h("dt", { text: name }), h("dd", { text: String(value) })]),
  );
}
