/**
 * Proofs of knowledge: a peer shows that it knows the run's token, or the key of a pair of peers, without sending it.
 * Each proof covers both sides' nonces and a label that says who proves, so it can't be reflected or used again.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

export const NONCE_BYTES = 32;

/** What a proof is for; the two ends of one handshake never use the same. */
export type ProofLabel = 'coordinator' | 'peer' | 'dial' | 'accept';

/** HMAC-SHA-256 over label, subject and both nonces; every part is preceded by its length. */
export function prove(
  key: Uint8Array | string,
  label: ProofLabel,
  subject: string,
  own: Uint8Array,
  theirs: Uint8Array,
): Uint8Array {
  const hmac = createHmac('sha256', key);
  for (const part of [Buffer.from(label), Buffer.from(subject), own, theirs]) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(part.length);
    hmac.update(length).update(part);
  }
  return new Uint8Array(hmac.digest());
}

export function sameProof(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}
