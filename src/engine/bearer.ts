/** What somebody may do at a coordinator's HTTP port who shows a token or a pass (`Authorization: Bearer …`, RFC 6750). */
import { createHash } from 'node:crypto';
import { sameProof } from '../transport/secure.ts';
import { keyOfClaims, readClaims } from './token.ts';
import { tokenKey } from './token-key.ts';

/** `run`: the only one that it may see and change; null: all. */
export type Rights =
  | { readonly role: 'observer' | 'admin'; readonly run: string | null }
  | { readonly status: 401 | 403; readonly refusal: string };

const SCHEME = /^Bearer +/i;

function unauthorized(refusal: string): Rights {
  return { status: 401, refusal };
}

function digest(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

/**
 * Takes the same time for every wrong token, and for every wrong key of a pass.
 *
 * @param authorization the header as it came; undefined when there is none
 * @param secret the coordinator's token
 */
export function rightsOf(authorization: string | undefined, secret: string, nowMs: number): Rights {
  if (authorization === undefined || !SCHEME.test(authorization))
    return unauthorized('Send the header "Authorization: Bearer <token>", with the coordinator\'s token or a pass.');
  // Node reads headers as Latin-1, one character for each byte.
  const shown = Buffer.from(authorization.replace(SCHEME, ''), 'latin1');
  const { claims, key } = tokenKey(shown.toString());
  const known = keyOfClaims(secret, claims);
  const isRight = sameProof(digest(typeof key === 'string' ? shown : key), digest(Buffer.from(known)));
  if (!isRight) return unauthorized('The token is wrong, or this pass was not made from it.');
  if (claims === '') return { role: 'admin', run: null };
  const pass = readClaims(claims);
  if (pass === null) return unauthorized('The pass can not be read: make another one from the token.');
  if (pass.expires * 1_000 <= nowMs)
    return unauthorized(`This pass was good until ${new Date(pass.expires * 1_000).toISOString()}: ask for a new one.`);
  if (pass.role === 'peer')
    return { status: 403, refusal: 'This pass is for the role peer: it lets its bearer join a run, and nothing else.' };
  if (pass.once)
    return { status: 403, refusal: 'This pass is good once, which only a peer has a use for: make one without that.' };
  return { role: pass.role, run: pass.run };
}
