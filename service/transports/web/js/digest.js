/** An image's public name, computed here so that a picture which the service knows need not be sent. */

/**
 * @param {Blob} blob the original bytes
 * @returns {Promise<string|null>} "sha256:<hex>", or null where the browser withholds SubtleCrypto (plain HTTP)
 */
export async function digestOf(blob) {
  if (!globalThis.crypto?.subtle) return null;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return "sha256:" + Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
