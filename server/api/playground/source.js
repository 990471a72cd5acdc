/** The picture to start from: chosen, dropped or pasted. */

import { at, button, h, hear, icon } from "./dom.js";
import { Mask } from "./mask.js";

export class Source {
  /** @type {Blob | null} */
  file = null;
  /** @type {HTMLImageElement | null} */
  picture = null;
  /** @type {Mask | null} */
  mask = null;
  #painted = false;

  /** @param {() => void} changed @param {(message: string) => void} refused */
  constructor(changed, refused) {
    this.changed = changed;
    this.refused = refused;
    hear(at("source"), "change", (event) => this.#take(event.target.files));
    hear(window, "paste", (event) => this.#take(event.clipboardData?.files));
    hear(window, "dragover", (event) => this.#over(event, true));
    hear(window, "dragleave", (event) => this.#over(event, event.relatedTarget !== null));
    hear(window, "drop", (event) => {
      this.#over(event, false);
      this.#take(event.dataTransfer?.files);
    });
  }

  /** @param {Blob} file */
  async set(file) {
    const picture = new Image();
    picture.src = URL.createObjectURL(file);
    try {
      await picture.decode();
    } catch {
      URL.revokeObjectURL(picture.src);
      this.refused("this is no picture that can be read; a PNG, JPEG or WebP can");
      return;
    }
    this.clear();
    this.file = file;
    this.picture = picture;
    this.#show();
    this.changed();
  }

  clear() {
    if (this.picture) URL.revokeObjectURL(this.picture.src);
    this.file = this.picture = this.mask = null;
    at("source").value = "";
    this.#show();
  }

  /** @param {boolean} painted whether a mask belongs to it */
  masked(painted) {
    if (painted !== this.#painted) {
      this.#painted = painted;
      this.#show();
    }
  }

  /** @param {FileList | undefined | null} files */
  #take(files) {
    const file = [...(files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) this.set(file);
  }

  /** @param {DragEvent} event @param {boolean} over */
  #over(event, over) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    at("drop").classList.toggle("over", over);
  }

  #remove() {
    this.clear();
    this.changed();
    at("source").focus();
  }

  #show() {
    const { picture } = this;
    at("choose").textContent = picture ? "Choose another" : "Choose a picture";
    at("source-view").hidden = !picture;
    at("source-view").replaceChildren();
    at("mask-part").replaceChildren();
    if (!picture) return;
    const remove = button("Remove", () => this.#remove(), { class: "quiet" });
    remove.prepend(icon("close"));
    const painted = this.#painted;
    if (painted) {
      this.mask ??= new Mask(picture);
      at("mask-part").replaceChildren(this.mask.view);
    } else picture.alt = "The picture to start from";
    at("source-view").replaceChildren(
      painted ? "" : picture,
      h("p.hint", { text: `${picture.naturalWidth} × ${picture.naturalHeight}` }),
      remove,
    );
  }
}
