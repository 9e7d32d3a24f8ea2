/**
 * Proofs of knowledge: a peer shows that it knows the run's token, or the key of a pair of peers, without sending it.
 * Each proof covers both sides' nonces and a label that says who proves, so it can't be reflected or used again. The hash is a
 * library's, because a browser's own is asynchronous.
 */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';

export const NONCE_BYTES = 32;

/** What a proof is for; the two ends of one handshake never use the same. */
export type ProofLabel = 'coordinator' | 'peer' | 'dial' | 'accept';

const text = new TextEncoder();

/** HMAC-SHA-256 over label, subject and both nonces; every part is preceded by its length. */
export function prove(
  key: Uint8Array | string,
  label: ProofLabel,
  subject: string,
  own: Uint8Array,
  theirs: Uint8Array,
): Uint8Array {
  const mac = hmac.create(sha256, typeof key === 'string' ? text.encode(key) : key);
  for (const part of [text.encode(label), text.encode(subject), own, theirs]) {
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, part.length, true);
    mac.update(length).update(part);
  }
  return mac.digest();
}

/** Takes the same time wherever the two differ. */
export function sameProof(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let index = 0; index < left.length; index++) difference |= left[index]! ^ right[index]!;
  return difference === 0;
}
