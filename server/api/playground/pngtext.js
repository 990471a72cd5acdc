/** Texts that a PNG carries (PNG 1.2, `tEXt` and uncompressed `iTXt`). */

const SIGNATURE = 8;
const AROUND = 12; // length, kind and checksum of a chunk

/**
 * @param {Uint8Array} bytes of the file
 * @param {string} keyword
 * @returns {string | null}
 */
export function textOf(bytes, keyword) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < SIGNATURE || view.getUint32(0) !== 0x89504e47) return null;
  for (let place = SIGNATURE; place + AROUND <= bytes.length;) {
    const length = view.getUint32(place);
    const kind = latin(bytes.subarray(place + 4, place + 8));
    const text = read(kind, bytes.subarray(place + 8, place + 8 + length), keyword);
    if (text !== null) return text;
    place += length + AROUND;
  }
  return null;
}

/** @param {string} kind @param {Uint8Array} data @param {string} keyword */
function read(kind, data, keyword) {
  const end = data.indexOf(0);
  if (end < 0 || latin(data.subarray(0, end)) !== keyword) return null;
  if (kind === "tEXt") return latin(data.subarray(end + 1));
  if (kind !== "iTXt" || data[end + 1] !== 0) return null;
  const language = data.indexOf(0, end + 3);
  return new TextDecoder().decode(data.subarray(data.indexOf(0, language + 1) + 1));
}

/** @param {Uint8Array} bytes @returns {string} */
const latin = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
