/** Pre-shared keys for TLS, derived from what both ends know already. Neither a key nor its identity tells what it comes from. */
import { hkdf } from '@noble/hashes/hkdf.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { bytesToHex } from '@noble/hashes/utils.js';

export interface Psk {
  /** By it the accepting end finds the key; it is sent in the clear. */
  readonly identity: string;
  readonly key: Uint8Array;
}

const KEY_BYTES = 32;

/** OpenSSL takes identities of up to 256 bytes, whatever the names of peers are. */
const IDENTITY_BYTES = 16;

const text = new TextEncoder();

/** HKDF-SHA-256 (RFC 5869). Names may be longer than what it takes as `info`, so it gets their hash. */
function derive(secret: Uint8Array | string, bytes: number, ...purpose: readonly string[]): Uint8Array {
  const info = sha256(text.encode(JSON.stringify(purpose)));
  return hkdf(sha256, typeof secret === 'string' ? text.encode(secret) : secret, undefined, info, bytes);
}

const CONTROL_IDENTITY = 'skein';

/**
 * For control connections: whoever knows the token knows it, or whoever has a pass.
 *
 * @param claims of the pass, which the identity tells; empty for the token itself
 */
export function controlPsk(claims: string, secret: Uint8Array | string): Psk {
  const identity = claims === '' ? CONTROL_IDENTITY : `${CONTROL_IDENTITY}.${claims}`;
  return { identity, key: derive(secret, KEY_BYTES, 'skein tls', 'control', 'key') };
}

/** The claims that such an identity tells; null for what is none. */
export function claimsOf(identity: string): string | null {
  if (identity === CONTROL_IDENTITY) return '';
  return identity.startsWith(`${CONTROL_IDENTITY}.`) ? identity.slice(CONTROL_IDENTITY.length + 1) : null;
}

/** For data connections that `from` dials to `to`, whose key the coordinator made for these two. */
export function pairPsk(pairKey: Uint8Array, from: string, to: string): Psk {
  const identity = derive(pairKey, IDENTITY_BYTES, 'skein tls', 'data', from, to, 'identity');
  return {
    identity: bytesToHex(identity),
    key: derive(pairKey, KEY_BYTES, 'skein tls', 'data', from, to, 'key'),
  };
}
