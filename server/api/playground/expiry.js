/** Until when pictures are kept, by the server's clock. */

import { now } from "./api.js";

/** @typedef {import("./api.js").Generation} Generation */

/** @param {Generation} generation @returns {number} milliseconds; without pictures nothing ends */
export const left = ({ images, expires_at: until }) =>
  images.length && until ? Date.parse(until) - now() : Infinity;

/** @type {Set<string>} what has expired stays so, however its clock is read later */
const over = new Set();

/** @param {Generation} generation @returns {boolean} whether the server has its pictures no more */
export function expired(generation) {
  if (left(generation) <= 0) over.add(generation.id);
  return over.has(generation.id);
}
