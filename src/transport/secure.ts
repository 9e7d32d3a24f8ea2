/**
 * Proofs of knowledge: a peer shows that it knows the run's token, or the key of a pair of peers, without sending it.
 * Each proof covers both sides' nonces, a label that says who proves, and the connection on which it is given. So it can't be
 * reflected, used again, or passed on by somebody who speaks to both ends on connections of his own.
 */
import { createHmac, timingSafeEqual } from 'node:crypto';

export const NONCE_BYTES = 32;

/** What a proof is for; the two ends of one handshake never use the same. */
export type ProofLabel = 'coordinator' | 'peer' | 'dial' | 'accept';

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
  const hmac = createHmac('sha256', key);
  for (const part of [Buffer.from(label), Buffer.from(subject), binding, own, theirs]) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(part.length);
    hmac.update(length).update(part);
  }
  return new Uint8Array(hmac.digest());
}

export function sameProof(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && timingSafeEqual(left, right);
}
