/** The HTTP API as this page uses it. Knows addresses and problem documents, and no elements. */

/**
 * @typedef {{index: number, url: string, seed: number, width: number, height: number,
 *   sha256: string, nsfw: boolean | null, varied: Record<string, any>}} Image
 * @typedef {{steps_done: number, steps_total: number, fraction: number}} Progress
 * @typedef {{id: string, status: string, created_at: string, queue_position: number | null,
 *   eta_seconds: number | null, progress: Progress, spec: Record<string, any>,
 *   warnings: {code: string, message: string}[], images: Image[], grid: Image | null,
 *   stages: Record<string, any>[], metrics: Record<string, any> | null,
 *   error: {code: string, message: string} | null, expires_at: string | null,
 *   urls: {self: string, cancel: string, events: string}}} Generation
 */

import { call } from "./key.js";

const PATIENCE_MILLISECONDS = 5000;
/** How far the server's clock is ahead of ours. */
let ahead = 0;

/** @returns {number} what the server's clock shows, in milliseconds, give or take a second */
export const now = () => Date.now() + ahead;

/** An answer that says what is wrong (RFC 9457), or that there was none. */
export class Problem extends Error {
  /**
   * @param {{code?: string, detail?: string, errors?: {field: string, message: string}[]}} said
   * @param {number} status 0 where nothing answered
   * @param {number} retryAfter seconds; 0 where nobody said
   */
  constructor(said, status = 0, retryAfter = 0) {
    super(said.detail || "The server could not be reached");
    this.code = said.code ?? "unreachable";
    this.errors = said.errors ?? [];
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/**
 * @param {string} path
 * @param {RequestInit & {patience?: number}} [init]
 * @returns {Promise<any>} what was answered
 * @throws {Problem}
 */
async function ask(path, init) {
  let answer;
  try {
    answer = await call(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem({});
  }
  const told = Date.parse(answer.headers.get("Date") ?? "") + 1000; // it is told late
  if (told) ahead = told - Date.now();
  if (answer.status === 204) return null;
  const said = await answer
    .json()
    .catch(() => ({ detail: `The server answered ${answer.status}` }));
  if (answer.ok) return said;
  throw new Problem(said, answer.status, Number(answer.headers.get("Retry-After")) || 0);
}

/** @param {any} body @returns {RequestInit} */
const posted = (body) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

/** What is asked again anyway is not waited for longer. */
const patient = { patience: PATIENCE_MILLISECONDS };

export const capabilities = () => ask("/v1/capabilities");
export const checkpoints = () => ask("/v1/checkpoints");
export const samplers = () => ask("/v1/samplers");
export const queue = () => ask("/v1/queue", patient);

/** @param {string} prompt @param {any} reading @param {AbortSignal} signal */
export const tokenize = (prompt, reading, signal) =>
  ask("/v1/tokenize", { ...posted({ prompt, ...reading }), signal });

/** @param {string} id @returns {Promise<Generation>} */
export const look = (id) => ask(`/v1/generations/${id}`, patient);

/** @param {string} id @returns {Promise<Generation>} */
export const cancel = (id) => ask(`/v1/generations/${id}/cancel`, { method: "POST" });

/** @param {string} id @returns {Promise<null>} */
export const remove = (id) => ask(`/v1/generations/${id}`, { method: "DELETE" });

/**
 * @param {{limit: number, cursor?: string | null}} page
 * @returns {Promise<{generations: Generation[], next: string | null}>} newest first
 */
export function list({ limit, cursor = null }) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (cursor) query.set("cursor", cursor);
  return ask(`/v1/generations?${query}`);
}

/**
 * Submit. Where no answer comes it asks once more; the key keeps that from drawing twice.
 * @param {Record<string, any>} request
 * @param {Record<string, Blob>} files pictures by their field
 * @returns {Promise<Generation>}
 */
export async function submit(request, files) {
  const init = Object.keys(files).length ? form(request, files) : posted(request);
  init.headers = { ...init.headers, "Idempotency-Key": `playground-${random()}` };
  try {
    return await ask("/v1/generations", init);
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== "unreachable") throw error;
    return ask("/v1/generations", init);
  }
}

/** @param {Record<string, any>} request @param {Record<string, Blob>} files @returns {RequestInit} */
function form(request, files) {
  const body = new FormData();
  body.append("request", new Blob([JSON.stringify(request)], { type: "application/json" }));
  for (const [field, file] of Object.entries(files)) body.append(field, file, field);
  return { method: "POST", body };
}

/** Not `crypto.randomUUID`, which only pages from https and from this machine have. */
function random() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
