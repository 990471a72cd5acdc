/** What this browser keeps between two visits. Where it refuses to, nothing is kept. */

/** @param {string} name @param {"localStorage" | "sessionStorage"} [place] @returns {string | null} */
export function kept(name, place = "localStorage") {
  try {
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

/**
 * @param {string} name
 * @param {string | null} value null to keep it no more
 * @param {"localStorage" | "sessionStorage"} [place]
 */
export function keep(name, value, place = "localStorage") {
  try {
    if (value === null) window[place].removeItem(name);
    else window[place].setItem(name, value);
  } catch {
    // full or refused: it is then as it was at the next visit
  }
}
