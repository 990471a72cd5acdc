/**
 * One generation, followed until it has ended. What happens comes as events; place in the queue and
 * time left are looked up beside them.
 */

import * as api from "./api.js";
import { call } from "./key.js";

/** @typedef {import("./api.js").Generation} Generation */

const LOOK_MILLISECONDS = 1000;
const AGAIN_MILLISECONDS = 2000;
export const ENDED = new Set(["succeeded", "failed", "canceled", "expired"]);

/**
 * @param {Generation} generation
 * @param {{changed: (generation: Generation) => void, preview?: (index: number, url: string) => void,
 *   lost?: () => void, ended: (generation: Generation | null) => void}} heard `ended` gets null where it was deleted
 * @returns {() => void} stops following
 */
export function follow(generation, heard) {
  const stream = new AbortController();
  let known = generation;
  let over = false;

  const stop = () => {
    over = true;
    stream.abort();
    clearInterval(looking);
  };
  const finish = (/** @type {Generation | null} */ last) => {
    if (over) return;
    stop();
    heard.ended(last);
  };
  const learn = (/** @type {Partial<Generation>} */ news) => {
    if (over) return;
    known = { ...known, ...news };
    heard.changed(known);
  };
  const look = async () => {
    const before = known;
    try {
      const found = await api.look(generation.id);
      if (ENDED.has(found.status)) finish(found);
      else learn({ ...found, progress: further(found.progress, known.progress) });
    } catch (error) {
      if (error instanceof api.Problem && (error.status === 404 || error.status === 410))
        finish(null);
      else if (!over && known === before) heard.lost?.(); // until the next look or event
    }
  };
  const looking = setInterval(look, LOOK_MILLISECONDS);

  listen(generation.urls.events, stream.signal, {
    state: ({ status }) => !ENDED.has(status) && learn({ status }),
    stage: () => look(),
    progress: (progress) => learn({ status: "running", progress }),
    preview: ({ index, number, url }) => heard.preview?.(index, `${url}?number=${number}`),
    done: () => {
      stream.abort();
      look();
    },
  });
  return stop;
}

/**
 * Not with `EventSource`, which cannot send a key. What breaks is taken up where it broke.
 * @param {string} url @param {AbortSignal} signal
 * @param {Record<string, (data: any) => void>} heard by the kind of event
 */
async function listen(url, signal, heard) {
  for (let last = "0"; !signal.aborted;) {
    const answer = await call(url, { signal, headers: { "Last-Event-ID": last } }).catch(
      () => null,
    );
    const parts = answer?.ok && answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; parts;) {
      const { done, value } = await parts.read().catch(() => ({ done: true, value: "" }));
      if (done) break;
      const events = (rest + value).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        const said = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/)));
        if (signal.aborted || !said.data) continue;
        last = said.id;
        heard[said.event]?.(JSON.parse(said.data));
      }
    }
    await new Promise((done) => setTimeout(done, AGAIN_MILLISECONDS));
  }
}

/** @param {api.Progress} one @param {api.Progress} other */
const further = (one, other) => (one.steps_done >= other.steps_done ? one : other);

/** @param {number} seconds @returns {string} */
export function duration(seconds) {
  if (seconds < 10) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 90) return `${Math.round(seconds / 5) * 5} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
