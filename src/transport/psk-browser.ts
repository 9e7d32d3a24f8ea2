/** In place of `psk.ts` where a browser makes the connections: its TLS knows certificates only, so that nobody here has such keys. */
import type { Psk } from './psk.ts';

export type { Psk };

function refuse(): never {
  throw new Error('There are no pre-shared keys for TLS in a browser.');
}

export const controlPsk: () => Psk = refuse;
export const pairPsk: () => Psk = refuse;
