/** How many tokens a prompt has, and which of its words a text encoder would not read. */

import * as api from "./api.js";
import { h, hear } from "./dom.js";
import { clearFaults } from "./faults.js";

const PAUSE_MILLISECONDS = 250;
const MAX_CHARACTERS = 20_000;

export class TokenCount {
  #asked = new AbortController();
  #later = 0;

  /**
   * @param {HTMLTextAreaElement} field
   * @param {HTMLElement} count
   * @param {() => Record<string, any>} reading checkpoint, prompt_syntax and long_prompts
   */
  constructor(field, count, reading) {
    this.field = field;
    this.count = count;
    this.marks = /** @type {HTMLElement} */ (field.previousElementSibling);
    this.reading = reading;
    hear(field, "input", () => {
      this.#mark([]); // marks of the text before would lie on the wrong words
      clearTimeout(this.#later);
      this.#later = setTimeout(() => this.now(), PAUSE_MILLISECONDS);
    });
    hear(field, "scroll", () => {
      this.marks.scrollTop = field.scrollTop;
    });
  }

  async now() {
    this.#asked.abort();
    this.#asked = new AbortController();
    const prompt = this.field.value;
    if (prompt.length > MAX_CHARACTERS) return this.#say("too long", true);
    if (!prompt) return this.#say("", false);
    try {
      this.#show(prompt, await api.tokenize(prompt, this.reading(), this.#asked.signal));
    } catch (error) {
      if (error instanceof api.Problem)
        this.#say(error.status === 422 ? error.message : "", error.status === 422);
    }
  }

  /** @param {string} prompt @param {any} said of the encoder that reads the least of it */
  #show(prompt, { encoders, window, long_prompts }) {
    const least = encoders.find((/** @type {any} */ one) => one.refused || one.cut) ?? encoders[0];
    const room = window - 2;
    const lost = least.cut?.tokens ?? 0;
    const parts = least.chunks.length;
    const tail = least.refused
      ? " · refused"
      : lost
        ? ` · ${lost} cut`
        : parts > 1
          ? ` · read in ${parts} parts`
          : "";
    this.#say(`${least.count} / ${room} tokens${tail}`, Boolean(least.refused || lost));
    this.#mark(runs(prompt, least, long_prompts === "reject" ? room : Infinity));
  }

  /** @param {string} text @param {boolean} over */
  #say(text, over) {
    this.count.textContent = text;
    this.count.classList.toggle("over", over);
    if (!text) this.#mark([]);
    if (!over) clearFaults(/** @type {HTMLElement} */ (this.field.closest("[data-field]")));
  }

  /** @param {{text: string, kind: string}[]} marked */
  #mark(marked) {
    this.marks.replaceChildren(
      ...marked.map(({ text, kind }) => (kind ? h("mark", { class: kind, text }) : text)),
    );
    this.marks.scrollTop = this.field.scrollTop;
  }
}

/**
 * The prompt in runs that are read, begin another chunk, or are cut.
 * @param {string} prompt
 * @param {{tokens: {start: number, end: number}[], chunks: {start: number, end: number}[]}} encoder
 * @param {number} most tokens that are read at all
 * @returns {{text: string, kind: "" | "cut" | "chunk"}[]}
 */
export function runs(prompt, { tokens, chunks }, most) {
  const characters = [...prompt]; // places are counted in whole characters, as Python does
  const kinds = new Array(characters.length).fill("");
  tokens.forEach((token, place) => {
    const chunk = chunks.findIndex(({ start, end }) => start <= place && place < end);
    const kind = chunk < 0 || place >= most ? "cut" : chunk % 2 ? "chunk" : "";
    kinds.fill(kind, token.start, token.end);
  });
  const found = /** @type {{text: string, kind: any}[]} */ ([]);
  characters.forEach((character, place) => {
    const last = found.at(-1);
    const kind = character === " " && last ? last.kind : kinds[place];
    if (last && last.kind === kind) last.text += character;
    else found.push({ text: character, kind });
  });
  return found;
}
