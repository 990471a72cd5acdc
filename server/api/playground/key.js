/** The API key, where the server wants one: asked for once, sent with everything, and changed or
 * forgotten by a button that is shown only there. */

import { at, button, h, hear, tool } from "./dom.js";
import { forgetForm } from "./settings.js";
import { keep, kept } from "./storage.js";

const PLACE = "darkroom-key";
/** @type {string | null} */
let key = kept(PLACE, "sessionStorage") ?? kept(PLACE);
/** @type {Promise<void> | null} */
let asking = null;
/** @type {Promise<void> | null} */
let offered = null;
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
    if (answer.status !== 401) {
      if (sent) offered ??= offer().catch(() => {});
      return answer;
    }
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

/** Show the button, unless a key is sent to a server that wants none. */
async function offer() {
  const { account } = await (await call("/v1/usage")).json();
  if (account?.id === "local") return;
  const said = account && `What you draw and see is that of the key “${account.name}”.`;
  const change = async () => {
    const cancel = button("Cancel", () => cancel.closest("dialog")?.close());
    const drops = button("Forget the key", forget, { class: "danger" });
    if (await typed("Your key", "Another API key", said, "Use it", cancel, drops))
      location.reload();
  };
  at("theme").before(tool("key", "API key", change, { id: "change-key" }));
}

/** Leave nothing of who has used it here. */
function forget() {
  drop();
  forgetForm();
  location.reload();
}

function drop() {
  keep(PLACE, null);
  keep(PLACE, null, "sessionStorage");
}

/** @param {boolean} again */
async function ask(again) {
  const fault = again && h("p.fault", { role: "alert", text: "That key is not good here." });
  await typed("This Darkroom wants a key", "API key", fault, "Come in");
  asking = null;
}

/**
 * @param {string} title
 * @param {string} label
 * @param {string | HTMLElement | false} said
 * @param {string} go
 * @param {...HTMLElement} more
 * @returns {Promise<boolean>} whether a key has been typed in, which is used from now on
 */
async function typed(title, label, said, go, ...more) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", autofocus: true });
  const stay = h("input", { type: "checkbox", id: "keep", checked: kept(PLACE) !== null });
  const form = h(
    "form",
    {},
    h("h2", { id: "key-title", text: title }),
    said && h("div.hint", {}, said),
    h("label", { for: "key", text: label }),
    input,
    h("p", {}, stay, " ", h("label", { for: "keep", text: "Remember it on this device" })),
    h("div.ways", {}, h("button.primary", { text: go }), ...more),
  );
  const box = h("dialog.key", { "aria-labelledby": "key-title" }, form);
  document.body.append(box);
  box.showModal();
  const entered = await new Promise((done) => {
    hear(box, "close", () => done("")); // by Escape
    hear(form, "submit", (event) => {
      event.preventDefault();
      done(input.value.trim());
    });
  });
  box.remove();
  if (!entered) return false;
  drop();
  key = entered;
  keep(PLACE, key, stay.checked ? "localStorage" : "sessionStorage");
  return true;
}

// What another tab has forgotten is forgotten here too.
hear(window, "storage", ({ key: name, newValue }) => {
  if (name === PLACE && newValue === null && !kept(PLACE, "sessionStorage")) location.reload();
});
