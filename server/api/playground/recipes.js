/** How to draw a generation again, from a shell, from Python, or in A1111's words. */

import { call } from "./key.js";
import { textOf } from "./pngtext.js";

const NEVER = new Set(
  "num_images seed width height prompt num_inference_steps guidance_scale".split(" "),
);
/** What a request needs not say where it is so; the rest is said as it was drawn. */
const NEUTRAL = /** @type {Record<string, any>} */ ({
  task: "text-to-image",
  guidance_rescale: 0,
  eta: 0,
  sigmas: "default",
  clip_skip: 0,
  priority: 0,
  negative_prompt: "",
  output_format: "png",
  vae: "",
  strict: false,
  keep_outside: true,
  guidance_end: 1,
  cache_interval: 1,
  prompt_syntax: "plain",
  long_prompts: "chunk",
});
const UPLOADS = ["image", "mask_image", "depth_map"];
const ELSEWHERE = new Set([
  ...UPLOADS,
  ..."sdxl sweep refiner deadline_seconds previews webhook".split(" "),
]);

/**
 * @param {Record<string, any>} spec of a record
 * @returns {Record<string, any>} a request that draws the same; pictures are files beside it
 */
function requestOf(spec) {
  const said = Object.entries({ ...spec, ...spec.sdxl }).filter(
    ([name, value]) =>
      !ELSEWHERE.has(name) &&
      value !== null &&
      (NEVER.has(name) || value !== NEUTRAL[name]) &&
      !(Array.isArray(value) && !value.length),
  );
  const request = Object.fromEntries(said);
  if (spec.refiner) {
    const { strength, ...rest } = spec.refiner;
    request.refiner = spec.refiner.switch_at < 1 ? rest : spec.refiner;
  }
  if (spec.sweep) {
    request.sweep = Object.fromEntries(
      spec.sweep.axes.map((/** @type {any} */ axis) => [axis.field, axis.values]),
    );
    delete request.num_images;
    for (const field of Object.keys(request.sweep)) if (field !== "seed") delete request[field];
  }
  return request;
}

/** @param {Record<string, any>} spec @param {string} origin @returns {string} */
export function curlOf(spec, origin) {
  const request = JSON.stringify(requestOf(spec));
  const files = UPLOADS.filter((name) => spec[name]);
  const sent = files.length
    ? [
        `-F ${quoted(`request=${request.replace(/;/g, "\\u003b")};type=application/json`)}`,
        ...files.map((name) => `-F ${name}=@${name}.png`),
      ]
    : ["-H 'Content-Type: application/json'", `-d ${quoted(request)}`];
  return [
    `curl -fsS ${origin}/v1/generations`,
    `-H 'Accept: image/${spec.output_format}'`,
    ...sent,
    `-o picture.${spec.output_format}`,
  ].join(" \\\n  ");
}

/** @param {Record<string, any>} spec @param {string} origin @returns {string} */
export function pythonOf(spec, origin) {
  const files = UPLOADS.filter((name) => spec[name]);
  const request = literal(requestOf(spec), "");
  const sent = files.length
    ? `    data={"request": json.dumps(request)},\n    files={${files.map((name) => `"${name}": open("${name}.png", "rb")`).join(", ")}},`
    : "    json=request,";
  return `${files.length ? "import json\n\n" : ""}import httpx\n\nrequest = ${request}\nanswer = httpx.post(
    "${origin}/v1/generations",\n    headers={"Accept": "image/${spec.output_format}"},\n${sent}\n    timeout=300,\n)
answer.raise_for_status()\nopen("picture.${spec.output_format}", "wb").write(answer.content)\n`;
}

/** @param {string} url of a PNG @returns {Promise<string>} what A1111's readers find in it */
export async function infotextOf(url) {
  const answer = await call(url);
  const text = textOf(new Uint8Array(await answer.arrayBuffer()), "parameters");
  if (text === null) throw new Error("this picture carries no infotext; PNG files do");
  return text;
}

/** @param {string} text @returns {string} for a shell */
const quoted = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

/** @param {any} value @param {string} indent @returns {string} as Python writes it */
function literal(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const items = Array.isArray(value)
    ? value.map((item) => literal(item, inner))
    : Object.entries(value).map(
        ([name, item]) => `${JSON.stringify(name)}: ${literal(item, inner)}`,
      );
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (Array.isArray(value)) return open + items.join(", ") + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}
