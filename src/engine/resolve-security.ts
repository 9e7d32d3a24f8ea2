/** What Node alone does about encryption: it looks at certificates, and knows whoever comes to a coordinator. */
import { ArgumentError } from '../errors.ts';
import { claimsOf, controlPsk } from '../transport/psk.ts';
import { checkCertificates, type TlsAcceptor } from '../transport/tls.ts';
import type { EncryptionOptions, Security } from './security.ts';
import { keyOfClaims } from './token.ts';

/** @throws ArgumentError when certificates are incomplete or can't be used, or when there is nothing to take keys from */
export function resolveSecurity(options: EncryptionOptions, token: string): Security {
  const { encryption = 'off-loopback', cert, key, ca } = options;
  if (encryption !== 'off-loopback' && encryption !== 'always') {
    throw new ArgumentError(`\`encryption\` must be one of off-loopback, always, not ${JSON.stringify(encryption)}.`);
  }
  if (cert !== undefined && key !== undefined && ca !== undefined) {
    const certificates = { cert, key, ca };
    checkCertificates(certificates);
    return { encryption, certificates };
  }
  if (cert !== undefined || key !== undefined || ca !== undefined) {
    throw new ArgumentError('`cert`, `key` and `ca` go together: give all three, or none.');
  }
  if (encryption === 'always' && token === '') {
    throw new ArgumentError(
      "`encryption: 'always'` takes its keys from the token: give a `token`, or `cert`, `key` and `ca`.",
    );
  }
  return { encryption, certificates: null };
}

/** null: there is nothing by which anybody could be known, so nothing but loopback can be served. */
export function controlAcceptor({ certificates }: Security, token: string): TlsAcceptor | null {
  if (certificates !== null) return { certificates };
  if (token === '') return null;
  return {
    keyOf: (identity) => {
      const claims = claimsOf(identity);
      return claims === null ? null : controlPsk(claims, keyOfClaims(token, claims)).key;
    },
  };
}
