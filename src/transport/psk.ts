/** Pre-shared keys for TLS, derived from what both ends know already. No key tells what it comes from. */
import { createHash, hkdfSync } from 'node:crypto';

export interface Psk {
  /** By it the accepting end finds the key; it is sent in the clear. */
  readonly identity: string;
  readonly key: Uint8Array;
}

const KEY_BYTES = 32;

/** What OpenSSL takes, less than the names of runs and peers may have. */
export const MAX_IDENTITY_LENGTH = 255;
const IDENTITY_BYTES = 16;

/** With the token itself; the claims of a pass are never this. */
const TOKEN_IDENTITY = 'skein';

/** HKDF-SHA-256 (RFC 5869). Names may be longer than what it takes as `info`, so it gets their hash. */
function derive(secret: Uint8Array | string, bytes: number, ...purpose: readonly string[]): Uint8Array {
  const info = createHash('sha256').update(JSON.stringify(purpose)).digest();
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), info, bytes));
}

/**
 * For control connections.
 *
 * @param claims of the pass that the key belongs to, at most MAX_IDENTITY_LENGTH; empty for the token itself
 */
export function tokenPsk(claims: string, key: Uint8Array | string): Psk {
  const identity = claims === '' ? TOKEN_IDENTITY : claims;
  return { identity, key: derive(key, KEY_BYTES, 'skein tls', 'control', 'key') };
}

/** The claims that an identity of `tokenPsk` tells. */
export function claimsOf(identity: string): string {
  return identity === TOKEN_IDENTITY ? '' : identity;
}

/** For data connections that `from` dials to `to`, whose key the coordinator made for these two. */
export function pairPsk(pairKey: Uint8Array, from: string, to: string): Psk {
  const identity = derive(pairKey, IDENTITY_BYTES, 'skein tls', 'data', from, to, 'identity');
  return {
    identity: Buffer.from(identity).toString('hex'),
    key: derive(pairKey, KEY_BYTES, 'skein tls', 'data', from, to, 'key'),
  };
}
