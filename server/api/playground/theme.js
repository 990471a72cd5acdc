/**
 * Light or dark: as the system has it, until the switch says otherwise.
 * Runs before the page is painted, so that it never shows in the wrong colours first.
 */

const KEY = "darkroom.theme";
const root = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

/** @returns {string | null} "light", "dark", or null where the system decides */
function chosen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is refused: then the choice lasts as long as the page
  }
}

/** @param {string | null} theme */
function apply(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  const dark = (theme ?? (system.matches ? "dark" : "light")) === "dark";
  document.getElementById("theme")?.setAttribute("aria-pressed", String(dark));
}

function toggle() {
  const dark = (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const wanted = dark ? "light" : "dark";
  const theme = wanted === (system.matches ? "dark" : "light") ? null : wanted;
  apply(theme);
  try {
    if (theme) localStorage.setItem(KEY, theme);
    else localStorage.removeItem(KEY);
  } catch {
    // the page shows it all the same
  }
}

apply(chosen());
addEventListener("DOMContentLoaded", () => {
  apply(chosen());
  document.getElementById("theme")?.addEventListener("click", toggle);
});
system.addEventListener("change", () => apply(root.dataset.theme ?? null));
