/** Hashes as they are told and compared. */

/** Length of a hash. */
export const HASH_BYTES = 16;

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

export function sameHash(left: Uint8Array, right: Uint8Array): boolean {
  for (let index = 0; index < HASH_BYTES; index++) if (left[index] !== right[index]) return false;
  return true;
}
