/**
 * Painting what is drawn again, by pointer or by keys. A mask is a list of strokes on a canvas of
 * the picture's own size; to undo is to paint all but the last again.
 */

import { h, hear, tool } from "./dom.js";

/** @typedef {{erase: boolean, radius: number, points: [number, number][], clear?: boolean}} Stroke */

const HELP =
  "Mask. Paint what is drawn again. Arrow keys move the brush, Space paints, E erases, " +
  "[ and ] change its size, U undoes.";

export class Mask {
  /** @type {Stroke[]} */
  #strokes = [];
  /** @type {Stroke | null} */
  #stroke = null;
  #erase = false;
  /** @type {[number, number]} */
  #at;

  /** @param {HTMLImageElement} picture */
  constructor(picture) {
    const [width, height] = [picture.naturalWidth, picture.naturalHeight];
    this.canvas = h("canvas", {
      width,
      height,
      tabindex: "0",
      role: "application",
      "aria-label": HELP,
    });
    /** @type {CanvasRenderingContext2D} */
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.checker = this.context.createPattern(checker(Math.max(width, height)), "repeat");
    this.ring = h("div.ring", { hidden: true });
    this.size = h("input", {
      type: "range",
      min: "2",
      max: "50",
      value: "14",
      "aria-label": "Brush size",
    });
    this.#at = [width / 2, height / 2];
    const under = h("img", { src: picture.src, alt: "" });
    this.brush = named("brush", "Brush", () => this.#use(false));
    this.eraser = named("eraser", "Eraser", () => this.#use(true));
    this.view = h(
      "div.mask",
      {},
      h(
        "div.tools",
        { role: "toolbar", "aria-label": "Mask" },
        this.brush,
        this.eraser,
        this.size,
        named("undo", "Undo", () => this.undo()),
        named("clear", "Clear the mask", () => this.clear()),
      ),
      h("div.paper", {}, under, this.canvas, this.ring),
      h("p.hint", { text: "Paint over what is drawn again." }),
    );
    this.#use(false);
    this.#listen();
  }

  /** @returns {boolean} whether anything is painted */
  get empty() {
    return !this.#pixels().some((value, place) => place % 4 === 3 && value > 127);
  }

  /** @returns {Promise<Blob>} a PNG: white is drawn again, the rest is black */
  blob() {
    const made = h("canvas", { width: this.canvas.width, height: this.canvas.height });
    const context = made.getContext("2d");
    const painted = this.#pixels();
    const image = context.createImageData(made.width, made.height);
    for (let place = 0; place < painted.length; place += 4) {
      image.data.fill(painted[place + 3] > 127 ? 255 : 0, place, place + 3);
      image.data[place + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return new Promise((done) => made.toBlob(done, "image/png"));
  }

  undo() {
    this.#strokes.pop();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.#strokes.forEach((stroke) => this.#paint(stroke));
  }

  clear() {
    this.#add({ erase: true, radius: 0, points: [], clear: true });
  }

  #pixels() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height).data;
  }

  /** @param {boolean} erase */
  #use(erase) {
    this.#erase = erase;
    this.brush.setAttribute("aria-pressed", String(!erase));
    this.eraser.setAttribute("aria-pressed", String(erase));
  }

  /** @returns {number} in pixels of the picture; the control is in hundredths of its longer side */
  get radius() {
    return Math.max(
      1,
      (Number(this.size.value) / 200) * Math.max(this.canvas.width, this.canvas.height),
    );
  }

  #listen() {
    const { canvas } = this;
    hear(canvas, "pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#stroke = {
        erase: this.#erase || event.buttons === 32,
        radius: this.radius,
        points: [],
      };
      this.#strokes.push(this.#stroke);
      this.#extend(event);
    });
    hear(canvas, "pointermove", (event) => {
      this.#at = this.#place(event);
      this.#follow();
      if (this.#stroke) this.#extend(event);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      hear(canvas, kind, () => {
        this.#stroke = null;
      });
    }
    for (const kind of ["pointerleave", "blur"]) {
      hear(canvas, kind, () => {
        this.ring.hidden = true;
      });
    }
    hear(canvas, "focus", () => this.#follow());
    hear(canvas, "keydown", (event) => this.#key(event));
    hear(this.size, "input", () => this.#follow());
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.altKey || event.key === "Tab" || event.key === "Escape") return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z") {
        this.undo();
        event.preventDefault();
      }
      return;
    }
    const far = this.radius * (event.shiftKey ? 2 : 0.5);
    const moves = /** @type {Record<string, [number, number]>} */ ({
      ArrowLeft: [-far, 0],
      ArrowRight: [far, 0],
      ArrowUp: [0, -far],
      ArrowDown: [0, far],
    });
    const acts = /** @type {Record<string, () => void>} */ ({
      " ": () => this.#add({ erase: this.#erase, radius: this.radius, points: [this.#at] }),
      e: () => this.#use(!this.#erase),
      u: () => this.undo(),
      "[": () => {
        this.size.value = String(Number(this.size.value) - 2);
      },
      "]": () => {
        this.size.value = String(Number(this.size.value) + 2);
      },
    });
    const move = moves[event.key];
    if (move) this.#at = this.#inside(this.#at[0] + move[0], this.#at[1] + move[1]);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
    this.#follow();
  }

  /** @param {PointerEvent} event */
  #extend(event) {
    const stroke = /** @type {Stroke} */ (this.#stroke);
    const passed = event.getCoalescedEvents?.() ?? [];
    const from = Math.max(0, stroke.points.length - 1);
    stroke.points.push(...(passed.length ? passed : [event]).map((one) => this.#place(one)));
    this.#paint({ ...stroke, points: stroke.points.slice(from) });
  }

  /** @param {Stroke} stroke */
  #add(stroke) {
    this.#strokes.push(stroke);
    this.#paint(stroke);
  }

  /** @param {Stroke} stroke */
  #paint({ erase, radius, points, clear }) {
    const { context } = this;
    if (clear) context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!points.length) return;
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.strokeStyle = this.checker;
    context.lineWidth = 2 * radius;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(points[0][0], points[0][1] - 0.01); // a line without length would not be drawn
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
  }

  /** @param {PointerEvent} event @returns {[number, number]} in pixels of the picture */
  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * this.canvas.width) / box.width,
      ((event.clientY - box.top) * this.canvas.height) / box.height,
    ];
  }

  /** @param {number} x @param {number} y @returns {[number, number]} */
  #inside(x, y) {
    return [
      Math.min(this.canvas.width, Math.max(0, x)),
      Math.min(this.canvas.height, Math.max(0, y)),
    ];
  }

  /** Show the brush where it is. */
  #follow() {
    const shown = this.canvas.clientWidth / this.canvas.width;
    this.ring.hidden = false;
    for (const [name, pixels] of Object.entries({
      left: this.#at[0],
      top: this.#at[1],
      width: 2 * this.radius,
      height: 2 * this.radius,
    })) {
      this.ring.style.setProperty(name, `${pixels * shown}px`);
    }
  }
}

/** @param {string} name @param {string} label @param {() => void} act */
const named = (name, label, act) => tool(name, label, act, { class: "square", title: label });

/** @param {number} side of the picture @returns {HTMLCanvasElement} black and white: seen on any picture */
function checker(side) {
  const cell = Math.max(1, Math.round(side / 80));
  const made = h("canvas", { width: 2 * cell, height: 2 * cell });
  const context = made.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, 2 * cell, 2 * cell);
  context.fillStyle = "#000";
  context.fillRect(0, 0, cell, cell);
  context.fillRect(cell, cell, cell, cell);
  return made;
}
