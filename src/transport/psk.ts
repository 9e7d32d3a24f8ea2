/** Pre-shared keys for TLS, derived from what both ends know already. Neither a key nor its identity tells what it comes from. */
import { createHash, hkdfSync } from 'node:crypto';

export interface Psk {
  /** By it the accepting end finds the key; it is sent in the clear. */
  readonly identity: string;
  readonly key: Uint8Array;
}

const KEY_BYTES = 32;

/** OpenSSL takes identities of up to 256 bytes, whatever the names of runs and peers are. */
const IDENTITY_BYTES = 16;

/** HKDF-SHA-256 (RFC 5869). Names may be longer than what it takes as `info`, so it gets their hash. */
function derive(secret: Uint8Array | string, bytes: number, ...purpose: readonly string[]): Uint8Array {
  const info = createHash('sha256').update(JSON.stringify(purpose)).digest();
  return new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(0), info, bytes));
}

/** For control connections: whoever knows the token knows it. */
export function tokenPsk(token: string): Psk {
  return { identity: 'skein', key: derive(token, KEY_BYTES, 'skein tls', 'control', 'key') };
}

/** For data connections that `from` dials to `to`, whose key the coordinator made for these two. */
export function pairPsk(pairKey: Uint8Array, from: string, to: string): Psk {
  const identity = derive(pairKey, IDENTITY_BYTES, 'skein tls', 'data', from, to, 'identity');
  return {
    identity: Buffer.from(identity).toString('hex'),
    key: derive(pairKey, KEY_BYTES, 'skein tls', 'data', from, to, 'key'),
  };
}
