/**
 * Light or dark: as the system has it, until the switch says otherwise.
 * Runs before the page is painted, so that it never shows in the wrong colours first.
 */

import { keep, kept } from "./storage.js";

const KEY = "darkroom.theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");
const systems = () => (system.matches ? "dark" : "light");

/** @param {string | null | undefined} theme "light", "dark", or none where the system decides */
function apply(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  const dark = (theme || systems()) === "dark";
  document.getElementById("theme")?.setAttribute("aria-pressed", String(dark));
}

function toggle() {
  const wanted = (root.dataset.theme ?? systems()) === "dark" ? "light" : "dark";
  const theme = wanted === systems() ? null : wanted;
  apply(theme);
  keep(KEY, theme);
}

apply(kept(KEY));
addEventListener("DOMContentLoaded", () => {
  apply(root.dataset.theme);
  document.getElementById("theme")?.addEventListener("click", toggle);
});
system.addEventListener("change", () => apply(root.dataset.theme));
