/** The API key, where the server wants one: asked for once, sent with everything. */

import { h } from "/playground/dom.js";

const PLACE = "darkroom-key";
/** @type {string | null} */
let key = sessionStorage.getItem(PLACE) ?? localStorage.getItem(PLACE);
/** @type {Promise<void> | null} */
let asking = null;
/** @type {Map<string, Promise<string>>} what only the key can fetch, by where it is */
const fetched = new Map();

/**
 * `fetch`, but that whoever has no good key is asked for one first.
 * @param {string} path
 * @param {RequestInit & {patience?: number}} [init] `patience`: milliseconds for each try
 */
export async function call(path, { patience, ...init } = {}) {
  for (;;) {
    const sent = key;
    const headers = { ...init.headers, ...(sent && { Authorization: `Bearer ${sent}` }) };
    const signal = patience ? AbortSignal.timeout(patience) : init.signal;
    const answer = await fetch(path, { ...init, headers, signal });
    if (answer.status !== 401) return answer;
    if (sent === key) await (asking ??= ask(!!sent));
  }
}

/** @param {Element} element @param {string} name `src` or `href` @param {string} url */
export async function point(element, name, url) {
  if (key && url.startsWith("/v1/")) {
    const made = fetched.get(url) ?? call(url).then(address);
    fetched.set(url, made);
    url = await made;
  }
  element.setAttribute(name, url);
}

/** @param {Response} answer */
async function address(answer) {
  if (!answer.ok) throw new Error("it is gone");
  return URL.createObjectURL(await answer.blob());
}

/** @param {boolean} again @returns {Promise<void>} */
async function ask(again) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", autofocus: true });
  const keep = h("input", { type: "checkbox", id: "keep" });
  const form = h(
    "form",
    {},
    h("h2", { id: "key-title", text: "This Darkroom wants a key" }),
    h("label", { for: "key", text: "API key" }),
    input,
    again && h("p", { class: "fault", role: "alert", text: "That key is not good here." }),
    h("p", {}, keep, " ", h("label", { for: "keep", text: "Remember it on this device" })),
    h("button", { class: "primary", text: "Come in" }),
  );
  const box = h("dialog", { class: "key", "aria-labelledby": "key-title" }, form);
  document.body.append(box);
  box.showModal();
  await new Promise((done) => {
    box.addEventListener("close", done);
    form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      box.close();
    });
  });
  key = String(input.value).trim();
  (keep.checked ? localStorage : sessionStorage).setItem(PLACE, key);
  box.remove();
  asking = null;
}
