/** Which connections are encrypted, and by what their two ends know one another. */
import { isLoopback } from '../transport/address.ts';
import { controlPsk, pairPsk } from '../transport/psk.ts';
import type { Certificates, TlsAcceptor, TlsDialer } from '../transport/tls.ts';
import { tokenKey } from './token-key.ts';

/** Which TCP is TLS: all that leaves the machine, or loopback, too. */
export type Encryption = 'off-loopback' | 'always';

export interface EncryptionOptions {
  /**
   * Where TCP is TLS 1.3. `off-loopback`: on all connections that leave the machine. `always`: on loopback, too. Unix-domain
   * sockets never leave the machine, and stay plain. @default 'off-loopback'
   */
  readonly encryption?: Encryption;
  /**
   * This side's certificate (the text of a PEM file), for TLS by certificates in place of keys that come from the token.
   * `cert`, `key` and `ca` go together, on the coordinator and on every peer. The coordinator's must be made out for the host
   * by which peers reach it. @default none
   */
  readonly cert?: string | Uint8Array;
  /** The private key of `cert`. */
  readonly key?: string | Uint8Array;
  /** The authority by which the other side's certificate must be signed; no other authority is believed. */
  readonly ca?: string | Uint8Array;
}

/** The same, resolved: plain data that can cross threads. */
export interface Security {
  readonly encryption: Encryption;
  readonly certificates: Certificates | null;
}

/** Whether TCP to or on this host is TLS. */
export function encrypts({ encryption }: Security, host: string): boolean {
  return encryption === 'always' || !isLoopback(host);
}

export function controlDialer({ certificates }: Security, token: string): TlsDialer {
  if (certificates !== null) return { certificates, checksHost: true };
  const { claims, key } = tokenKey(token);
  return { psk: controlPsk(claims, key) };
}

/** Peers come from anywhere, so their certificates need not be made out for an address: the pair's key is proved besides. */
export function dataDialer({ certificates }: Security, pairKey: Uint8Array, from: string, to: string): TlsDialer {
  return certificates === null ? { psk: pairPsk(pairKey, from, to) } : { certificates, checksHost: false };
}

/** @param keyOf of the peers that were introduced, by the identity with which they dial */
export function dataAcceptor({ certificates }: Security, keyOf: (identity: string) => Uint8Array | null): TlsAcceptor {
  return certificates === null ? { keyOf } : { certificates };
}
