/** The status page: what waits, what runs and who works, a look a second while it is seen. */

import * as api from "./api.js";
import { at, h } from "./dom.js";
import { duration } from "./follow.js";
import { complain, dismiss } from "./notices.js";
import { Plot } from "./plot.js";

const LOOK_MILLISECONDS = 1000;
const LOOKS = 90;
/** How the last look failed; empty where it did not. */
let lost = "";
/** When the numbers that are shown were so. */
let seen = "";

/** One checkpoint's queue, and its workers. */
class Queue {
  #plots = {
    queued: new Plot("Waiting", { length: LOOKS, write: String }),
    images: new Plot("Pictures in a batch", { length: LOOKS, write: String }),
    room: new Plot("Room taken", { length: LOOKS, write: percent }),
    rows: new Plot("Rows in a step", { length: LOOKS, write: String }),
    step: new Plot("Time of a step", { length: LOOKS, write: milliseconds, least: 0.01 }),
  };
  #workers = h("p.hint");
  #wait = h("p.wait");

  /** @param {string} name of the checkpoint */
  constructor(name) {
    const plots = Object.values(this.#plots).map((plot) => plot.view);
    this.view = h(
      "section.queue",
      { "aria-label": name },
      h("header", {}, h("h2", { text: name }), this.#wait),
      this.#workers,
      h("div.plots", {}, ...plots),
    );
  }

  /** @param {any} found an entry of GET /v1/queue */
  add({ queued, capacity, workers, wait_seconds: wait, ready_workers: ready }) {
    const busy = workers.filter((/** @type {any} */ worker) => worker.step_rows);
    const images = total(workers, "images");
    this.#plots.queued.add(queued);
    this.#plots.images.add(images);
    this.#plots.room.add(capacity ? images / capacity : null);
    this.#plots.rows.add(busy.length ? total(busy, "step_rows") / busy.length : null);
    this.#plots.step.add(busy.length ? total(busy, "step_seconds") / busy.length : null);
    this.#workers.textContent = workers.map(told).join(" · ") || "no worker";
    this.#wait.textContent =
      wait === null ? "no measure yet" : `a new one is finished in about ${duration(wait)}`;
    this.view.classList.toggle("down", !ready);
  }
}

/** @type {Map<string, Queue>} */
const queues = new Map();

async function look() {
  if (document.hidden && queues.size) return;
  try {
    const { checkpoints } = await api.queue();
    dismiss("unreachable");
    dismiss("broker_unavailable");
    if (lost) dismiss(lost);
    lost = "";
    seen = new Date().toLocaleTimeString();
    show(checkpoints);
  } catch (error) {
    const { code } = /** @type {any} */ (error);
    if (code !== lost) complain(error);
    lost = code;
    if (seen) at("summary").textContent = `Old numbers, from ${seen}`;
  }
  at("queues").classList.toggle("old", lost !== "");
}

/** @param {any[]} checkpoints */
function show(checkpoints) {
  const used = checkpoints.filter(
    (one) =>
      one.ready_workers ||
      one.draining_workers ||
      one.queued ||
      one.running ||
      queues.has(one.checkpoint),
  );
  for (const found of used) {
    const queue = queues.get(found.checkpoint) ?? new Queue(found.checkpoint);
    queues.set(found.checkpoint, queue);
    queue.add(found);
    if (!queue.view.isConnected) at("queues").append(queue.view);
  }
  const idle = checkpoints
    .filter((one) => !queues.has(one.checkpoint))
    .map((one) => one.checkpoint);
  at("summary").textContent =
    `${count(total(used, "ready_workers"), "worker")} · ${total(used, "queued")} waiting · ` +
    `${total(used, "running")} being drawn`;
  at("idle").textContent = idle.length
    ? `In the catalog, without a worker: ${idle.join(", ")}`
    : "";
}

/** @param {any[]} all @param {string} field */
const total = (all, field) => all.reduce((sum, one) => sum + one[field], 0);

/** @param {any} worker */
const told = ({ device, state, capacity }) =>
  `${device}, ${state === "ready" ? `room for ${count(capacity, "picture")}` : state}`;

/** @param {number} many @param {string} noun */
const count = (many, noun) => `${many} ${noun}${many === 1 ? "" : "s"}`;
/** @param {number} value */
function percent(value) {
  return `${Math.round(value * 100)} %`;
}
/** @param {number} value */
function milliseconds(value) {
  return value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(2)} s`;
}

await look();
setInterval(look, LOOK_MILLISECONDS);
