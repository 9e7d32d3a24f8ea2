/**
 * Proofs of knowledge: a peer shows that it knows the run's token, or the key of a pair of peers, without sending it.
 * Each proof covers both sides' nonces, a label that says who proves, and the connection on which it is given. So it can't be
 * reflected, used again, or passed on by somebody who speaks to both ends on connections of his own.
 * The hash is a library's, because a browser's own is asynchronous.
 */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';

export const NONCE_BYTES = 32;

/** What a proof is for; the two ends of one handshake never use the same. */
export type ProofLabel = 'coordinator' | 'peer' | 'dial' | 'accept';

const text = new TextEncoder();

/** What a proof covers besides its label. */
export interface ProofParts {
  /** What it is about: the run, or who dials whom. */
  readonly subject: string;
  /** Of the connection on which it is given (`Connection.binding`). */
  readonly binding: Uint8Array;
  /** The nonce of the side that proves. */
  readonly own: Uint8Array;
  readonly theirs: Uint8Array;
}

/** HMAC-SHA-256 over label, subject, binding and both nonces; every part is preceded by its length. */
export function prove(key: Uint8Array | string, label: ProofLabel, parts: ProofParts): Uint8Array {
  const { subject, binding, own, theirs } = parts;
  const covered = [text.encode(label), text.encode(subject), binding, own, theirs];
  const bytes = new Uint8Array(covered.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const part of covered) {
    view.setUint32(at, part.length, true);
    bytes.set(part, at + 4);
    at += 4 + part.length;
  }
  return hmac(sha256, typeof key === 'string' ? text.encode(key) : key, bytes);
}

/** Takes the same time wherever the two differ. */
export function sameProof(left: Uint8Array, right: Uint8Array): boolean {
  if (left.length !== right.length) return false;
  let difference = 0;
  for (let index = 0; index < left.length; index++) difference |= left[index]! ^ right[index]!;
  return difference === 0;
}
